package daemon

import (
	"log/slog"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// announceInterval is how often expiry and the clock are looked at.
const announceInterval = time.Minute

// An announcer logs what ends, or will, of what a machine has in force.
type announcer struct {
	machine *certbind.Machine
	log     *expiry.Announcer
}

func newAnnouncer(machine *certbind.Machine, log *slog.Logger) *announcer {
	return &announcer{machine, expiry.NewAnnouncer(log, version.Built(), judgeExpiry)}
}

// announce is called at every announceInterval and after each reload.
func (a *announcer) announce() {
	a.log.Announce(expiryItems(a.machine.Credential(), a.machine.Trust()), time.Now())
}

// expiryItems returns what handshakes depend on for a time. It names a CA with its serial number, since its successor
// may have the same subject, and each thing once: no two series of a metric may have the same labels.
func expiryItems(credential *certbind.Credential, t *certbind.Trust) []expiry.Item {
	var items []expiry.Item
	seen := make(map[expiry.Item]bool)
	add := func(kind, name string, notBefore, notAfter time.Time) {
		if key := (expiry.Item{Kind: kind, Name: name}); !seen[key] {
			seen[key] = true
			items = append(items, expiry.Item{Kind: kind, Name: name, NotBefore: notBefore, NotAfter: notAfter})
		}
	}
	for i, c := range credential.Certificates {
		if i == 0 {
			add(expiry.Leaf, strings.Join(c.DNSNames, " "), c.NotBefore, c.NotAfter)
		} else {
			add(expiry.Chain, caName(c), c.NotBefore, c.NotAfter)
		}
	}
	for _, c := range t.CAs() {
		add(expiry.CA, caName(c), c.NotBefore, c.NotAfter)
	}
	for _, l := range t.CRLs() {
		add(expiry.CRL, listName(l), l.ThisUpdate, l.NextUpdate)
	}
	return items
}
