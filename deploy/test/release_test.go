//go:build deploy

package deploytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// shortDir makes a folder with a short name: the socket of gpg's agent is to be in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "altsd-gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stopAgent ends gpg's agent with the test.
func stopAgent(t *testing.T, home string) {
	t.Cleanup(func() { command("gpgconf", "--homedir", home, "--kill", "gpg-agent") })
}

// keyring makes a GnuPG home with a key made on the spot, and gives both.
func keyring(t *testing.T) (home, fingerprint string) {
	t.Helper()
	home = shortDir(t)
	stopAgent(t, home)
	gpg := func(args ...string) string {
		return must(t, "gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--trust-model", "always"}, args...)...)
	}
	gpg("--pinentry-mode", "loopback", "--passphrase", "", "--faked-system-time", "20260101T000000",
		"--quick-generate-key", "A test of shared-altsd", "rsa3072", "sign", "never")
	m := regexp.MustCompile(`(?m)^fpr:.*:([0-9A-F]{40}):`).FindStringSubmatch(gpg("--list-secret-keys", "--with-colons"))
	if m == nil {
		t.Fatal("no key")
	}
	return home, m[1]
}

// A release is what `make release` made.
type release struct{ dir, home, key string }

// make runs `make release` with more variables; for dir, below the release's parent.
func (r release) make(t *testing.T, dir string, variables ...string) (string, error) {
	t.Helper()
	args := append([]string{"GNUPGHOME=" + r.home, "make", "-s", "release", "RELEASE_KEY=" + r.key, "RELEASE_DIR=" + dir}, variables...)
	out, err := command("env", args...)
	return out, err
}

