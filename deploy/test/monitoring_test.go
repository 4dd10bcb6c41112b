//go:build deploy

package deploytest

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// TestSystemdMonitoring does on a machine what docs/monitoring.md says of the two ways to its metrics, and runs each command of
// docs/runbooks.md there: on a machine that is well each of them has to work.
func TestSystemdMonitoring(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	m, p := boot(t, image, network(t), "alpha", "deb"), newPKI(t)
	tab := &table{title: "Metrics by a port and by a file, and the commands of the runbooks"}
	defer tab.print()
	blocks := testdoc.Blocks(t, "docs/monitoring.md", "TestSystemdMonitoring")
	if len(blocks) != 2 {
		t.Fatalf("docs/monitoring.md has %d blocks for this test", len(blocks))
	}
	const timer, unit, file = "shared-altsd-textfile.timer", "shared-altsd-textfile.service", "/var/lib/prometheus/node-exporter/shared-altsd.prom"
	// As node_exporter reads it: not as root.
	read := func() string {
		out, _ := m.try("setpriv --reuid=65534 --regid=65534 --clear-groups cat " + file)
		return out
	}
	tab.row(t, "no certificate yet", func(t *testing.T) string {
		m.install(t, "dist")
		m.sh(t, "mkdir -p /var/lib/prometheus/node-exporter")
		m.sh(t, blocks[1])
		m.sh(t, "systemctl start "+unit)
		if out := m.property(t, unit, "ConditionResult"); out != "no" {
			t.Errorf("the condition: %s", out)
		}
		return "the timer waits and the service is left out"
	})
	tab.row(t, "by the port", func(t *testing.T) string {
		m.put(t, "/etc/shared-altsd/ca.pem", p.ca.PEM(), "0644")
		m.put(t, "/etc/shared-altsd/machine.pem", p.issue(p.ca, "alpha.test").PEM(), "0600")
		m.sh(t, "systemctl enable --now shared-altsd.service")
		m.sh(t, blocks[0])
		page := m.sh(t, `bash -c 'exec 3<>/dev/tcp/127.0.0.1/9464; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'`)
		n := len(regexp.MustCompile(`(?m)^[a-z_]+\{.*machine="alpha\.test"\} \S+\r?$`).FindAllString(page, -1))
		if n < 40 || n > 60 {
			t.Errorf("%d series:\n%s", n, page)
		}
		return fmt.Sprintf("%d series", n)
	})
	tab.row(t, "by the file", func(t *testing.T) string {
		waitFor(t, "the timer to have it written", func() (bool, string) {
			text := read()
			return strings.Contains(text, "\nshared_altsd_up{machine=\"alpha.test\"} 1\n"), text
		})
		if out := m.sh(t, "stat -c '%U %a' /run/shared-altsd-textfile/shared-altsd.prom; ls /run/shared-altsd-textfile"); out !=
			"shared-altsd-textfile 644\nshared-altsd.prom\n" {
			t.Errorf("the file: %s", out)
		}
		return "the timer wrote it, without a certificate at first; another account reads it by the link"
	})
	tab.row(t, "the unit's bounds", func(t *testing.T) string {
		const dropins = "/etc/systemd/system/" + unit + ".d"
		m.sh(t, "mkdir -p "+dropins)
		m.put(t, dropins+"/probe.conf", []byte("[Service]\nExecStartPost=/bin/sh -c 'for f in /etc/shared-altsd/machine.pem "+
			"/var/lib/shared-altsd/. /root/.; do if ls -l $f/ || cat $f; then exit 7; fi; done; if touch /var/lib/x /etc/x /run/x; "+
			"then exit 8; fi; touch /run/shared-altsd-textfile/x'\n"), "0644")
		m.sh(t, "systemctl daemon-reload; systemctl start "+unit)
		m.sh(t, "test -f /run/shared-altsd-textfile/x; rm /run/shared-altsd-textfile/x "+dropins+"/probe.conf; systemctl daemon-reload")
		return "no key, no daemon's files, nothing to write but its directory"
	})
	tab.row(t, "the daemon is down", func(t *testing.T) string {
		m.sh(t, "systemctl stop shared-altsd.socket shared-altsd.service; systemctl start "+unit)
		if text := read(); !strings.Contains(text, "\nshared_altsd_up{machine=\"alpha.test\"} 0\n") || strings.Contains(text, "build_info") {
			t.Errorf("of a daemon that is down:\n%s", text)
		}
		if out, _ := m.try("systemctl is-failed " + unit); strings.TrimSpace(out) == "failed" {
			t.Error("the unit failed")
		}
		m.sh(t, "systemctl start shared-altsd.service; systemctl start "+unit)
		if text := read(); !strings.Contains(text, "\nshared_altsd_up{machine=\"alpha.test\"} 1\n") {
			t.Errorf("of a daemon that is up again:\n%s", text)
		}
		return "the file says so, under the machine's name; the unit does not fail"
	})
	tab.row(t, "the runbooks", func(t *testing.T) string {
		n := 0
		for _, block := range testdoc.Blocks(t, "docs/runbooks.md", "TestSystemdMonitoring") {
			for command := range strings.Lines(block) {
				command = strings.TrimSpace(command)
				out, err := m.try(command)
				status := 0
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					status = exit.ExitCode()
				} else if err != nil {
					t.Fatal(err)
				}
				n++
				switch ours := strings.HasPrefix(command, "shared-altsd ") || strings.HasPrefix(command, "systemctl re"); {
				case status == 0:
				case !ours && (status == 1 || status == 3): // nothing found, or a unit that is not needed here
				case status == 4 && strings.Contains(command, "signer"): // it is another package's
				default:
					t.Errorf("%s: exit status %d\n%s", command, status, out)
				}
			}
		}
		return fmt.Sprintf("%d commands work", n)
	})
	tab.row(t, "removed", func(t *testing.T) string {
		m.sh(t, "DEBIAN_FRONTEND=noninteractive dpkg -r shared-altsd")
		if out, _ := m.try("systemctl is-active " + timer); strings.TrimSpace(out) == "active" {
			t.Error("the timer goes on")
		}
		return "the timer has stopped"
	})
}
