// Package metrics counts what the daemon does and shows it in Prometheus' text format.
//
// It writes that format itself: it is a page of code that promtool checks in the tests, whereas the client library
// would bring half a dozen modules into the process that holds the machine's private key. Nothing that a peer sends
// becomes a label: labels are reason codes, sides, local uids and the CAs that are trusted here, and their number is
// bounded.
package metrics

import (
	"cmp"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// accepted is the reason of a handshake that was not refused.
var accepted = reason.Accepted.String()

// maxUIDs bounds the uids that are counted apart; those beyond are counted together as uid "other".
const maxUIDs = 1024

// A Handshake is what is counted of one handshake.
type Handshake struct {
	Initiator bool
	UID       uint32 // of the local account
	// Reason is "accepted", the name of a reason code, or one of the daemon's own words for an end without a code.
	Reason   string
	ByPeer   bool   // the peer's daemon refused, not ours
	Would    bool   // permissive rules would have refused it
	CA       string // that vouched for the peer, empty if he is not verified
	Duration time.Duration
}

// A State is what is read at the moment of a scrape, not counted.
type State struct {
	InFlightInitiator, InFlightResponder int
	WaitingInitiator, WaitingResponder   int
	Connections, Streams                 int
	Expiries                             []expiry.Item
	ClockWrong                           bool
	Signatures                           uint64    // statements signed
	KeyFailsSince                        time.Time // since when the machine's key does not sign, zero if it does
	VerifiedFull, VerifiedCached         uint64
	VerifiedFailed                       uint64
	CacheEntries                         int
	PassedOver                           int       // files in directories of lists
	Denied                               int       // lines of what is denied before all rules
	DeniedRefusedSince                   time.Time // of a change of it that stands refused, zero for none
	Watched                              int       // connections that stand
	Unwatched                            uint64    // that could not be watched
	Ended, Kept                          map[string]uint64
	DNS                                  *DNS // nil where DNS vouches for no machine
}

// A Set is all that the daemon counts. Its methods may be called at the same time.
type Set struct {
	version, machine string
	started          time.Time

	mu         sync.Mutex
	handshakes map[handshakeKey]uint64
	durations  map[durationKey]*histogram
	refusals   map[refusalKey]uint64
	uids       map[uint32]bool
	byCA       map[caKey]uint64 // those that are counted apart, and otherCA
	would      map[bool]uint64  // by initiator
	reloads    Reloads
}

// Reloads are what became of the reloads.
type Reloads struct {
	Succeeded, Failed uint64
	LastSuccess       time.Time // the start counts as one
	RefusedSince      time.Time // of what was refused and nothing has made good since, zero for nothing
}

type handshakeKey struct {
	initiator bool
	reason    string
	byPeer    bool
}

type durationKey struct{ initiator, accepted bool }

type caKey struct {
	initiator bool
	ca        string
}

// otherCA stands for the CAs that are not counted apart, those of the system's pool.
const otherCA = "other"

type refusalKey struct {
	initiator bool
	uid       string
}

// New returns an empty Set of a machine's daemon that has just come up with all its files in force. Each sample bears the
// machine's name: the address at which they are read is the same on every machine.
func New(version, machine string) *Set {
	now := time.Now()
	s := &Set{
		version: version, machine: machine, started: now, reloads: Reloads{LastSuccess: now},
		handshakes: make(map[handshakeKey]uint64),
		durations:  make(map[durationKey]*histogram),
		refusals:   make(map[refusalKey]uint64),
		uids:       make(map[uint32]bool),
		would:      make(map[bool]uint64),
	}
	s.SetCAs(nil)
	// The families that alerts are made of are there from the start, at 0: a rate needs a first value.
	for _, initiator := range []bool{true, false} {
		s.handshakes[handshakeKey{initiator, accepted, false}] = 0
		for _, ok := range []bool{true, false} {
			s.durations[durationKey{initiator, ok}] = &histogram{counts: make([]uint64, len(durationBounds)+1)}
		}
	}
	return s
}

// SetCAs says by which CAs handshakes are counted apart from now on. What was counted of others is let go.
func (s *Set) SetCAs(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[caKey]uint64)
	for _, name := range append(slices.Clip(names), otherCA) {
		for _, initiator := range []bool{true, false} {
			key := caKey{initiator, name}
			next[key] = s.byCA[key]
		}
	}
	s.byCA = next
}

