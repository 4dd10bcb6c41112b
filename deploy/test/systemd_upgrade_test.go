//go:build deploy

package deploytest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// A worker is a program at work: it makes channels from one machine to a server of the other, again and again.
type worker struct {
	name     string
	from, to *machine
	program  string // on the machine, up to the address
	port     int
	stock    bool // grpc-go's own ALTS
}

// work makes channels until stop is set, and gives what came out in all.
func (c worker) work(p *pair, stop *atomic.Bool) (report, error) {
	total := report{Errors: map[string]int{}}
	for {
		command := fmt.Sprintf("%s --address %s.test:%d --target %s --for 3s --pause 20ms", c.program, c.to.name, c.port, p.account(c.to))
		b := start("docker", append([]string{"exec", "-u", fmt.Sprint(p.users()[c.from].uid), c.from.id}, strings.Fields(command)...)...)
		<-b.end
		if b.out == "" {
			return total, b.err
		}
		var r report
		if err := json.Unmarshal([]byte(b.out), &r); err != nil {
			return total, err
		}
		total.Channels, total.Failed, total.Slowest = total.Channels+r.Channels, total.Failed+r.Failed, max(total.Slowest, r.Slowest)
		for text, n := range r.Errors {
			total.Errors[text] += n
		}
		if stop.Load() {
			return total, nil
		}
	}
}

// atWork does something while all workers do, and gives how many channels were made; none may fail, but for those of stock libraries
// that a stopping daemon of 0.1.0 turns away.
func (p *pair) atWork(t *testing.T, workers []worker, turnsAway bool, do func()) (made, turned int) {
	t.Helper()
	var stop atomic.Bool
	type outcome struct {
		worker
		report
		err error
	}
	outcomes := make(chan outcome)
	for _, c := range workers {
		go func() {
			r, err := c.work(p, &stop)
			outcomes <- outcome{c, r, err}
		}()
	}
	for _, m := range []*machine{p.alpha, p.beta} {
		before := m.status(t).Responder.Accepted
		waitFor(t, "the load at "+m.name, func() (bool, string) {
			s := m.status(t)
			return s.Responder.Accepted > before+20, fmt.Sprintf("%+v", s)
		})
	}
	do()
	stop.Store(true)
	for range workers {
		o := <-outcomes
		failed := o.Failed
		for text, n := range o.Errors {
			if turnsAway && o.stock && (strings.Contains(text, "(shutting_down)") || strings.Contains(text, "(peer_closed)")) {
				failed -= n
				turned += n
			}
		}
		if o.err != nil || failed > 0 || o.Channels < 10 {
			t.Errorf("%s, %s to %s: %v, %v", o.name, o.from.name, o.to.name, o.report, o.err)
		}
		made += o.Channels
	}
	return made, turned
}