// newRelease makes the release of this commit for this machine's architecture, in dir.
func newRelease(t *testing.T, dir string) release {
	t.Helper()
	home, key := keyring(t)
	r := release{dir, home, key}
	if out, err := r.make(t, dir, "RELEASE_ARCHS="+goarch(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

func goarch(t *testing.T) string { return strings.TrimSpace(must(t, "go", "env", "GOARCH")) }

// files returns the content of each file below a directory, by its path there.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		found[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRelease: a release is the same byte for byte wherever, by whom and when it is made, says what is in it, and takes in what the
// same key has signed before and nothing that was changed since.
func TestRelease(t *testing.T) {
	top := t.TempDir()
	r := newRelease(t, filepath.Join(top, "a"))
	one := files(t, r.dir)

	far := filepath.Join(top, "another/folder/of/another/length/release")
	t.Setenv("TZ", "Pacific/Kiritimati")
	if out, err := command("sh", "-c", fmt.Sprintf("umask 077; GNUPGHOME=%s LANG=C.UTF-8 make -s release RELEASE_KEY=%s RELEASE_DIR=%s RELEASE_ARCHS=%s",
		r.home, r.key, far, goarch(t))); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	two := files(t, far)
	if len(one) != len(two) || len(one) < 20 {
		t.Errorf("%d files and %d", len(one), len(two))
	}
	for name, content := range one {
		if !bytes.Equal(content, two[name]) {
			t.Errorf("%s is not the same in both: %d and %d bytes", name, len(content), len(two[name]))
		}
	}

	// Checksums of all, and a bill of materials beside each package that is of the program in it.
	must(t, "sh", "-ec", fmt.Sprintf(`cd %s; gpgv --keyring %s/pubring.kbx SHA256SUMS.asc SHA256SUMS; sha256sum --quiet --strict -c SHA256SUMS`, r.dir, r.home))
	if listed := strings.Count(string(one["SHA256SUMS"]), "\n"); listed != len(one)-2 {
		t.Errorf("SHA256SUMS has %d lines for %d files", listed, len(one))
	}
	commit := strings.TrimSpace(must(t, "git", "rev-parse", "HEAD"))
	if said := string(one["RELEASE"]); !strings.Contains(said, "commit "+commit+"\n") {
		t.Errorf("RELEASE says %q", said)
	}
	packages := 0
	for name := range one {
		if !strings.HasSuffix(name, ".deb") && !strings.HasSuffix(name, ".rpm") {
			continue
		}
		packages++
		if strings.Contains(name, "selinux") {
			continue // has no program
		}
		dir := t.TempDir()
		if strings.HasSuffix(name, ".deb") {
			must(t, "dpkg-deb", "-x", filepath.Join(r.dir, name), dir)
		} else {
			must(t, "sh", "-ec", fmt.Sprintf("cd %s; rpm2archive - <%s | tar -xz", dir, filepath.Join(r.dir, name)))
		}
		programs, _ := filepath.Glob(filepath.Join(dir, "usr/bin/*"))
		if strings.Contains(name, "shared-altsd-selinux-") && len(programs) == 0 {
			continue // a policy, which has no parts of others to name
		}
		if len(programs) != 1 {
			t.Fatalf("%s: %q", name, programs)
		}
		// The commit is in the program, without a word of changes.
		if line := must(t, programs[0], "--version"); !strings.Contains(line, "commit "+commit+" of") {
			t.Errorf("%s: %s", name, line)
		}
		var bom struct {
			Metadata struct {
				Component struct {
					Version string
					Hashes  []struct{ Content string }
				}
			}
		}
		if err := json.Unmarshal(one[name+".cdx.json"], &bom); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if sum := strings.Fields(must(t, "sha256sum", programs[0]))[0]; len(bom.Metadata.Component.Hashes) != 1 || bom.Metadata.Component.Hashes[0].Content != sum ||
			!strings.Contains(name, bom.Metadata.Component.Version) || bom.Metadata.Component.Version == "" {
			t.Errorf("the bill of materials of %s is of %v, its program has %s", name, bom, sum)
		}
	}
	if packages != 5 {
		t.Errorf("%d packages", packages)
	}

	// An earlier release is taken in as it is, packages and all, and refused where a byte of it has changed.
	again := filepath.Join(top, "again")
	if out, err := r.make(t, again, "RELEASE_ARCHS=", "RELEASE_ADD="+r.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, content := range files(t, again) {
		if name != "RELEASE" && !strings.HasPrefix(name, "SHA256SUMS") && !bytes.Equal(content, one[name]) {
			t.Errorf("%s has changed by being taken in", name)
		}
	}
	refused := func(want string, variables ...string) {
		t.Helper()
		if out, err := r.make(t, filepath.Join(top, "refused"), variables...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q\n%s", variables, err, want, out)
		}
		if _, err := os.Stat(filepath.Join(top, "refused")); err == nil {
			t.Errorf("%q: there is a release", variables)
		}
	}
	rpm := strings.TrimSpace(shell(t, "ls "+again+"/dnf/packages/shared-altsd-signer-*.rpm"))
	evil := filepath.Join(again, "apt/pool/evil_1_all.deb")
	copyFile := func(from, to string) { shell(t, "cp "+from+" "+to) }
	copyFile(rpm, evil)
	refused("what its SHA256SUMS does not name: apt/pool/evil_1_all.deb", "RELEASE_ARCHS=", "RELEASE_ADD="+again)
	sums := filepath.Join(again, "apt/SHA256SUMS_1_all.deb") // only the two files at the top are not in it
	shell(t, "mv "+evil+" "+sums)
	refused("what its SHA256SUMS does not name: apt/SHA256SUMS_1_all.deb", "RELEASE_ARCHS=", "RELEASE_ADD="+again)
	shell(t, "mv "+sums+" "+evil)
	change(t, rpm)
	refused("is not what its SHA256SUMS says", "RELEASE_ARCHS=", "RELEASE_ADD="+again)
	copyFile(evil, rpm)
	shell(t, "rm "+evil+"; ln -s /etc/passwd "+evil)
	refused("what its SHA256SUMS does not name", "RELEASE_ARCHS=", "RELEASE_ADD="+again)
	shell(t, "rm "+again+"/SHA256SUMS*")
	refused("is no release, without SHA256SUMS", "RELEASE_ARCHS=", "RELEASE_ADD="+again)
	deb := strings.TrimSpace(shell(t, "ls "+again+"/apt/pool/main/s/shared-altsd/shared-altsd-signer_*.deb"))
	change(t, deb)
	refused("is another package of the same name", "RELEASE_ARCHS=", "RELEASE_ADD="+r.dir, "RELEASE_PACKAGES="+again)
	// One for a trial has a key of its own, wherever it is made.
	trial := filepath.Join(top, strings.Repeat("a-folder-of-a-long-name/", 6))
	if out, err := r.make(t, trial, "RELEASE_KEY=", "RELEASE_ARCHS=", "RELEASE_PACKAGES="+r.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	signer := shell(t, fmt.Sprintf("cd %s; gpg --dearmor <shared-altsd.asc >%s/trial.gpg; gpgv --keyring %[2]s/trial.gpg SHA256SUMS.asc SHA256SUMS 2>&1", trial, top))
	if !strings.Contains(signer, `Good signature from "shared-altsd, for a trial alone"`) {
		t.Error(signer)
	}
	other, key := keyring(t)
	refused("is not signed by "+key, "RELEASE_ARCHS=", "RELEASE_ADD="+r.dir, "GNUPGHOME="+other, "RELEASE_KEY="+key)
	refused("gpg has no key", "RELEASE_KEY="+strings.Repeat("0", 40))
	refused("want a whole fingerprint", "RELEASE_KEY="+r.key[24:])
	if out, err := r.make(t, r.home, "RELEASE_ARCHS=", "RELEASE_ADD="+r.dir); err == nil || !strings.Contains(err.Error(), "is there, and no release") {
		t.Errorf("a folder of something else: %v\n%s", err, out)
	}
	if left, _ := os.ReadDir(r.home); len(left) == 0 {
		t.Error("a folder of something else is gone")
	}
	refused("want three numbers", "VERSION=1.2~rc1")
	refused("there is no package", "RELEASE_ARCHS=")
	if left, _ := filepath.Glob(filepath.Join(top, ".release.*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// changed returns data with one byte in its middle changed.
func changed(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

func change(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, changed(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A repository serves a release to the machines of a network, and may be told to serve something else.
type repository struct {
	url    string
	mu     sync.Mutex
	dir    string
	tamper func(path string, data []byte) []byte // nil, or data as it is to be served; nil data is not found
}

func serveRelease(t *testing.T, dir, network string) *repository {
	t.Helper()
	gateway := strings.TrimSpace(must(t, "docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network))
	l, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &repository{url: "http://" + l.Addr().String(), dir: dir}
	server := &http.Server{Handler: r}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return r
}

func (r *repository) set(dir string, tamper func(path string, data []byte) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dir, r.tamper = dir, tamper
}

func (r *repository) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	dir, tamper := r.dir, r.tamper
	r.mu.Unlock()
	path := filepath.Clean("/" + request.URL.Path)
	data, err := os.ReadFile(dir + path)
	if err == nil && tamper != nil {
		data = tamper(path, data)
	}
	if err != nil || data == nil {
		http.NotFound(w, request)
		return
	}
	w.Write(data)
}

// those changes what matches, by f.
func those(pattern string, f func([]byte) []byte) func(string, []byte) []byte {
	matches := regexp.MustCompile(pattern)
	return func(path string, data []byte) []byte {
		if matches.MatchString(path) {
			return f(data)
		}
		return data
	}
}

func missing([]byte) []byte { return nil }

// shell runs a script of the host, for what one line cannot.
func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