// Handshake counts one handshake that has ended.
func (s *Set) Handshake(h Handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Reason = reason.Fold(h.Reason)
	s.handshakes[handshakeKey{h.Initiator, h.Reason, h.ByPeer}]++
	s.durations[durationKey{h.Initiator, h.Reason == accepted}].observe(h.Duration.Seconds())
	if h.Would {
		s.would[h.Initiator]++
	}
	if h.Reason == accepted {
		key := caKey{h.Initiator, h.CA}
		if _, apart := s.byCA[key]; !apart {
			key.ca = otherCA
		}
		s.byCA[key]++
		return
	}
	uid := "other"
	if s.uids[h.UID] || len(s.uids) < maxUIDs {
		s.uids[h.UID] = true
		uid = strconv.FormatUint(uint64(h.UID), 10)
	}
	s.refusals[refusalKey{h.Initiator, uid}]++
}

// Handshakes returns how many handshakes in one role have ended, well and otherwise.
func (s *Set) Handshakes(initiator bool) (succeeded, refused uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range s.handshakes {
		switch {
		case k.initiator != initiator:
		case k.reason == accepted:
			succeeded += n
		default:
			refused += n
		}
	}
	return succeeded, refused
}

// Reload counts one reload and its outcome. refused says since when something stands refused, zero for nothing: that
// may be so after a reload that went well, of other files.
func (s *Set) Reload(err error, refused time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloads.RefusedSince = refused
	if err == nil {
		s.reloads.Succeeded++
		s.reloads.LastSuccess = time.Now()
	} else {
		s.reloads.Failed++
	}
}

// Reloads returns what became of the reloads.
func (s *Set) Reloads() Reloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

// Started returns when the Set was made.
func (s *Set) Started() time.Time { return s.started }

