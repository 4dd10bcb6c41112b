//go:build deploy

package deploytest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unpacked returns the deb in a folder of the work tree as a directory with its files.
func unpacked(t *testing.T, folder string) (dir, deb string) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(root, folder, "*.deb"))
	if len(found) != 1 {
		t.Fatalf("%s: %d debs, want one: run make packages-next", folder, len(found))
	}
	dir = t.TempDir()
	deb, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	must(t, "dpkg-deb", "-x", deb, dir)
	return dir, deb
}

// TestPackageVersion: the program says the version of its package, and so do its pages.
func TestPackageVersion(t *testing.T) {
	for _, folder := range []string{"dist", "dist/next"} {
		dir, deb := unpacked(t, folder)
		want := "shared-altsd " + strings.TrimSpace(must(t, "dpkg-deb", "-f", deb, "Version"))
		for _, flag := range []string{"--version", "version"} {
			if got := must(t, filepath.Join(dir, "usr/bin/shared-altsd"), flag); !strings.HasPrefix(got, want+" (") {
				t.Errorf("%s of the package in %s says %q, want %q", flag, folder, got, want)
			}
		}
		if page := must(t, "zcat", filepath.Join(dir, "usr/share/man/man1/shared-altsd.1.gz")); !strings.Contains(page, `"`+want+"\"\n") {
			t.Errorf("the manual page in %s is not of %q: %.60s", folder, want, page)
		}
	}
}

// administrators are the files below /etc/shared-altsd that the package's texts name and the administrator puts there.
var administrators = map[string]bool{"machine.pem": true, "ca.pem": true, "ca.crl": true, "partner-ca.pem": true,
	"denied.policy": true, "listen/NAME.conf": true}

// TestPackageIsWhole: what the pages, units, scripts, documents and messages of the package point to is in it.
func TestPackageIsWhole(t *testing.T) {
	dir, deb := unpacked(t, "dist")
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(dir, path))
		return err == nil
	}
	texts := map[string]string{"the scripts": must(t, "dpkg-deb", "--ctrl-tarfile", deb)}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		if strings.HasSuffix(name, ".gz") {
			texts[name] = strings.ReplaceAll(must(t, "zcat", path), `\-`, "-")
			return nil
		}
		b, err := os.ReadFile(path)
		texts[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	want := func(from, said, path string) {
		seen++
		if !there(path) {
			t.Errorf("%s points to %s, and the package has no %s", from, said, path)
		}
	}
	const docs = "/usr/share/doc/shared-altsd/"
	for from, text := range texts {
		for _, said := range regexp.MustCompile(`docs/[a-z/-]+\.md`).FindAllString(text, -1) {
			want(from, said, docs+said)
		}
		if from == "/usr/bin/shared-altsd" {
			continue // has paths of much that is not the package's
		}
		for _, m := range regexp.MustCompile(`\]\(([a-z/.-]+\.md)[#)]`).FindAllStringSubmatch(text, -1) {
			want(from, m[1], filepath.Join(filepath.Dir(from), m[1]))
		}
		for _, m := range regexp.MustCompile(`\bman:([a-z.-]+)\(([0-9])\)|^\.BR (shared-altsd[a-z.-]*) \(([0-9])\)`).FindAllStringSubmatch(text, -1) {
			page, section := m[1]+m[3], m[2]+m[4]
			want(from, m[0], "/usr/share/man/man"+section+"/"+page+"."+section+".gz")
		}
		for _, path := range regexp.MustCompile(`/(?:usr|etc)/[a-zA-Z0-9/._-]*shared[-_]altsd[a-zA-Z0-9/._@-]*[a-zA-Z0-9]`).FindAllString(text, -1) {
			file, ours := strings.CutPrefix(path, "/etc/shared-altsd/")
			if strings.HasPrefix(from, docs) || ours && administrators[file] {
				continue // documents say what else may be put where
			}
			want(from, path, path)
		}
	}
	want("docs/clients/cpp.md", "shared_altsd.h", "/usr/include/shared_altsd.h")
	if seen < 60 {
		t.Errorf("only %d pointers were found", seen)
	}
	// The rpm has the same files, and what it has anybody may read.
	list := must(t, "sh", "-c", "rpm -qlvp dist/*.rpm")
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		path := line[strings.Index(line, " /")+1:]
		if !there(path) && !strings.Contains(path, "/zsh/") {
			t.Errorf("the rpm has %s, the deb has not", path)
		}
		if line[7] != 'r' {
			t.Errorf("not everybody may read %s", line)
		}
	}
	if files, _ := command("sh", "-c", "dpkg-deb -c dist/*.deb | grep -v '^d' | wc -l"); strings.TrimSpace(files) !=
		strings.TrimSpace(must(t, "sh", "-c", "rpm -qlvp dist/*.rpm | grep -v '^d' | wc -l")) {
		t.Errorf("the deb has %s files, the rpm another number", files)
	}
}
