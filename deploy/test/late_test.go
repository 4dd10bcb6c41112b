//go:build deploy

package deploytest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// restart has a machine lose its power, and boots it with what is on its disk.
func (m *machine) restart(t *testing.T) {
	t.Helper()
	must(t, "docker", "restart", "-t", "1", m.id)
	waitFor(t, m.name+" to boot again", func() (bool, string) {
		out, _ := command("docker", "exec", m.id, "systemctl", "is-system-running")
		return strings.TrimSpace(out) == "running", out
	})
}

// TestSystemdLateCertificate: a machine that boots without a certificate serves once it has one, however it is written, without
// anybody's help; what was stopped stays so; and the hook of whatever renews works all the same.
func TestSystemdLateCertificate(t *testing.T) {
	pki := newPKI(t)
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), network(t), "alpha", "deb")
	tab := &table{title: "A certificate that comes late"}
	defer tab.print()
	const file = "/etc/shared-altsd/machine.pem"
	m.install(t, "dist")
	m.put(t, "/etc/shared-altsd/ca.pem", pki.ca.PEM(), "0644")
	issued := pki.issue(pki.ca, "alpha.test")
	serial := fmt.Sprintf("%x", issued.Cert.SerialNumber)
	half := len(issued.CertPEM) / 2
	for name, part := range map[string][]byte{"key": issued.KeyPEM, "half": issued.CertPEM[:half], "rest": issued.CertPEM[half:],
		"whole": issued.PEM(), "joined": append(slices.Clone(issued.KeyPEM), issued.CertPEM...), "ca": pki.ca.PEM()} {
		m.put(t, "/root/"+name, part, "0600")
	}
	without := func(t *testing.T) {
		t.Helper()
		for unit, want := range map[string]string{"shared-altsd.service": "inactive", "shared-altsd.socket": "inactive",
			"shared-altsd-renew.path": "active"} {
			if state := m.property(t, unit, "ActiveState"); state != want {
				t.Errorf("%s without a certificate: %s", unit, state)
			}
		}
		// Applications are told so, rather than left to wait.
		if out, err := m.try("timeout 5 shared-altsd whoami"); err == nil || !strings.Contains(out, "/run/shared-altsd/socket") {
			t.Errorf("an application without a certificate: %v %s", err, out)
		}
	}
	serves := func(t *testing.T, script string) string {
		t.Helper()
		// By the machine's own clock, without docker's delays.
		written, err := strconv.ParseFloat(strings.Fields(m.sh(t, script+"\ncat /proc/uptime"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		m.waitSerial(t, serial)
		began, err := strconv.ParseFloat(m.property(t, "shared-altsd.service", "ActiveEnterTimestampMonotonic"), 64)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("serves %.1f s after the last piece", began/1e6-written)
	}
	const place = "cd /etc/shared-altsd; umask 077; "
	for _, tt := range []struct{ name, script string }{
		{"the first time, just after the installation", place + "cp /root/whole machine.pem.new; mv machine.pem.new machine.pem"},
		{"by rename", place + "cp /root/whole machine.pem.new; mv machine.pem.new machine.pem"},
		{"in place", place + "cat /root/whole >machine.pem"},
		{"in place, key first, half a PEM, the rest", place + "cat /root/key >machine.pem; sleep 2; cat /root/half >>machine.pem; sleep 2; cat /root/rest >>machine.pem"},
		{"in place, quickly", place + "cat /root/key >machine.pem; cat /root/half >>machine.pem; cat /root/rest >>machine.pem"},
		{"the key by rename, then all", place + "cp /root/key k; mv k machine.pem; sleep 1; cp /root/whole w; mv w machine.pem"},
		{"empty first", place + ": >machine.pem; sleep 1; cat /root/whole >machine.pem"},
		{"the CA last", place + "mv ca.pem /root/ca; cat /root/whole >machine.pem; sleep 1; install -m 644 /root/ca ca.pem"},
	} {
		tab.row(t, tt.name, func(t *testing.T) string {
			if !strings.HasPrefix(tt.name, "the first") {
				m.sh(t, "rm "+file)
				m.restart(t)
			}
			without(t)
			time.Sleep(2 * time.Second) // a boot that is long over
			return serves(t, tt.script)
		})
	}
	tab.row(t, "stopped by an administrator, and renewed", func(t *testing.T) string {
		m.sh(t, "systemctl stop shared-altsd.service shared-altsd.socket; cp /root/whole "+file+".new; mv "+file+".new "+file)
		// The unit that watches has done its work.
		waitFor(t, "the renewal", func() (bool, string) {
			out := m.sh(t, "systemctl show -p ExecMainExitTimestampMonotonic -p ActiveState shared-altsd-renew.service")
			return strings.Contains(out, "ActiveState=inactive"), out
		})
		time.Sleep(time.Second)
		if state := m.property(t, "shared-altsd.service", "ActiveState"); state != "inactive" {
			t.Errorf("the daemon is %s", state)
		}
		// What hooks run, each on a daemon that is stopped: first that of docs/fleet.md.
		hook := testdoc.Blocks(t, "docs/fleet.md", "TestSystemdLateCertificate")[0]
		m.put(t, "/root/hook", []byte(hook[strings.Index(hook, "#!"):]), "0755")
		m.sh(t, "mkdir -p /root/live; cp /root/key /root/live/privkey.pem; cat /root/half /root/rest >/root/live/fullchain.pem; rm "+file+
			"; RENEWED_LINEAGE=/root/live /root/hook; cmp "+file+" /root/joined")
		m.sh(t, "systemctl try-reload-or-restart shared-altsd")
		if state := m.property(t, "shared-altsd.service", "ActiveState"); state != "inactive" {
			t.Errorf("the daemon is %s by try-reload-or-restart", state)
		}
		m.sh(t, "systemctl reload-or-restart shared-altsd")
		m.waitSerial(t, serial)
		return "stays stopped; reload-or-restart starts it, try-reload-or-restart does nothing"
	})
	tab.row(t, "hooks without a certificate", func(t *testing.T) string {
		m.sh(t, "rm "+file)
		m.restart(t)
		m.sh(t, "systemctl reload-or-restart shared-altsd; systemctl try-reload-or-restart shared-altsd")
		return "succeed, and wait for one"
	})
}
