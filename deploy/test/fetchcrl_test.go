//go:build deploy

package deploytest

import (
	"bytes"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A listServer is where a CA publishes its list, on this machine's end of the network of the machines under test.
type listServer struct {
	url string

	mu                sync.Mutex
	list              []byte
	changed           time.Time
	asked, notChanged int
}

func serveList(t *testing.T, network string) *listServer {
	gateway := strings.TrimSpace(must(t, "docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network))
	l, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &listServer{url: "http://" + l.Addr().String() + "/ca.crl"}
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

func (s *listServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.list == nil {
		http.Error(w, "gone to lunch", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get("If-None-Match") != "" {
		s.notChanged++
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", s.changed.Format(time.RFC3339Nano)))
	http.ServeContent(w, r, "", s.changed, bytes.NewReader(s.list))
}

// publish has it serve a list from now on, nil for none.
func (s *listServer) publish(list []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.changed = list, time.Now()
}

func (s *listServer) counts() (asked, notChanged int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.notChanged
}

// TestSystemdFetchCRL runs the unit and the timer that bring lists, and a daemon that takes them by itself.
func TestSystemdFetchCRL(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	network := network(t)
	m := boot(t, image, network, "alpha", "deb")
	lists, r := serveList(t, network), readRecipe(t, certificates, "Lists that come by themselves").whole(t)
	ca := newPKI(t).ca
	leaf := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"alpha.test"},
		ExtraExtensions: []pkix.Extension{testca.Places([]string{lists.url})}})
	publish := func(number int64, serials ...*big.Int) {
		lists.publish(testca.MustCRL(t, ca, serials, testca.CRLOptions{Number: big.NewInt(number),
			ThisUpdate: time.Now().Add(-time.Hour + time.Duration(number)*time.Minute)}))
	}
	const unit, into = "shared-altsd-fetch-crl.service", "/var/lib/shared-altsd-crl"
	const dropins = "/etc/systemd/system/" + unit + ".d"
	fetch := func(t *testing.T) { t.Helper(); m.sh(t, "systemctl start "+unit) }
	status := func(want string) func() (bool, string) {
		return func() (bool, string) {
			out, _ := m.try("shared-altsd status")
			return strings.Contains(out, want), out
		}
	}
	tab := &table{title: "Revocation lists that come by themselves, under systemd"}
	defer tab.print()
	tab.row(t, "the recipe", func(t *testing.T) string {
		m.install(t, "dist")
		m.put(t, "/etc/shared-altsd/ca.pem", ca.PEM(), "0644")
		m.put(t, "/etc/shared-altsd/machine.pem", leaf.PEM(), "0600")
		m.sh(t, "echo 'crl = "+into+"/' >>"+configFile+"; systemctl enable --now shared-altsd.service")
		publish(1)
		m.sh(t, r.step(t, "on each machine, once"))
		waitFor(t, "the first list", status(", from "+into+"/"))
		m.sh(t, "systemctl is-active shared-altsd-fetch-crl.timer; systemctl list-timers | grep fetch-crl")
		if owner := m.sh(t, "stat -c '%U %a' "+into+" "+into+"/*.crl"); owner != "shared-altsd-crl 755\nshared-altsd-crl 644\n" {
			t.Errorf("owners: %q", owner)
		}
		return "the list of the certificate's own place is in force; the timer waits"
	})
	if t.Failed() {
		return
	}
	tab.row(t, "not changed", func(t *testing.T) string {
		fetch(t)
		if asked, same := lists.counts(); asked < 2 || same != asked-1 {
			t.Errorf("asked %d times, %d of them whether it changed", asked, same)
		}
		return "asked by ETag"
	})
	tab.row(t, "the unit's bounds", func(t *testing.T) string {
		m.sh(t, "mkdir -p "+dropins)
		m.put(t, dropins+"/probe.conf", []byte("[Service]\nExecStartPost=/bin/sh -c 'for f in /etc/shared-altsd/machine.pem "+
			"/var/lib/shared-altsd/. /run/shared-altsd/. /root/.; do if ls -l $f/ || cat $f; then exit 7; fi; done; if touch /var/lib/x /etc/x /run/x; "+
			"then exit 8; fi; touch "+into+"/x'\n"), "0644")
		m.sh(t, "systemctl daemon-reload")
		fetch(t)
		m.sh(t, "test -f "+into+"/x; rm "+into+"/x "+dropins+"/probe.conf; systemctl daemon-reload")
		return "no key, no daemon's files, nothing to write but its directory"
	})
	tab.row(t, "revoked", func(t *testing.T) string {
		publish(2, leaf.Cert.SerialNumber)
		fetch(t)
		waitFor(t, "the revocation", status("is revoked by "+into))
		publish(3)
		fetch(t)
		waitFor(t, "the list after it", func() (bool, string) {
			s := m.status(t)
			for _, f := range s.Faults {
				if !f.Warning { // that no purpose is required is one
					return false, fmt.Sprintf("%+v", s)
				}
			}
			return s.Machine != "", fmt.Sprintf("%+v", s)
		})
		return "by the next list, without a reload; and again not"
	})
	tab.row(t, "the server is down", func(t *testing.T) string {
		lists.publish(nil)
		fetch(t)
		if log := m.sh(t, "journalctl -u "+unit+" -p warning -n 5"); !strings.Contains(log, "answers 503") ||
			!strings.Contains(log, "the list that is there stays") {
			t.Errorf("the log: %s", log)
		}
		if text := m.sh(t, "cat "+into+"/fetch-crl.prom"); strings.Contains(text, "failing_since_seconds{url=\""+lists.url+"\",machine=\"alpha.test\"} 0\n") ||
			!strings.Contains(text, "shared_altsd_fetch_crl_failed{machine=\"alpha.test\"} 0\n") {
			t.Errorf("the metrics: %s", text)
		}
		return "the list stays, with a line in the journal and a metric"
	})
	tab.row(t, "further places", func(t *testing.T) string {
		publish(4)
		m.put(t, dropins+"/places.conf", []byte(r.step(t, "systemctl edit",
			"--url http://ca.example.com/ca.crl --url http://ca.example.com/other.crl", "--url "+lists.url+"?by=flag")), "0644")
		m.sh(t, "systemctl daemon-reload")
		fetch(t)
		if log := m.sh(t, "journalctl -o cat -u "+unit+" -n 5"); !strings.Contains(log, "?by=flag: number 4 of ") {
			t.Errorf("the log: %s", log)
		}
		waitFor(t, "number 4", func() (bool, string) {
			out, _ := m.try("shared-altsd status --json")
			return strings.Contains(out, "number 4 of "), out
		})
		return "--url in the unit"
	})
	tab.row(t, "a list of 16 MiB", func(t *testing.T) string {
		var serials []*big.Int
		for i := range int64(720_000) {
			serials = append(serials, big.NewInt(1<<24+i))
		}
		publish(5, serials...)
		fetch(t)
		waitFor(t, "number 5", func() (bool, string) {
			out, _ := m.try("shared-altsd status --json")
			return strings.Contains(out, "number 5 of "), out
		})
		peak := m.sh(t, "grep VmHWM /proc/$(systemctl show --value -p MainPID shared-altsd.service)/status")
		var kB int
		if _, err := fmt.Sscanf(peak, "VmHWM: %d kB", &kB); err != nil || kB > 300_000 {
			t.Errorf("%s (%v)", peak, err)
		}
		return fmt.Sprintf("%d bytes; the daemon's peak is %d MB", len(lists.list), kB/1000)
	})
}
