package daemon

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A place is a directory with files, as a test of who could replace them wants it. The first error stays.
type place struct {
	dir string
	err error
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) do(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *place) mkdir(name string, mode fs.FileMode, uid int) {
	p.do(os.Mkdir(p.path(name), 0o700))
	p.do(os.Chown(p.path(name), uid, uid))
	p.do(os.Chmod(p.path(name), mode))
}

func (p *place) file(name string, mode fs.FileMode, uid int, data []byte) {
	p.do(os.WriteFile(p.path(name), data, 0o600))
	p.do(os.Chown(p.path(name), uid, uid))
	p.do(os.Chmod(p.path(name), mode))
}

func (p *place) link(target, name string, uid int) {
	p.do(os.Symlink(target, p.path(name)))
	p.do(os.Lchown(p.path(name), uid, uid))
}

// TestRule32TrustPaths: a file that decides whom this machine trusts, or who it is, is read only where nobody else than
// root and the daemon could put another in its place, by whatever way the path leads there.
func TestRule32TrustPaths(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make what belongs to others")
	}
	const other = 4711
	sticky := 0o777 | fs.ModeSticky
	ca, err := testca.NewCA(testca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(testca.Leaf{Hosts: []string{"a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	crl, err := ca.CRL(nil, testca.CRLOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := Files{Credentials: "cert.pem", Key: "key.pem", CAs: []CAFile{{File: "ca.pem"}}, CRLs: []CRLFile{{File: "crl"}}}
	kinds := []struct {
		name string
		data []byte
		read func(path string, good Files) error
	}{
		{"--ca", ca.PEM(), func(path string, f Files) error { f.CAs = []CAFile{{File: path}}; return loads(&f) }},
		{"--crl", crl, func(path string, f Files) error { f.CRLs = []CRLFile{{File: path}}; return loads(&f) }},
		{"--credentials", issued.CertPEM, func(path string, f Files) error { f.Credentials = path; return loads(&f) }},
		{"--key", issued.KeyPEM, func(path string, f Files) error { f.Key = path; return loads(&f) }},
		{"--config", []byte("log-level = debug\n"), func(path string, _ Files) error {
			_, err := ReadConfigFile(path, 1<<20)
			return err
		}},
	}
	for _, tt := range []struct {
		name string
		make func(p *place, data []byte)
		path string
		want string // in the error; "" for none
	}{
		{"plain", func(p *place, data []byte) { p.file("f", 0o600, 0, data) }, "f", ""},
		{"directory of another", func(p *place, data []byte) {
			p.mkdir("d", 0o755, other)
			p.file("d/f", 0o600, 0, data)
		}, "d/f", "uid 4711, who could replace"},
		{"directory below one of another", func(p *place, data []byte) {
			p.mkdir("d", 0o755, other)
			p.mkdir("d/e", 0o755, 0)
			p.file("d/e/f", 0o600, 0, data)
		}, "d/e/f", "uid 4711, who could replace"},
		{"directory of a group", func(p *place, data []byte) {
			p.mkdir("d", 0o775, 0)
			p.file("d/f", 0o600, 0, data)
		}, "d/f", "chmod go-w"},
		{"directory of everybody", func(p *place, data []byte) {
			p.mkdir("d", 0o777, 0)
			p.file("d/f", 0o600, 0, data)
		}, "d/f", "chmod go-w"},
		// The directory's owner points the name at any file of root's.
		{"symlink in a directory of another", func(p *place, data []byte) {
			p.mkdir("d", 0o755, other)
			p.file("f", 0o600, 0, data)
			p.link("../f", "d/f", 0)
		}, "d/f", "uid 4711, who could replace"},
		{"symlink into a directory of another", func(p *place, data []byte) {
			p.mkdir("d", 0o755, other)
			p.file("d/f", 0o600, 0, data)
			p.link("d/f", "f", 0)
		}, "f", "uid 4711, who could replace"},
		{"symlink of root's", func(p *place, data []byte) {
			p.mkdir("d", 0o755, 0)
			p.file("d/f", 0o600, 0, data)
			p.link("d/f", "f", 0)
		}, "f", ""},
		{"symlink of another in a sticky directory", func(p *place, data []byte) {
			p.mkdir("d", sticky, 0)
			p.file("f", 0o600, 0, data)
			p.link("../f", "d/f", other)
		}, "d/f", "the symlink"},
		{"linked directory of another in a sticky directory", func(p *place, data []byte) {
			p.mkdir("d", sticky, 0)
			p.mkdir("e", 0o755, 0)
			p.file("e/f", 0o600, 0, data)
			p.link("../e", "d/e", other)
		}, "d/e/f", "the symlink"},
		{"file of another in a sticky directory", func(p *place, data []byte) {
			p.mkdir("d", sticky, 0)
			p.file("d/f", 0o600, other, data)
		}, "d/f", "uid 4711"},
		{"file of root's in a sticky directory", func(p *place, data []byte) {
			p.mkdir("d", sticky, 0)
			p.file("d/f", 0o600, 0, data)
		}, "d/f", ""},
		{"sticky directory of another", func(p *place, data []byte) {
			p.mkdir("d", sticky, other)
			p.file("d/f", 0o600, 0, data)
		}, "d/f", "uid 4711, who could replace"},
		{"a secret of Kubernetes", func(p *place, data []byte) {
			p.mkdir("d", sticky, 0)
			p.mkdir("d/..2026", 0o755, 0)
			p.file("d/..2026/f", 0o600, 0, data)
			p.link("..2026", "d/..data", 0)
			p.link("..data/f", "d/f", 0)
		}, "d/f", ""},
		{"a credential of systemd", func(p *place, data []byte) {
			p.mkdir("d", 0o500, 0)
			p.file("d/f", 0o400, 0, data)
		}, "d/f", ""},
		{"up behind a symlink", func(p *place, data []byte) { // where the kernel goes, not where the text does
			p.mkdir("d", 0o755, 0)
			p.mkdir("d/e", 0o755, 0)
			p.mkdir("x", 0o755, 0)
			p.file("d/f", 0o600, 0, data)
			p.link("../d/e", "x/l", 0)
		}, "x/l/../f", ""},
		{"a loop", func(p *place, _ []byte) { p.link("f", "f", 0) }, "f", "symlinks"},
		{"nothing", func(*place, []byte) {}, "f", "make the file"},
		{"a directory", func(p *place, _ []byte) { p.mkdir("f", 0o755, 0) }, "f", "not a plain file"},
	} {
		for _, kind := range kinds {
			if tt.name == "a directory" && kind.name == "--crl" {
				continue // rule 56
			}
			t.Run(tt.name+" "+kind.name, func(t *testing.T) {
				p := &place{dir: testprog.Dir(t)}
				for name, data := range map[string][]byte{"cert.pem": issued.CertPEM, "key.pem": issued.KeyPEM,
					"ca.pem": ca.PEM(), "crl": crl} {
					p.file(name, 0o600, 0, data)
				}
				tt.make(p, kind.data)
				if p.err != nil {
					t.Fatal(p.err)
				}
				t.Chdir(p.dir)
				for _, path := range []string{p.dir + "/" + tt.path, tt.path} { // not joined, which would take out ".."
					err := kind.read(path, good)
					if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
						t.Errorf("%s: %v, want %q", path, err, tt.want)
					}
				}
			})
		}
	}
	// The config file itself, which names all others.
	p := &place{dir: testprog.Dir(t)}
	p.file("world", 0o646, 0, nil)
	p.file("group", 0o664, 0, nil)
	p.file("other", 0o644, other, nil)
	if p.err != nil {
		t.Fatal(p.err)
	}
	for name, want := range map[string]string{"world": "chmod go-w", "group": "chmod go-w", "other": "uid 4711"} {
		if _, err := ReadConfigFile(p.path(name), 1<<20); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--config %s: %v, want %q", name, err, want)
		}
	}
}

// loads reports why check, which loads as serve does, would refuse the files.
func loads(f *Files) error {
	accepted, err := Check(io.Discard, f)
	if err == nil && !accepted {
		err = errors.New("faults")
	}
	return err
}
