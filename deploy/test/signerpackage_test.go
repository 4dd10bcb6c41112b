//go:build deploy

package deploytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestUnitsSignerPackage: the signer's deb and rpm have the same files, program and page say the package's version, and what its unit
// and its scripts name is there or in the daemon's package.
func TestUnitsSignerPackage(t *testing.T) {
	dir, deb := unpacked(t, "dist/signer")
	want := "shared-altsd-signer " + strings.TrimSpace(must(t, "dpkg-deb", "-f", deb, "Version"))
	if got := must(t, filepath.Join(dir, "usr/bin/shared-altsd-signer"), "--version"); !strings.HasPrefix(got, want+" (") || !strings.Contains(got, "cgo") {
		t.Errorf("the program says %q, want %q with cgo", got, want)
	}
	page := exec.Command("sh", "-c", "zcat "+filepath.Join(dir, "usr/share/man/man1/shared-altsd-signer.1.gz")+" | groff -man -ww -Tascii -P-cbou")
	var complaints strings.Builder
	page.Stderr = &complaints
	if out, err := page.Output(); err != nil || complaints.Len() > 0 || !strings.Contains(string(out), "--pin-file") {
		t.Errorf("its page: %v %s", err, complaints.String())
	}
	depends := must(t, "dpkg-deb", "-f", deb, "Depends")
	if !regexp.MustCompile(`libc6 \(>= 2\.[0-9]+\), shared-altsd`).MatchString(depends) {
		t.Errorf("it depends on %s", depends)
	}
	files := func(list string) []string {
		all := strings.Fields(list)
		slices.Sort(all)
		return all
	}
	inDeb := files(must(t, "sh", "-c", "dpkg-deb -c "+deb+" | awk '/^-/ {print substr($6, 2)}'"))
	inRPM := files(must(t, "sh", "-c", "rpm -qlp dist/signer/*.rpm"))
	if !slices.Equal(inDeb, inRPM) || len(inDeb) != 6 {
		t.Errorf("the deb has %q, the rpm %q", inDeb, inRPM)
	}
	ours := regexp.MustCompile(`/usr/[a-zA-Z0-9/._-]*shared-altsd[a-zA-Z0-9/._-]*[a-zA-Z0-9]`)
	texts := must(t, "dpkg-deb", "--ctrl-tarfile", deb)
	for _, unit := range []string{"service", "socket"} {
		text, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system/shared-altsd-signer."+unit))
		if err != nil {
			t.Fatal(err)
		}
		texts += string(text)
	}
	for _, path := range ours.FindAllString(texts, -1) {
		document, inDocs := strings.CutPrefix(path, "/usr/share/doc/shared-altsd/")
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil && !inDocs {
			t.Errorf("it names %s, which it does not have", path)
		} else if inDocs {
			if _, err := os.Stat(filepath.Join(root, document)); err != nil {
				t.Errorf("it names %s, which the daemon's package does not have", path)
			}
		}
	}
}
