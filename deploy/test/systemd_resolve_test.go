//go:build deploy

package deploytest

import (
	"strings"
	"testing"
	"time"
)

// TestSystemdResolve: the companion that asks DNS is off until it is enabled, says what is wrong while it cannot start, without its
// socket going away or systemd being busy with it, and runs as its own account when its resolver is named.
func TestSystemdResolve(t *testing.T) {
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), network(t), "alpha", "deb")
	m.install(t, "dist")
	const socket, service = "shared-altsd-resolve.socket", "shared-altsd-resolve.service"
	if state, _ := m.try("systemctl is-enabled " + socket); strings.TrimSpace(state) != "disabled" {
		t.Errorf("after the installation it is %s", state)
	}
	r := readRecipe(t, "docs/dns.md", "With the packages").whole(t)
	m.sh(t, r.step(t, "with the packages, once"))
	if got := m.sh(t, "stat -c '%U %G %a' /run/shared-altsd-resolve/socket"); got != "root shared-altsd 660\n" {
		t.Errorf("the socket: %s", got)
	}
	journal := func(want string) {
		t.Helper()
		waitFor(t, want, func() (bool, string) {
			out, _ := m.try("journalctl --no-pager -o cat -u " + service)
			return strings.Contains(out, want), out
		})
	}
	// What docker writes into a resolv.conf vouches for nobody.
	m.try("printf 'nameserver 127.0.0.11\\noptions trust-ad\\n' >/etc/resolv.conf")
	if out, err := m.try("systemctl start " + service); err == nil {
		t.Errorf("it starts with docker's resolver: %s", out)
	}
	journal("validates nothing and passes on what others say")
	time.Sleep(12 * time.Second)
	if n := m.property(t, service, "NRestarts"); n != "1" && n != "2" && n != "3" {
		t.Errorf("%s starts in 12 s", n)
	}
	if state := m.property(t, socket, "ActiveState"); state != "active" {
		t.Errorf("the socket is %s", state)
	}
	m.sh(t, "echo 'resolver = 127.0.0.1' >>/etc/shared-altsd/resolve.conf")
	waitFor(t, "the service", func() (bool, string) {
		state := m.property(t, service, "ActiveState")
		return state == "active", state
	})
	journal("nobody answers at 127.0.0.1:53: start the resolver") // it can read /proc/sys, and ask
	if out, err := m.try(r.step(t, "with the packages: what the daemon would hear")); err == nil || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("with no resolver the daemon would hear: %v: %s", err, out)
	}
	if got := m.sh(t, "stat -c %U /proc/$(systemctl show --value -p MainPID "+service+")"); got != "shared-altsd-resolve\n" {
		t.Errorf("it runs as %s", got)
	}
	m.sh(t, "dpkg -r shared-altsd")
	if out, err := m.try("systemctl is-active " + socket + " " + service); err == nil {
		t.Errorf("after the removal: %s", out)
	}
}
