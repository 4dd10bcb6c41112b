package metrics

import (
	"io"
	"os"
	"runtime"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// MaxSeries is the most series that a page of the daemon's has.
const MaxSeries = 60

// maxCAs is how many CAs have series of their own: a fleet that moves from one CA to the next has two.
const maxCAs = 3

// reasonsApart are the reasons for which handshakes are refused that have series of their own, since an administrator does
// something else about each.
var reasonsApart = []reason.Code{reason.UnknownCA, reason.CertificateExpired, reason.CertificateRevoked, reason.RevocationUnknown,
	reason.DeniedByPolicy, reason.DNSUnknown, reason.Overloaded, reason.TimedOut, reason.Internal}

// A State is what is read at the moment of a scrape, not counted.
type State struct {
	InFlight, Waiting            int // handshakes
	Connections                  int
	Expiries                     []expiry.Item
	ClockWrong                   bool
	KeyFailsSince                time.Time // since when the machine's key does not sign, zero if it does
	VerifiedFull, VerifiedCached uint64
	PassedOver                   int       // files in directories of lists
	Denied                       int       // lines of what is denied before all rules
	DeniedRefusedSince           time.Time // of a change of it that stands refused, zero for none
	Watched                      int       // connections that stand
	Ended, Kept                  uint64    // of those
	DNS                          *DNS      // nil where DNS vouches for no machine
}

// A DNS is what is read of trust by DNS.
type DNS struct {
	Validates        bool   // the resolver does, when last asked
	Answered, Failed uint64 // lookups that ended
}

// Write writes everything that is counted, and state, in Prometheus' text format.
func (s *Set) Write(w io.Writer, state State) error {
	e := newExposition(w, label{"machine", s.machine})
	s.write(e, &state)
	s.writeProcess(e)
	return e.Flush()
}

// WriteTextfile writes the same for node_exporter's textfile collector, where the metrics of a process are node_exporter's
// own, and adds that the daemon is up, which a scrape finds out by itself.
func (s *Set) WriteTextfile(w io.Writer, state State) error {
	e := newExposition(w, label{"machine", s.machine})
	e.up(true)
	s.write(e, &state)
	return e.Flush()
}

// WriteDown writes what is to be known of a machine whose daemon does not answer.
func WriteDown(w io.Writer, machine string) error {
	e := newExposition(w, label{"machine", machine})
	e.up(false)
	return e.Flush()
}

func (e exposition) up(is bool) {
	e.single("shared_altsd_up", "gauge", "1 if the daemon answered when this was written.", number(is))
}

func (s *Set) write(e exposition, state *State) {
	e.family("shared_altsd_build_info", "gauge", "1, with what the daemon was built from as labels.")
	e.sample("shared_altsd_build_info", 1, label{"version", s.version}, label{"goversion", runtime.Version()})
	s.writeCounted(e)

	e.single("shared_altsd_handshakes_in_flight", "gauge", "Handshakes under way now.", float64(state.InFlight))
	e.single("shared_altsd_handshakes_waiting", "gauge", "Handshakes that wait for a place under the limits.", float64(state.Waiting))
	e.single("shared_altsd_connections", "gauge", "Connections of local applications.", float64(state.Connections))

	ends := expiry.Foremost(state.Expiries, time.Now())
	e.family("shared_altsd_not_after_seconds", "gauge",
		"When what handshakes depend on ends, seconds since 1970: the most urgent of leaf, of chain and ca, and of crl (next update).")
	for _, x := range ends {
		e.sample("shared_altsd_not_after_seconds", float64(x.NotAfter.Unix()), label{"kind", x.Kind}, label{"name", x.Name})
	}
	e.family("shared_altsd_not_before_seconds", "gauge",
		"When the same began, seconds since 1970: of a list, when it was made. The difference is the whole of its life.")
	for _, x := range ends {
		e.sample("shared_altsd_not_before_seconds", float64(x.NotBefore.Unix()), label{"kind", x.Kind}, label{"name", x.Name})
	}
	e.single("shared_altsd_clock_wrong", "gauge",
		"1 if this machine's clock is plainly wrong: before the daemon was built, or before its CAs and lists were made.",
		number(state.ClockWrong))
	e.single("shared_altsd_crl_passed_over", "gauge", "Files in a directory of revocation lists of which no use is made.",
		float64(state.PassedOver))
	e.single("shared_altsd_key_fails_since_seconds", "gauge",
		"Since when the machine's key does not sign, seconds since 1970; 0 if it does.", since(state.KeyFailsSince))
	e.family("shared_altsd_peer_verifications_total", "counter",
		"Certificates and statements of peers that were verified: in full, or cached, met before.")
	e.sample("shared_altsd_peer_verifications_total", float64(state.VerifiedCached), label{"kind", "cached"})
	e.sample("shared_altsd_peer_verifications_total", float64(state.VerifiedFull), label{"kind", "full"})
	e.single("shared_altsd_denied_entries", "gauge", "Denials in force, which go before all rules.", float64(state.Denied))
	e.single("shared_altsd_denied_refused_since_seconds", "gauge",
		"Since when a change of what is denied stands refused, seconds since 1970; 0 if none does.", since(state.DeniedRefusedSince))
	e.single("shared_altsd_standing_connections", "gauge",
		"Connections that stand and are watched, to be ended when they would be refused.", float64(state.Watched))
	e.family("shared_altsd_standing_refused_total", "counter",
		"Connections that stood and would be refused now: ended, or kept by --on-revoke keep or permissive rules.")
	e.sample("shared_altsd_standing_refused_total", float64(state.Ended), label{"result", "ended"})
	e.sample("shared_altsd_standing_refused_total", float64(state.Kept), label{"result", "kept"})
	if d := state.DNS; d != nil {
		e.single("shared_altsd_dns_resolver_validates", "gauge",
			"1 if the resolver that is asked about machines under DNS validates, 0 if it does not or cannot be asked.", number(d.Validates))
		e.family("shared_altsd_dns_lookups_total", "counter", "Lookups of machines under DNS that ended, answered or failed.")
		e.sample("shared_altsd_dns_lookups_total", float64(d.Answered), label{"outcome", "answered"})
		e.sample("shared_altsd_dns_lookups_total", float64(d.Failed), label{"outcome", "failed"})
	}
}

// writeCounted writes all series from the start, at 0: a rate needs a first value.
func (s *Set) writeCounted(e exposition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.family("shared_altsd_handshakes_total", "counter",
		"Handshakes that ended, by role of this machine and result: accepted, refused_here, refused_by_peer, given_up.")
	for i, name := range []string{"responder", "initiator"} {
		for r, n := range s.results[i] {
			e.sample("shared_altsd_handshakes_total", float64(n), label{"role", name}, label{"result", result(r).String()})
		}
	}
	e.family("shared_altsd_handshakes_refused_total", "counter",
		"Handshakes that this machine refused, by reason; those of all reasons without a series of their own are other.")
	others := uint64(0)
	for _, n := range s.reasons[refusedHere] {
		others += n
	}
	for _, c := range reasonsApart {
		n := s.reasons[refusedHere][c.String()]
		others -= n
		e.sample("shared_altsd_handshakes_refused_total", float64(n), label{"reason", c.String()})
	}
	e.sample("shared_altsd_handshakes_refused_total", float64(others), label{"reason", "other"})
	s.writeCAs(e)
	e.family("shared_altsd_handshake_duration_seconds", "histogram",
		"Time of a handshake that was accepted, from the peer's first bytes (responder) or the start (initiator) to its end.")
	e.histogram("shared_altsd_handshake_duration_seconds", &s.duration)
	e.single("shared_altsd_policy_would_refuse_total", "counter",
		"Handshakes that were accepted only because the rules of --policy are permissive.", float64(s.would))
	e.family("shared_altsd_reloads_total", "counter", "Reloads of certificates, CAs and revocation lists, by result.")
	e.sample("shared_altsd_reloads_total", float64(s.reloads.Failed), label{"result", "failed"})
	e.sample("shared_altsd_reloads_total", float64(s.reloads.Succeeded), label{"result", "succeeded"})
	e.single("shared_altsd_last_reload_successful", "gauge",
		"0 while something that a reload refused has not been made good by one that brought it into force, else 1.",
		number(s.reloads.RefusedSince.IsZero()))
}

func (s *Set) writeCAs(e exposition) {
	e.family("shared_altsd_handshakes_by_ca_total", "counter",
		"Handshakes that were accepted, by the trusted CA that vouched for the peer: of several, the one that began last.")
	others := s.byCA[OtherCA]
	for i, ca := range s.cas {
		if i < maxCAs {
			e.sample("shared_altsd_handshakes_by_ca_total", float64(s.byCA[ca]), label{"ca", ca})
		} else {
			others += s.byCA[ca]
		}
	}
	e.sample("shared_altsd_handshakes_by_ca_total", float64(others), label{"ca", OtherCA})
}

// writeProcess writes the metrics of the process under the names that every Prometheus client uses.
func (s *Set) writeProcess(e exposition) {
	e.single("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
		float64(s.started.UnixMilli())/1000)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		e.single("process_open_fds", "gauge", "Number of open file descriptors.", float64(len(fds)))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	e.single("go_memstats_sys_bytes", "gauge", "Bytes of memory obtained from the system.", float64(m.Sys))
}

func since(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