// TestSystemdLastRelease: machines with the last release's packages are upgraded to what is here, rolled back, and upgraded again, the
// deb on one and the rpm on the other, one machine after the other, while programs of both releases are at work: no channel fails,
// and configuration, denials and the memory of revocation lists are in force throughout.
func TestSystemdLastRelease(t *testing.T) {
	last, err := os.ReadFile(filepath.Join(root, "deploy/last-release"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.Fields(string(last))[0]
	p := newPair(t)
	both := []*machine{p.alpha, p.beta}
	tab := &table{title: "From release " + version + " to what is here, back and again, with programs of both at work"}
	defer tab.print()

	tab.row(t, "release "+version+" installed", func(t *testing.T) string {
		for _, m := range both {
			m.install(t, "dist/last")
			m.copyIn(t, "dist/last/testapp")
			m.sh(t, "install -m 755 /root/testapp /usr/local/bin/app-last")
			m.put(t, "/etc/shared-altsd/ca.pem", p.pki.ca.PEM(), "0644")
			m.put(t, "/etc/shared-altsd/ca.crl", p.pki.crl(), "0644")
			m.put(t, "/etc/shared-altsd/policy.d/10-site.policy", []byte("default in deny\ndefault out allow\nallow in * *@.test\n"), "0644")
			m.sh(t, "printf '# mine\ncrl = /etc/shared-altsd/ca.crl\npolicy = /etc/shared-altsd/policy.d\n' >>/etc/shared-altsd/shared-altsd.conf")
			p.certify(t, m, p.pki.ca)
			m.sh(t, "systemctl enable --now shared-altsd.service shared-altsd-renew.path")
			m.sh(t, "shared-altsd deny --reason INC-1 mallory@mail.test")
			for unit, command := range map[string]string{"app": "app serve --address :7500", "app-last": "app-last serve --address :7501",
				"app-stock": "/usr/bin/shared-altsd exec -- /usr/local/bin/app serve --stock --address :7502"} {
				if !strings.HasPrefix(command, "/") {
					command = "/usr/local/bin/" + command
				}
				m.sh(t, fmt.Sprintf("systemd-run -q --unit %s -p User=%s %s", unit, p.users()[m].name, command))
			}
		}
		p.works(t)
		return p.version(t, version)
	})
	if t.Failed() {
		return // nothing else can come out
	}
	var workers []worker
	for _, d := range [][2]*machine{{p.alpha, p.beta}, {p.beta, p.alpha}} {
		workers = append(workers, worker{"today's altscreds with the last release's", d[0], d[1], "app call", 7501, false},
			worker{"the last release's altscreds with today's", d[0], d[1], "app-last call", 7500, false},
			worker{"stock under exec with stock", d[0], d[1], "shared-altsd exec -- app call --stock", 7502, true},
			worker{"stock under exec with today's altscreds", d[0], d[1], "shared-altsd exec -- app call --stock", 7500, true})
	}
	const next = "99.0.0"
	for _, step := range []struct{ name, folder, version string }{
		{"upgrade", "dist/next", next}, {"rollback", "dist/last", version}, {"upgrade again", "dist/next", next},
	} {
		tab.row(t, step.name+" under load", func(t *testing.T) string {
			n, turned := p.atWork(t, workers, step.folder == "dist/next", func() {
				for _, m := range both {
					if step.folder == "dist/last" {
						m.rollBack(t, version)
					} else {
						m.install(t, step.folder)
					}
					if m == p.alpha {
						p.works(t) // a machine of either release, the two with each other
					}
				}
			})
			for _, m := range both {
				m.sh(t, "grep -q '# mine' /etc/shared-altsd/shared-altsd.conf; systemctl -q is-active shared-altsd.service")
				if out, err := m.try("shared-altsd policy test --in mallory@mail.test " + p.users()[m].name); err == nil || !strings.Contains(out, "denied.policy") {
					t.Errorf("%s: what was denied before is not denied: %v %s", m.name, err, out)
				}
				if s := m.status(t); len(s.Faults) > 0 && !s.Faults[0].Warning {
					t.Errorf("%s: %+v", m.name, s.Faults)
				}
				for _, unit := range []string{"app", "app-last", "app-stock"} {
					m.sh(t, "systemctl -q is-active "+unit)
				}
			}
			p.works(t)
			lost := "none failed"
			if turned > 0 {
				lost = fmt.Sprintf("%d of stock libraries turned away by the stopping daemons of %s, none other failed", turned, version)
			}
			return fmt.Sprintf("%s; %d new channels meanwhile, %s", p.version(t, step.version), n, lost)
		})
	}
}

// rollBack installs the last release by the command of docs/upgrade.md for this machine's packages.
func (m *machine) rollBack(t *testing.T, version string) {
	t.Helper()
	command := map[string]string{"deb": "dpkg ", "rpm": "rpm "}[m.kind]
	for _, block := range testdoc.Blocks(t, "docs/upgrade.md", "TestSystemdLastRelease") {
		for line := range strings.Lines(block) {
			if !strings.HasPrefix(line, command) {
				continue
			}
			// Debian's rpm does not know what Debian's packages provide.
			line = strings.Replace(strings.ReplaceAll(line, "VERSION", version), "rpm -U", "rpm -U --force-debian --nodeps", 1)
			m.copyIn(t, "dist/last/*."+m.kind)
			m.sh(t, "cd /root && "+line)
			return
		}
	}
	t.Fatalf("docs/upgrade.md does not say how to go back by %s", m.kind)
}

// version fails unless both machines' daemons are of a version, and says so.
func (p *pair) version(t *testing.T, version string) string {
	t.Helper()
	for _, m := range []*machine{p.alpha, p.beta} {
		if s := m.status(t); s.Version != version {
			t.Errorf("%s runs %s, and not %s", m.name, s.Version, version)
		}
	}
	return "daemons of " + version
}
