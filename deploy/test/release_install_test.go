//go:build deploy

package deploytest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRule68Packages: machines that know the key alone install from a release's trees, on the oldest systemd that the package says it
// takes too, start and talk with each other; a tree of which a byte was changed, that is not signed, or by another key, or that was withheld
// from updates for longer than it says, installs nothing, and neither does a package on an older systemd.
func TestRule68Packages(t *testing.T) {
	top := t.TempDir()
	r := release{dir: filepath.Join(top, "release")}
	page := readRecipe(t, "docs/install.md", "From a repository").whole(t)
	home := shortDir(t)
	out, err := command("sh", "-ec", page.step(t, "the key", "$HOME", home, "gpg --quick", "gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick"))
	if err != nil {
		t.Fatal(err)
	}
	r.home, r.key = home+"/shared-altsd-key", regexp.MustCompile(`[0-9A-F]{40}`).FindString(out)
	stopAgent(t, r.home)
	if out, err := command("sh", "-ec", "export GNUPGHOME="+r.home+"\n"+page.step(t, "the release", "RELEASE_KEY=FINGERPRINT",
		"RELEASE_KEY="+r.key+" RELEASE_DIR="+r.dir+" RELEASE_ARCHS="+goarch(t))); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	otherHome, otherKey := keyring(t)
	other := release{filepath.Join(top, "other"), otherHome, otherKey}
	// The same packages, which only the other key has signed; and what was good until long ago.
	packages := filepath.Join(top, "packages")
	shell(t, fmt.Sprintf("mkdir %[2]s; cp %[1]s/apt/pool/main/s/shared-altsd/*.deb %[1]s/dnf/packages/*.rpm %[2]s", r.dir, packages))
	withheld := filepath.Join(top, "withheld")
	for _, err := range []error{
		second(other.make(t, other.dir, "RELEASE_ARCHS=", "RELEASE_PACKAGES="+packages)),
		second(r.make(t, withheld, "RELEASE_ARCHS=", "RELEASE_ADD="+r.dir, "RELEASE_TIME=1790000000", "RELEASE_VALID_DAYS=3")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	net := network(t)
	tree := serveRelease(t, r.dir, net)
	pki := newPKI(t)

	results := &table{title: "release"}
	defer results.print()
	var installed []*machine
	for _, d := range []struct{ name, image, kind string }{{"oldest", "oldest", "deb"}, {"newest", "podman", "deb"}, {"el", "systemd", "rpm"}} {
		m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh", d.image)), net, d.name, d.kind)
		c := &client{machine: m, tree: tree, release: r, other: other, withheld: withheld, both: shortDir(t), page: page, results: results}
		if d.kind == "deb" {
			c.apt(t)
		} else {
			c.dnf(t)
		}
		results.row(t, d.name+" starts", func(t *testing.T) string { return c.starts(t, pki) })
		installed = append(installed, m)
	}
	results.row(t, "they talk", func(t *testing.T) string {
		for _, to := range installed {
			to.sh(t, "useradd -M -u 20001 alice; setsid setpriv --reuid=20001 --regid=20001 --clear-groups shared-altsd pong :7400 >/dev/null 2>&1 &")
		}
		for i, from := range installed {
			to := installed[(i+1)%len(installed)]
			waitFor(t, "a handshake", func() (bool, string) {
				out, err := from.try("setpriv --reuid=20001 --regid=20001 --clear-groups shared-altsd ping " + to.name + ".test:7400")
				return err == nil && strings.Contains(out, "alice@"+to.name+".test"), out
			})
		}
		return "each with the next"
	})
	results.row(t, "dpkg on systemd 239", func(t *testing.T) string {
		deb := shell(t, fmt.Sprintf("ls %s/apt/pool/main/s/shared-altsd/shared-altsd_*.deb", r.dir))
		out, err := command("docker", "run", "--rm", "--network", "none", "-v", filepath.Dir(strings.TrimSpace(deb))+":/pool:ro",
			strings.TrimSpace(must(t, "deploy/test/rootfs.sh", "oldest")), "sh", "-c",
			`sed -i '/^Package: systemd$/,/^$/s/^Version: .*/Version: 239-58/' /var/lib/dpkg/status
dpkg -i /pool/shared-altsd_*.deb 2>&1`)
		if err == nil || !strings.Contains(out, "shared-altsd depends on systemd (>= 247)") {
			t.Fatalf("%v\n%s", err, out)
		}
		return "refused: depends on systemd (>= 247)"
	})
}

func second(_ string, err error) error { return err }

// A client is a machine that installs from the tree.
type client struct {
	*machine
	tree     *repository
	release  release
	other    release
	withheld string
	both     string // a GnuPG home
	page     *recipe
	results  *table
}

// A fraud is a tree that has to install nothing.
type fraud struct {
	name, dir string
	tamper    func(string, []byte) []byte
	want      string // what the machine says, one of several by |
}

func (c *client) refuses(t *testing.T, frauds []fraud, install string) {
	for _, f := range frauds {
		if f.dir == "" {
			f.dir = c.release.dir
		}
		c.results.row(t, c.name+": "+f.name, func(t *testing.T) string {
			c.tree.set(f.dir, f.tamper)
			defer c.tree.set(c.release.dir, nil)
			out, err := c.try(install)
			if err == nil {
				t.Errorf("it went well:\n%s", out)
			}
			if _, err := c.try("test ! -e /usr/bin/shared-altsd"); err != nil {
				t.Error("it is installed")
			}
			for _, want := range strings.Split(f.want, "|") {
				if strings.Contains(out, want) {
					return "refused: " + want
				}
			}
			t.Errorf("want %q in\n%s", f.want, out)
			return ""
		})
	}
}

// copyKey brings the key, and runs a step of the page by which the machine knows the repository.
func (c *client) copyKey(t *testing.T, step string) {
	key, err := os.ReadFile(filepath.Join(c.release.dir, "shared-altsd.asc"))
	if err != nil {
		t.Fatal(err)
	}
	c.put(t, "/root/shared-altsd.asc", key, "0600")
	c.sh(t, "cd /root\n"+c.page.step(t, step, "https://repo.example.com/shared-altsd", c.tree.url))
}

func (c *client) apt(t *testing.T) {
	// Debian's own mirror has no part in it.
	c.sh(t, "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
	c.copyKey(t, "Debian and Ubuntu: the repository")
	install := c.page.step(t, "Debian and Ubuntu: the package", "install", "install -y --no-install-recommends")
	const clean = "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb; "
	c.refuses(t, []fraud{
		{name: "a byte of InRelease", tamper: those(`/InRelease$`, func(b []byte) []byte { return bytes.Replace(b, []byte(" main/"), []byte(" mein/"), 1) }),
			want: "BADSIG|is not signed"},
		{name: "a byte of its signature", tamper: those(`/InRelease$`, func(b []byte) []byte {
			text, signature, _ := bytes.Cut(b, []byte("-----BEGIN PGP SIGNATURE-----\n\n"))
			swapped := strings.NewReplacer("A", "B", "B", "A").Replace(string(signature[:300]))
			return fmt.Appendf(bytes.Clone(text), "-----BEGIN PGP SIGNATURE-----\n\n%s%s", swapped, signature[300:])
		}),
			want: "BADSIG|NODATA|is not signed"},
		{name: "a byte of its packages' names", tamper: those(`/Packages|/by-hash/`, changed), want: "Hash Sum mismatch|unexpected size"},
		{name: "a byte of a package", tamper: those(`\.deb$`, changed), want: "Hash Sum mismatch"},
		{name: "a longer package", tamper: those(`\.deb$`, func(b []byte) []byte { return append(b, 0) }), want: "unexpected size|Hash Sum mismatch"},
		{name: "no InRelease, a byte of Release", tamper: func(path string, b []byte) []byte {
			return those(`/Release$`, changed)(path, those(`/InRelease$`, missing)(path, b))
		}, want: "BADSIG|is not signed"},
		{name: "not signed", tamper: those(`/InRelease$|\.gpg$`, missing), want: "is not signed"},
		{name: "another's key", dir: c.other.dir, want: "NO_PUBKEY|Missing key|no public key"},
		{name: "withheld from updates", dir: c.withheld, want: "is expired|Release file expired"},
	}, clean+install)
	// What was good when its list came, and is changed when it is installed.
	c.sh(t, "apt-get update")
	c.refuses(t, []fraud{{name: "a byte of a package, later", tamper: those(`\.deb$`, changed), want: "Hash Sum mismatch"}},
		strings.Replace(install, "apt-get update", "", 1))
	c.results.row(t, c.name+": installs", func(t *testing.T) string {
		c.sh(t, clean+install)
		// The signer is linked to a C library, which the oldest does not have.
		want := map[string]string{"oldest": "Depends: libc6 (>= ", "newest": "Inst shared-altsd-signer"}[c.name]
		if out, _ := c.try("dpkg -V shared-altsd; apt-get install -y -s --no-install-recommends shared-altsd-signer"); !strings.Contains(out, want) {
			t.Errorf("the signer: want %q in %s", want, out)
		}
		return strings.TrimSpace(c.sh(t, "shared-altsd --version"))
	})
	c.results.row(t, c.name+": another key beside the first", func(t *testing.T) string {
		both := must(t, "sh", "-ec", fmt.Sprintf("cat %s %s | gpg --homedir %s --batch --quiet --import; gpg --homedir %[3]s --batch --armor --export %s %s",
			c.release.dir+"/shared-altsd.asc", c.other.dir+"/shared-altsd.asc", c.both, c.release.key, c.other.key))
		c.put(t, "/etc/apt/keyrings/shared-altsd.asc", []byte(both), "0644")
		for _, dir := range []string{c.other.dir, c.release.dir} {
			c.tree.set(dir, nil)
			c.sh(t, "rm -rf /var/lib/apt/lists/*; apt-get update; apt-get install -y -s --reinstall shared-altsd")
		}
		return "both are believed"
	})
}

// provides is the package by which dnf knows what this root has of Debian.
const provides = `name: debian-root
arch: all
version: %s
maintainer: shared-altsd project <shared-altsd@users.noreply.github.com>
description: What this root has without an rpm
provides: ["systemd = %[1]s", "glibc = %s", "glibc-common = %[2]s", /bin/sh]
`

func (c *client) dnf(t *testing.T) {
	glibc := strings.TrimSpace(c.sh(t, "ldd --version | sed -n '1s/.* //p'"))
	systemd := strings.TrimSpace(c.sh(t, "systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'"))
	says := func(systemd string) {
		dir := t.TempDir()
		config := filepath.Join(dir, "root.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, provides, systemd, glibc), 0o644); err != nil {
			t.Fatal(err)
		}
		nfpm := strings.TrimSpace(shell(t, "sed -n 's/^NFPM := //p' ../deploy.mk"))
		must(t, "go", "run", nfpm, "package", "--config", config, "--packager", "rpm", "--target", filepath.Join(dir, "root.rpm"))
		must(t, "docker", "cp", filepath.Join(dir, "root.rpm"), c.id+":/root/root.rpm")
		c.sh(t, "rpm -U --force --force-debian /root/root.rpm")
	}
	c.sh(t, "mkdir -p /etc/yum.repos.d") // which dnf of EL brings
	c.copyKey(t, "EL and Fedora: the repository")
	install := c.page.step(t, "EL and Fedora: the package", "install", "install -y")
	const clean = "rm -rf /var/cache/dnf; "
	says("239")
	c.refuses(t, []fraud{{name: "dnf on systemd 239", want: "nothing provides systemd >= 247"}}, clean+install)
	says(systemd)
	c.refuses(t, []fraud{
		{name: "a byte of repomd.xml", tamper: those(`/repomd\.xml$`, changed), want: "GPG verification is enabled|Bad GPG signature"},
		{name: "a byte of the packages' names", tamper: those(`-primary\.xml\.gz$`, changed), want: "checksum doesn't match|Checksum"},
		{name: "a byte of a package", tamper: those(`\.rpm$`, changed), want: "checksum|Checksum"},
		{name: "not signed", tamper: those(`/repomd\.xml\.asc$`, missing), want: "GPG verification is enabled|404"},
		{name: "another's key", dir: c.other.dir, want: "GPG verification is enabled|Bad GPG signature"},
	}, clean+install)
	// Where only the packages' own signatures are asked about, these are enough.
	c.refuses(t, []fraud{{name: "a package by another's key", dir: c.other.dir, want: "not correct|Public key for|GPG check FAILED"}},
		clean+strings.TrimSpace(install)+" --setopt=shared-altsd.repo_gpgcheck=0")
	c.results.row(t, c.name+": installs", func(t *testing.T) string {
		c.sh(t, clean+install)
		if out, err := c.try("dnf -y install --downloadonly shared-altsd-signer"); err != nil {
			t.Errorf("the signer: %s", out)
		}
		return strings.Join(strings.Fields(c.sh(t, "rpm -q shared-altsd; rpm -V shared-altsd; shared-altsd --version")), " ")
	})
	c.results.row(t, c.name+": another key beside the first", func(t *testing.T) string {
		key, err := os.ReadFile(c.other.dir + "/shared-altsd.asc")
		if err != nil {
			t.Fatal(err)
		}
		c.put(t, "/etc/pki/rpm-gpg/RPM-GPG-KEY-new", key, "0644")
		c.sh(t, "sed -i 's,^gpgkey=.*,& file:///etc/pki/rpm-gpg/RPM-GPG-KEY-new,' /etc/yum.repos.d/shared-altsd.repo")
		for _, dir := range []string{c.other.dir, c.release.dir} {
			c.tree.set(dir, nil)
			c.sh(t, clean+"dnf -y reinstall shared-altsd")
		}
		return "both are believed"
	})
}

// strange is what the oldest systemd says of the units: it goes without PrivateIPC=, and its verify wants a path where its start does not.
var strange = regexp.MustCompile(`Unknown key name 'PrivateIPC' in section 'Service', ignoring|Command systemctl is not executable`)

// starts has systemd judge the units that were installed, and the daemon serve, also by a certificate that comes later.
func (c *client) starts(t *testing.T, pki *pki) string {
	out, err := c.try("cd /usr/lib/systemd/system; systemd-analyze verify --man=no $(ls shared-altsd* | grep -v @)")
	if err != nil && c.name != "oldest" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "shared-altsd") && (c.name != "oldest" || !strange.MatchString(line)) {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	certificate := func() string {
		cert := pki.issue(pki.ca, c.name+".test")
		c.put(t, "/etc/shared-altsd/machine.pem", cert.PEM(), "0600")
		return fmt.Sprintf("%x", cert.Cert.SerialNumber)
	}
	c.put(t, "/etc/shared-altsd/ca.pem", pki.ca.PEM(), "0644")
	serial := certificate()
	c.sh(t, "shared-altsd check; systemctl enable --now shared-altsd.service shared-altsd-renew.path")
	c.waitSerial(t, serial)
	c.waitSerial(t, certificate())
	return strings.TrimSpace(c.sh(t, "systemctl --version | head -n1"))
}
