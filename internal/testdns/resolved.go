package testdns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	program := "/lib/systemd/systemd-resolved"
	if _, err := os.Stat(program); err != nil {
		program = d.unpack(t, "systemd-resolved") + program
	}
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
SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info exec %[2]s`, d.dir, program)
	// It asks nobody while the machine has no network but loopback.
	d.run(t, "ip", "link", "add", "altsd0", "type", "veth", "peer", "name", "altsd1")
	d.run(t, "ip", "address", "add", "192.0.2.1/24", "dev", "altsd0")
	for _, link := range []string{"altsd0", "altsd1"} {
		d.run(t, "ip", "link", "set", link, "up")
	}
	d.resolved = d.launch(t, Resolved, "unshare", "-m", "sh", "-c", script)
}

// unpack returns where the files of a package of Debian's are.
func (d *DNS) unpack(t testing.TB, name string) (dir string) {
	t.Helper()
	dir = d.path(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	need(t, "apt-get", "dpkg")
	if _, err := run(dir, "apt-get", "-qq", "download", name); err != nil {
		if _, err = run(dir, "apt-get", "-qq", "update"); err == nil {
			_, err = run(dir, "apt-get", "-qq", "download", name)
		}
		if err != nil {
			t.Skipf("%s cannot be had: %v", name, err)
		}
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(found) != 1 {
		t.Fatalf("%d packages %s", len(found), name)
	}
	if _, err := run(dir, "dpkg", "-x", found[0], dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
