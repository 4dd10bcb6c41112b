//go:build deploy

package deploytest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// TestSystemdRecipes does on one machine what the documents print for administrators, beside what all do.
func TestSystemdRecipes(t *testing.T) {
	pki := newPKI(t)
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), network(t), "alpha", "deb")
	m.install(t, "dist")
	m.put(t, "/root/ca.pem", pki.ca.PEM(), "0600")
	m.put(t, "/root/machine.pem", pki.issue(pki.ca, "alpha.test").PEM(), "0600")
	m.copyIn(t, "dist/image/app")
	m.sh(t, fmt.Sprintf(`install -m 755 /root/app /usr/local/bin/app; useradd -u %d -M -s /bin/sh alice; useradd -M greeter`, aliceUID))
	m.sh(t, "cd /root\n"+readRecipe(t, "docs/install.md", "Packages").step(t, "after the installation"))
	for line := range strings.Lines(testdoc.Blocks(t, "README.md", t.Name())[0]) {
		m.sh(t, line)
	}
	tab := &table{title: "What the documents print, on a machine with systemd"}
	defer tab.print()
	tab.row(t, "a socket for a container", m.secondSocket)
	tab.row(t, "a stock program under exec", m.stockProgram)
	tab.row(t, "key and certificate apart", func(t *testing.T) string { return m.keyApart(t, pki) })
}

// as runs a command as an account.
func as(account, command string) string {
	return "setpriv --reuid=" + account + " --regid=" + account + " --clear-groups " + command
}

func (m *machine) secondSocket(t *testing.T) string {
	step := readRecipe(t, "docs/install.md", "Sockets for containers").whole(t).step(t, "an account and a socket")
	pid := m.property(t, "shared-altsd.service", "MainPID")
	m.sh(t, step)
	if m.property(t, "shared-altsd.service", "MainPID") == pid {
		t.Error("the daemon was not restarted")
	}
	// What the document says cannot be done.
	m.sh(t, "systemctl stop shared-altsd-app1.socket; systemctl restart shared-altsd.service; systemctl stop shared-altsd-app1.socket")
	if out, err := m.try("systemctl enable --now shared-altsd-app1.socket"); err == nil {
		t.Errorf("enable --now works by now: %s", out)
	}
	m.sh(t, "systemctl restart shared-altsd.service")

	const socket = "/run/shared-altsd-app1/socket"
	whoami := "env SHARED_ALTS_SOCKET=" + socket + " shared-altsd whoami"
	for range 2 {
		if out := m.sh(t, as("app1", whoami)); !strings.HasPrefix(out, "app1@alpha.test\n") {
			t.Error(out)
		}
		m.sh(t, "systemctl restart shared-altsd.service")
	}
	for account, uid := range map[string]string{"alice": fmt.Sprint(aliceUID), "root": "0"} {
		out, err := m.try(as(account, whoami))
		if err == nil || !strings.Contains(out, "uid "+uid+" may not use this socket") || !strings.Contains(out, "--user") {
			t.Errorf("%s at app1's socket: %v %s", account, err, out)
		}
	}
	if out := m.sh(t, as("alice", "shared-altsd whoami")); !strings.HasPrefix(out, "alice@alpha.test\n") {
		t.Error(out)
	}
	return "made while the daemon runs; app1 alone is served there"
}

// stockProgram runs grpc-go's own credentials by the two units of docs/clients/exec.md.
func (m *machine) stockProgram(t *testing.T) string {
	r := readRecipe(t, "docs/clients/exec.md", "systemd").whole(t)
	const unit, command = "/etc/systemd/system/greeter.service", "/usr/bin/python3 /srv/greeter_server.py [::]:50051"
	const app = "/usr/local/bin/app serve --stock --address [::]:50051"
	mounts := r.step(t, unit+", with the mounts", command, app)
	if _, err := m.try("test -d /sys/class/dmi"); err != nil {
		mounts = strings.Replace(mounts, "BindReadOnlyPaths=", "TemporaryFileSystem=/sys/class\nBindReadOnlyPaths=", 1)
	}
	m.sh(t, r.step(t, "the files to mount"))
	for _, text := range []string{r.step(t, unit, command, app), mounts} {
		m.put(t, unit, []byte(text), "0644")
		m.sh(t, "systemctl daemon-reload; systemctl restart greeter.service")
		waitFor(t, "greeter", func() (bool, string) {
			out, _ := m.try(as("alice", "app call --address alpha.test:50051 --target greeter@alpha.test"))
			if !strings.HasPrefix(out, "{") {
				return false, out
			}
			got := decode[report](t, strings.SplitN(out, "\n", 2)[0])
			log, _ := m.try("journalctl -q --no-pager -n 5 -u greeter.service")
			return got.Failed == 0 && got.Peer == "greeter@alpha.test" && got.SeenAs == "alice@alpha.test", out + log
		})
		m.sh(t, "systemctl stop greeter.service")
	}
	return "grpc-go's own credentials, by exec and by exec --prepared with systemd's mounts"
}

// keyApart renews with the key before the certificate and after it.
func (m *machine) keyApart(t *testing.T, pki *pki) string {
	put := func(c *testca.Issued, part string) {
		t.Helper()
		m.put(t, "/etc/shared-altsd/machine."+part, map[string][]byte{"key": c.KeyPEM, "pem": c.CertPEM}[part], "0600")
	}
	first := pki.issue(pki.ca, "alpha.test")
	m.sh(t, "systemctl stop shared-altsd-renew.path")
	put(first, "key")
	put(first, "pem")
	m.sh(t, readRecipe(t, "docs/operate.md", "Key and certificate apart").whole(t).step(t, "key and certificate apart"))
	m.sh(t, "systemctl start shared-altsd-renew.path")
	m.waitSerial(t, fmt.Sprintf("%x", first.Cert.SerialNumber))
	for _, order := range [][]string{{"key", "pem"}, {"pem", "key"}} {
		c, before := pki.issue(pki.ca, "alpha.test"), m.status(t)
		put(c, order[0])
		waitFor(t, "the refusal", func() (bool, string) {
			s := m.status(t)
			return s.Reloads.Failed > before.Reloads.Failed, fmt.Sprintf("%+v", s)
		})
		put(c, order[1])
		m.waitSerial(t, fmt.Sprintf("%x", c.Cert.SerialNumber))
	}
	return "renewed with the key first and with the certificate first"
}
