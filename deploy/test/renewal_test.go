//go:build deploy

package deploytest

import (
	"fmt"
	"strings"
	"testing"
)

// refused: a renewal that is refused stands as that, whatever else is brought into force, and is tried again until what it
// lacked is there.
func (p *pair) refused(t *testing.T) string {
	m := p.beta
	const dropin = "/run/systemd/system/shared-altsd-renew.timer.d"
	m.sh(t, "mkdir -p "+dropin+"; printf '[Timer]\nOnActiveSec=\nOnActiveSec=5s\n' >"+dropin+"/often.conf; systemctl daemon-reload")
	m.put(t, "/etc/shared-altsd/ca.pem", p.pki.ca.PEM(), "0644")
	m.sh(t, "systemctl reload shared-altsd.service")
	before := m.status(t)
	serial := p.certify(t, m, p.pki.other)
	standing := func(what string, more func(daemonStatus) bool) {
		t.Helper()
		waitFor(t, what, func() (bool, string) {
			s := m.status(t)
			return strings.Contains(s.Reloads.LastError, "does not lead to a CA") && more(s), fmt.Sprintf("%+v", s)
		})
	}
	standing("the refusal", func(daemonStatus) bool { return true })
	third := newPKI(t).ca
	m.put(t, "/etc/shared-altsd/ca.pem", append(p.pki.ca.PEM(), third.PEM()...), "0644")
	standing("a reload of other files", func(s daemonStatus) bool {
		return s.Reloads.Succeeded > before.Reloads.Succeeded && s.Certificate.Serial == before.Certificate.Serial
	})
	m.put(t, "/etc/shared-altsd/ca.pem", append(p.pki.ca.PEM(), p.pki.other.PEM()...), "0644")
	m.waitSerial(t, serial)
	if s := m.status(t); s.Reloads.LastError != "" {
		t.Errorf("in force, and still refused: %s", s.Reloads.LastError)
	}
	m.sh(t, "rm -r "+dropin+"; systemctl daemon-reload")
	m.waitSerial(t, p.certify(t, m, p.pki.ca))
	p.works(t)
	return "by another CA, which the daemon came to trust later: refused until then, then in force by itself"
}
