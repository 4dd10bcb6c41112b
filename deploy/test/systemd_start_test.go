//go:build deploy

package deploytest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSystemdStart is rule 35: under an open socket a daemon that cannot start costs systemd a start a second, whoever
// connects and how often, and it serves again by itself when it can.
func TestSystemdStart(t *testing.T) {
	pki := newPKI(t)
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), network(t), "alpha", "deb")
	m.install(t, "dist")
	m.put(t, "/etc/shared-altsd/ca.pem", pki.ca.PEM(), "0644")
	certificate := func() { m.put(t, "/etc/shared-altsd/machine.pem", pki.issue(pki.ca, "alpha.test").PEM(), "0600") }
	m.sh(t, fmt.Sprintf("useradd -u %d -M -s /bin/sh alice", aliceUID))

	// A machine that was never given a certificate: skipped, and not tried again.
	m.sh(t, "systemctl enable shared-altsd.service; systemctl start shared-altsd.service")
	time.Sleep(3 * time.Second)
	for _, unit := range []string{"shared-altsd.service", "shared-altsd.socket"} {
		if state := m.property(t, unit, "ActiveState") + " " + m.property(t, unit, "ConditionResult"); state != "inactive no" {
			t.Errorf("%s without a certificate: %s", unit, state)
		}
	}
	const asAlice = "setpriv --reuid=alice --regid=alice --clear-groups "
	serves := func() {
		t.Helper()
		waitFor(t, "the daemon", func() (bool, string) {
			out, err := m.try(asAlice + "timeout 5 shared-altsd status")
			return err == nil, out
		})
	}
	certificate()
	m.sh(t, "systemctl start shared-altsd.service")
	serves()
	// What it remembers over restarts (rule 33).
	const memory = "/var/lib/shared-altsd/revocation-lists.json"
	if got := m.sh(t, "stat -c '%U %a' "+memory); got != "shared-altsd 600\n" {
		t.Errorf("%s: %s", memory, got)
	}

	// busy has an account connect for 5 seconds, and reports what systemd did meanwhile.
	busy := func() (lines int, ticks int) {
		t.Helper()
		processor := func() int {
			fields := strings.Fields(m.sh(t, "cat /proc/1/stat"))
			user, err := strconv.Atoi(fields[13])
			system, err2 := strconv.Atoi(fields[14])
			if err != nil || err2 != nil {
				t.Fatal(fields)
			}
			return user + system
		}
		count := func() int {
			n, err := strconv.Atoi(strings.TrimSpace(m.sh(t, "journalctl --no-pager -q | wc -l")))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		lines, ticks = -count(), -processor()
		m.try(asAlice + "timeout 5 sh -c 'while :; do timeout 1 shared-altsd status; done'")
		return lines + count(), ticks + processor()
	}
	m.sh(t, "systemctl enable --now shared-altsd-renew.path")
	// Also where the daemon runs on, and only its renewals fail.
	for _, how := range []string{"stop", "restart", "reload"} {
		m.try("rm /etc/shared-altsd/machine.pem; systemctl " + how + " shared-altsd.service")
		if state := m.property(t, "shared-altsd.socket", "ActiveState"); state != "active" {
			t.Fatalf("the socket is %s", state)
		}
		lines, ticks := busy()
		t.Logf("no certificate, %s: %d lines in the journal, %d ms of systemd's processor time in 5 s", how, lines, ticks*10)
		if lines > 200 || ticks > 100 {
			t.Errorf("%s: systemd is kept busy", how)
		}
		if state := m.property(t, "shared-altsd.socket", "ActiveState"); state != "active" {
			t.Errorf("%s: the socket is %s", how, state)
		}
		certificate()
		serves()
	}
	m.sh(t, "systemctl disable --now shared-altsd-renew.path")

	// A loop that no condition foresees, here a socket that was moved, ends by the limit, and a start mends it.
	m.sh(t, `systemctl stop shared-altsd.service shared-altsd.socket
mkdir -p /run/systemd/system/shared-altsd.socket.d
printf '[Socket]\nListenStream=\nListenStream=/run/shared-altsd/moved\n' >/run/systemd/system/shared-altsd.socket.d/moved.conf
systemctl daemon-reload; systemctl start shared-altsd.service
rm /etc/shared-altsd/machine.pem; systemctl stop shared-altsd.service`)
	m.try(asAlice + "timeout 2 shared-altsd status --socket /run/shared-altsd/moved")
	waitFor(t, "the limit", func() (bool, string) {
		result := m.property(t, "shared-altsd.socket", "Result")
		return result == "trigger-limit-hit", result
	})
	m.sh(t, "rm -r /run/systemd/system/shared-altsd.socket.d; systemctl daemon-reload")
	certificate()
	m.sh(t, "systemctl start shared-altsd.service")
	serves()
}