// Write writes everything that is counted, and state, in Prometheus' text format.
func (s *Set) Write(w io.Writer, state State) error {
	e := newExposition(w, label{"machine", s.machine})
	e.family("shared_altsd_build_info", "gauge", "1, with what the daemon was built from as labels.")
	e.sample("shared_altsd_build_info", 1, label{"version", s.version}, label{"goversion", runtime.Version()})
	s.writeCounted(e)

	e.family("shared_altsd_handshakes_in_flight", "gauge", "Handshakes under way now, by role of this machine.")
	e.sample("shared_altsd_handshakes_in_flight", float64(state.InFlightInitiator), role(true))
	e.sample("shared_altsd_handshakes_in_flight", float64(state.InFlightResponder), role(false))
	e.family("shared_altsd_handshakes_waiting", "gauge", "Handshakes that wait for a place under the limits.")
	e.sample("shared_altsd_handshakes_waiting", float64(state.WaitingInitiator), role(true))
	e.sample("shared_altsd_handshakes_waiting", float64(state.WaitingResponder), role(false))
	e.single("shared_altsd_connections", "gauge", "Connections of local applications.", float64(state.Connections))
	e.single("shared_altsd_streams", "gauge", "Streams of local applications that are not a handshake under way.",
		float64(state.Streams))

	e.family("shared_altsd_not_after_seconds", "gauge",
		"When something that handshakes depend on ends, seconds since 1970: kind leaf, chain, ca or crl (next update).")
	for _, x := range state.Expiries {
		e.sample("shared_altsd_not_after_seconds", float64(x.NotAfter.Unix()), label{"kind", x.Kind}, label{"name", x.Name})
	}
	e.family("shared_altsd_not_before_seconds", "gauge",
		"When the same began, seconds since 1970: of a list, when it was made. The difference is the whole of its life.")
	for _, x := range state.Expiries {
		e.sample("shared_altsd_not_before_seconds", float64(x.NotBefore.Unix()), label{"kind", x.Kind}, label{"name", x.Name})
	}
	e.single("shared_altsd_clock_wrong", "gauge",
		"1 if this machine's clock is plainly wrong: before the daemon was built, or before its CAs and lists were made.",
		number(state.ClockWrong))

	e.single("shared_altsd_crl_passed_over", "gauge", "Files in a directory of revocation lists of which no use is made.",
		float64(state.PassedOver))

	e.single("shared_altsd_statements_signed_total", "counter", "Statements signed with the machine's key.",
		float64(state.Signatures))
	e.single("shared_altsd_key_fails_since_seconds", "gauge",
		"Since when the machine's key does not sign, seconds since 1970; 0 if it does.", since(state.KeyFailsSince))
	e.family("shared_altsd_peer_verifications_total", "counter",
		"Verifications of a peer's certificate and statement: full, cached (met before), or failed.")
	e.sample("shared_altsd_peer_verifications_total", float64(state.VerifiedCached), label{"kind", "cached"})
	e.sample("shared_altsd_peer_verifications_total", float64(state.VerifiedFailed), label{"kind", "failed"})
	e.sample("shared_altsd_peer_verifications_total", float64(state.VerifiedFull), label{"kind", "full"})
	e.single("shared_altsd_peer_cache_entries", "gauge", "Verified peers that are kept.", float64(state.CacheEntries))
	e.single("shared_altsd_denied_entries", "gauge", "Denials in force, which go before all rules.", float64(state.Denied))
	e.single("shared_altsd_denied_refused_since_seconds", "gauge",
		"Since when a change of what is denied stands refused, seconds since 1970; 0 if none does.", since(state.DeniedRefusedSince))
	writeStanding(e, &state)
	writeDNS(e, state.DNS)
	s.writeProcess(e)
	return e.Flush()
}

// refusalsOfStanding are the reasons for which connections that stand are ended, which alerts are made of.
var refusalsOfStanding = []reason.Code{reason.CertificateExpired, reason.CertificateRevoked, reason.DeniedByPolicy, reason.UnknownCA}

// writeStanding writes what is counted of connections that stand.
func writeStanding(e exposition, state *State) {
	e.single("shared_altsd_standing_connections", "gauge",
		"Connections that stand and are watched, to be ended when they would be refused.", float64(state.Watched))
	e.family("shared_altsd_standing_refused_total", "counter",
		"Connections that stood and would be refused now, by reason and result (ended, or kept by --on-revoke keep or permissive rules).")
	for _, r := range []struct {
		result string
		n      map[string]uint64
	}{{"ended", state.Ended}, {"kept", state.Kept}} {
		all := maps.Clone(r.n)
		for _, c := range refusalsOfStanding {
			if all == nil {
				all = make(map[string]uint64)
			}
			all[c.String()] += 0
		}
		for _, name := range sorted(all, cmp.Compare[string]) {
			e.sample("shared_altsd_standing_refused_total", float64(all[name]), label{"result", r.result}, label{"reason", name})
		}
	}
	e.single("shared_altsd_standing_unwatched_total", "counter",
		"Connections of applications that can be told of their end, which could not be watched.", float64(state.Unwatched))
}

