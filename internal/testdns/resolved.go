package testdns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
)

// Resolved is where StartResolved has systemd-resolved.
const Resolved = "127.0.0.53:53"

// StartResolved starts systemd-resolved beside the other servers, with DNSSEC= yes or no. It validates by itself: it asks the
// resolver that does not.
//
// It has a mount namespace of its own, in which its configuration, the trust anchor and its account are. Debian's package is
// unpacked and not installed: that would take over the machine's own /etc/resolv.conf.
func (d *DNS) StartResolved(t testing.TB, dnssec string) {
	t.Helper()
	need(t, "ip", "unshare")
	program, library := systemdResolved(t)
	etc := d.path("resolved-etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(etc, "resolved.conf"), "[Resolve]\nDNS="+strings.TrimSuffix(Careless, ":53")+"\nDomains=~.\nDNSSEC="+dnssec+
		"\nLLMNR=no\nMulticastDNS=no\nCache=no\n")
	anchor := d.zones[0].ds
	write(t, d.path("root.positive"), anchor)
	write(t, d.path("passwd"), "root:x:0:0::/:/bin/sh\nsystemd-resolve:x:980:980::/:/bin/sh\n")
	write(t, d.path("group"), "root:x:0:\nsystemd-resolve:x:980:\n")
	script := fmt.Sprintf(`set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/dnssec-trust-anchors.d /run/systemd/resolve
chown 980:980 /run/systemd/resolve
cp %[1]s/root.positive /run/dnssec-trust-anchors.d/
mount --bind %[1]s/resolved-etc /etc/systemd
mount --bind %[1]s/passwd /etc/passwd
mount --bind %[1]s/group /etc/group
SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info LD_LIBRARY_PATH=%[3]s exec %[2]s`, d.dir, program, library)
	// It asks nobody while the machine has no network but loopback.
	d.run(t, "ip", "link", "add", "altsd0", "type", "veth", "peer", "name", "altsd1")
	d.run(t, "ip", "address", "add", "192.0.2.1/24", "dev", "altsd0")
	for _, link := range []string{"altsd0", "altsd1"} {
		d.run(t, "ip", "link", "set", link, "up")
	}
	d.resolved = d.launch(t, Resolved, "unshare", "-m", "sh", "-c", script)
}

// systemdResolved returns the program, and where the library of the same release is if that is not installed.
func systemdResolved(t testing.TB) (program, library string) {
	t.Helper()
	dir := ""
	for {
		for _, at := range []string{"/lib/systemd/systemd-resolved", "/usr/lib/systemd/systemd-resolved"} {
			if _, err := os.Stat(dir + at); err == nil {
				return dir + at, library
			}
		}
		if dir != "" {
			t.Fatalf("no systemd-resolved in %s", dir)
		}
		var err error
		dir, err = testcache.Get("systemd-resolved", []string{"/etc/os-release"}, func(dir string) error {
			if err := testcache.Run(nil, dir, "apt-get", "-qq", "download", "systemd-resolved", "libsystemd-shared"); err != nil {
				return err
			}
			return testcache.Run(nil, dir, "sh", "-ec", "for p in *.deb; do dpkg -x $p .; done; rm *.deb")
		})
		if errors.Is(err, testcache.ErrMissing) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*/systemd")); len(found) > 0 {
			library = found[0]
		}
	}
}
