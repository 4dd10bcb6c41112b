//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// apart: by the drop-in of docs/deploy.md, with a key that comes after its certificate.
func (p *pair) apart(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(root, "docs/deploy.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)keep them apart by a drop-in.*?\n\n((?:    [^\n]*\n)+)").FindSubmatch(text)
	if block == nil {
		t.Fatal("docs/deploy.md shows no drop-in")
	}
	m := p.alpha
	put := func(name string, data []byte) { m.put(t, "/etc/shared-altsd/machine."+name, data, "0600") }
	first, next := p.pki.issue(p.pki.ca, "alpha.test"), p.pki.issue(p.pki.ca, "alpha.test")
	m.sh(t, "systemctl stop shared-altsd-renew.path; mkdir -p /etc/systemd/system/shared-altsd.service.d")
	const dropin = "/etc/systemd/system/shared-altsd.service.d/apart.conf"
	m.put(t, dropin, []byte(regexp.MustCompile("(?m)^    ").ReplaceAllString(string(block[1]), "")), "0644")
	put("pem", first.CertPEM)
	put("key", first.KeyPEM)
	m.sh(t, "systemctl daemon-reload; systemctl restart shared-altsd.service; systemctl start shared-altsd-renew.path")
	put("pem", next.CertPEM)
	waitFor(t, "the refusal of the certificate without its key", func() (bool, string) {
		s := m.status(t)
		return strings.Contains(s.Reloads.LastError, "private key belongs to none"), fmt.Sprintf("%+v", s)
	})
	put("key", next.KeyPEM)
	m.waitSerial(t, fmt.Sprintf("%x", next.Cert.SerialNumber))
	m.sh(t, "systemctl stop shared-altsd-renew.path; rm "+dropin+" /etc/shared-altsd/machine.key; systemctl daemon-reload")
	p.certify(t, m, p.pki.ca)
	m.sh(t, "systemctl restart shared-altsd.service; systemctl start shared-altsd-renew.path")
	p.works(t)
	return "refused while the key is missing, in force when it comes"
}