func (s *Set) writeCounted(e exposition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.family("shared_altsd_handshakes_total", "counter",
		"Handshakes that ended, by role of this machine, result (accepted, refused_here, refused_by_peer) and reason.")
	for _, k := range sorted(s.handshakes, compareHandshake) {
		result := "accepted"
		switch {
		case k.byPeer:
			result = "refused_by_peer"
		case k.reason != accepted:
			result = "refused_here"
		}
		e.sample("shared_altsd_handshakes_total", float64(s.handshakes[k]), role(k.initiator), label{"result", result},
			label{"reason", k.reason})
	}
	e.family("shared_altsd_handshakes_by_ca_total", "counter",
		"Handshakes that were accepted, by the trusted CA that vouched for the peer: of several, the one that began last.")
	for _, k := range sorted(s.byCA, func(a, b caKey) int {
		return cmp.Or(cmp.Compare(a.ca, b.ca), compareBool(a.initiator, b.initiator))
	}) {
		e.sample("shared_altsd_handshakes_by_ca_total", float64(s.byCA[k]), role(k.initiator), label{"ca", k.ca})
	}
	e.family("shared_altsd_handshake_duration_seconds", "histogram",
		"Time of a handshake from the peer's first bytes (responder) or the start (initiator) to its end.")
	for _, k := range sorted(s.durations, func(a, b durationKey) int {
		return cmp.Or(compareBool(a.initiator, b.initiator), compareBool(a.accepted, b.accepted))
	}) {
		result := "refused"
		if k.accepted {
			result = "accepted"
		}
		e.histogram("shared_altsd_handshake_duration_seconds", s.durations[k], role(k.initiator), label{"result", result})
	}
	e.family("shared_altsd_refusals_total", "counter", "Handshakes that were refused, by uid of the local account.")
	for _, k := range sorted(s.refusals, func(a, b refusalKey) int {
		return cmp.Or(cmp.Compare(a.uid, b.uid), compareBool(a.initiator, b.initiator))
	}) {
		e.sample("shared_altsd_refusals_total", float64(s.refusals[k]), role(k.initiator), label{"uid", k.uid})
	}
	e.family("shared_altsd_policy_would_refuse_total", "counter",
		"Handshakes that were accepted only because the rules of --policy are permissive, by direction.")
	e.sample("shared_altsd_policy_would_refuse_total", float64(s.would[false]), label{"direction", "in"})
	e.sample("shared_altsd_policy_would_refuse_total", float64(s.would[true]), label{"direction", "out"})
	e.family("shared_altsd_reloads_total", "counter", "Reloads of certificates, CAs and revocation lists, by result.")
	e.sample("shared_altsd_reloads_total", float64(s.reloads.Failed), label{"result", "failed"})
	e.sample("shared_altsd_reloads_total", float64(s.reloads.Succeeded), label{"result", "succeeded"})
	e.single("shared_altsd_last_reload_successful", "gauge",
		"0 while something that a reload refused has not been made good by one that brought it into force, else 1.",
		number(s.reloads.RefusedSince.IsZero()))
	e.single("shared_altsd_reload_refused_since_seconds", "gauge",
		"Since when something stands refused, seconds since 1970; 0 if nothing does.", since(s.reloads.RefusedSince))
	e.single("shared_altsd_last_reload_success_seconds", "gauge",
		"When certificates, CAs and revocation lists last came into force, seconds since 1970.", float64(s.reloads.LastSuccess.Unix()))
}

// writeProcess returns the metrics of the process under the names that every Prometheus client uses.
func (s *Set) writeProcess(e exposition) {
	e.single("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
		float64(s.started.UnixMilli())/1000)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		e.single("process_open_fds", "gauge", "Number of open file descriptors.", float64(len(fds)))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	e.single("go_memstats_sys_bytes", "gauge", "Bytes of memory obtained from the system.", float64(m.Sys))
	e.single("go_goroutines", "gauge", "Number of goroutines that currently exist.", float64(runtime.NumGoroutine()))
}

func role(initiator bool) label {
	if initiator {
		return label{"role", "initiator"}
	}
	return label{"role", "responder"}
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

func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), compare)
}

func compareBool(a, b bool) int { return cmp.Compare(number(a), number(b)) }

func compareHandshake(a, b handshakeKey) int {
	return cmp.Or(compareBool(a.initiator, b.initiator), cmp.Compare(a.reason, b.reason), compareBool(a.byPeer, b.byPeer))
}
