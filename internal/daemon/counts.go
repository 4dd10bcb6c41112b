package daemon

import (
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

// countIn returns what counts in set a handshake that has ended.
func countIn(set *metrics.Set) func(service.Record) {
	return func(r service.Record) {
		h := metrics.Handshake{
			Initiator: r.Role == service.Initiator, UID: r.UID, Account: r.Local, Reason: r.Reason, ByPeer: r.ByPeer, Would: r.Would,
			Duration: r.Duration,
		}
		if r.PeerCA != nil {
			h.CA = caName(r.PeerCA)
		}
		set.Handshake(h)
	}
}

// countedCAs returns the CAs by which handshakes are counted apart, as the metrics of their ends name them.
func countedCAs(t *certbind.Trust) (names []string) {
	for _, ca := range t.CAs() {
		names = append(names, caName(ca))
	}
	return names
}

// state is what a scrape of the metrics reads.
func (d *Daemon) state() metrics.State {
	items := expiryItems(d.machine.Credential(), d.machine.Trust())
	m, s := d.machine.Stats(), d.server.Snapshot()
	_, denied := d.policy.inForce().Count()
	var refused time.Time
	if r := d.denied.standing.Load(); r != nil {
		refused = r.since
	}
	keyFails, _ := d.machine.Credential().Failure()
	return metrics.State{
		InFlight: bothRoles(s.InFlight), Waiting: bothRoles(s.Waiting), Connections: s.Connections,
		Expiries: items, ClockWrong: expiry.ClockFault(items, time.Now(), version.Built()) != "",
		KeyFailsSince: keyFails, VerifiedFull: m.Verified, VerifiedCached: m.Cached, PassedOver: len(d.reloader.Passed()),
		Denied: denied, DeniedRefusedSince: refused,
		Watched: s.Standing.Watched, Ended: sum(s.Standing.Ended), Kept: sum(s.Standing.Kept), DNS: dnsState(d.dns),
	}
}

func bothRoles(byRole [2]int) int { return byRole[service.Initiator] + byRole[service.Responder] }
