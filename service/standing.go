package service

import (
	"maps"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/standing"
)

// Connections that stand: what would be refused now is ended now. The application presents each with the record that came
// with its result (watch.go has the stream). All are judged again, in turns, when policy or trust is another, and each when
// a certificate of its ends.

// Bounds on what is watched. A record takes up its encoding, at most standing.MaxSize, and some 70 bytes.
const (
	standingPerAccount = 16384
	standingInAll      = 65536
)

const (
	// judgedInARow is how many connections are judged in one turn of the processor: less than a handshake takes.
	judgedInARow = 64
	// standingLook is how often ends are looked at, whatever a timer says: clocks are set, and machines sleep.
	standingLook = time.Minute
	// groupsAgain is when an account's groups are asked for again that nobody could tell.
	groupsAgain = 5 * time.Second
)

// watches are the connections that are watched.
type watches struct {
	records *tally[share]
	streams *tally[share]
	sooner  chan struct{} // has an entry if there is something to judge before the time

	mu        sync.Mutex
	calls     map[*watchCall]struct{}
	passes    map[share]*pass  // by watchCall.stream
	judging   bool             // keepJudging runs
	next      time.Time        // the earliest end of a certificate
	armed     time.Time        // when keepJudging looks next; zero while it does
	askers    map[share]*asker // of machines under DNS
	ended     map[string]uint64
	kept      map[string]uint64
	unwatched uint64
}

func newWatches(connections int) watches {
	return watches{records: newTally[share](standingPerAccount, standingInAll),
		streams: newTally[share](max(1, connections/4), standingInAll), sooner: make(chan struct{}, 1),
		calls: make(map[*watchCall]struct{}), passes: make(map[share]*pass), askers: make(map[share]*asker),
		ended: make(map[string]uint64), kept: make(map[string]uint64)}
}

// A StandingStats is what became of connections that stand.
type StandingStats struct {
	Watched int
	// Ended counts those that were ended, and Kept those that would have been, by the names of reasons.
	Ended, Kept map[string]uint64
	// Unwatched counts those that could not be watched, though their applications can.
	Unwatched uint64
	// Keep is Config.KeepRevoked.
	Keep bool
}

func (w *watches) stats() StandingStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return StandingStats{Watched: w.records.sum(), Ended: maps.Clone(w.ended), Kept: maps.Clone(w.kept), Unwatched: w.unwatched}
}

func (w *watches) countUnwatched(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwatched += uint64(n)
}

// until has the connections looked at when one of their certificates ends.
func (w *watches) until(t time.Time) {
	w.mu.Lock()
	if w.next.IsZero() || t.Before(w.next) {
		w.next = t
	}
	soon := t.Before(w.armed)
	w.mu.Unlock()
	if soon {
		w.soon()
	}
}

// soon has keepJudging look.
func (w *watches) soon() {
	select {
	case w.sooner <- struct{}{}:
	default:
	}
}

func (w *watches) all() []*watchCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := make([]*watchCall, 0, len(w.calls))
	for c := range w.calls {
		calls = append(calls, c)
	}
	return calls
}

// refusedNow counts and logs a connection that is refused now.
func (s *Server) refusedNow(c *watchCall, r *standing.Record, f finding, ends bool) {
	code := reason.Of(f.err).String()
	s.watches.mu.Lock()
	if ends {
		s.watches.ended[code]++
	} else {
		s.watches.kept[code]++
	}
	s.watches.mu.Unlock()
	s.audit.refusedNow(s.standingRecord(c, r, f), ends)
}

// standingRecord returns what the log has of a connection that stands.
func (s *Server) standingRecord(c *watchCall, r *standing.Record, f finding) Record {
	local, peer := &r.Connection, &r.Connection.Peer
	out := Record{Time: time.Now(), Role: Responder, ID: r.ID, Local: local.Account + "@" + s.cfg.Machine.Name(), UID: c.caller.UID,
		PID: c.caller.PID, Program: c.caller.Program, Peer: peer.Account + "@" + peer.Machine, Serial: peer.Certificates[0].Serial,
		Reason: reason.Of(f.err).String(), Detail: f.err.Error(), Rule: f.rule, Would: f.would, stands: true, machine: peer.Machine,
		DNS: r.Path.DNS != nil, share: c.share}
	if local.Direction == policy.Out {
		out.Role = Initiator
	}
	if len(peer.Names) > 0 && !out.DNS {
		out.machine = peer.Names[0]
	}
	return out
}

// mayStand refuses an application that can watch its connections, and has so many already that one more could not be
// ended.
func (h *session) mayStand() error {
	if !h.watches || h.srv.cfg.KeepRevoked || h.srv.watches.records.room(h.share) {
		return nil
	}
	return reason.Errorf(reason.Overloaded, "%s, and one more could not be ended when it is refused; close some, or run the "+
		"daemon with --on-revoke keep", tooMany(h.share))
}

// standing returns by what the application can have the connection watched, nil if it cannot.
func (h *session) standing(id string, service string) *altspb.Standing {
	if !h.watches {
		return nil
	}
	a := aboutPeer(h.peer)
	if a.err != nil {
		h.srv.watches.countUnwatched(1)
		return nil
	}
	r := standing.Record{ID: id, Leaf: a.leaf, Path: a.path,
		Connection: policy.Connection{Direction: h.role.direction(), Account: h.me.account.Name, Service: service, Peer: a.policy}}
	if h.peer.DNS {
		r.Until = h.peer.NotAfter
	}
	record, err := r.Encode()
	if err != nil {
		h.srv.watches.countUnwatched(1)
		return nil
	}
	return &altspb.Standing{Record: record, Generation: h.judged.generation}
}

// A judge says what is refused now. It serves for one account and one moment.
type judge struct {
	now    time.Time
	trust  *certbind.Trust
	policy *policy.Policy
	groups []string // that the policy names of local accounts
	asked  bool     // which of them the account is in is known
	member []string // of those
}

// A finding is what is said of a connection.
type finding struct {
	until  time.Time // it stands, if nothing changes
	err    error     // why it is refused, or would be
	rule   string
	would  bool // it is let only by rules that are permissive
	unsure bool // the account's groups are not known, and may count
}

// newJudge returns the judge of a local account, nil for one whose groups are not known.
func (s *Server) newJudge(me *identity) *judge {
	j := &judge{now: time.Now(), trust: s.cfg.Machine.Trust(), asked: true}
	if j.policy, _ = s.inForce(); j.policy == nil {
		return j
	}
	j.groups = j.policy.LocalGroups()
	if j.asked = len(j.groups) == 0 || me != nil && me.knowsGroups(j.groups); j.asked && me != nil {
		j.member = me.account.MemberOf(j.groups)
	}
	return j
}

// find judges a connection; of one whose policy was judged by what is in force, the time alone.
func (j *judge) find(r *standing.Record, judged bool) (f finding) {
	if f.until, f.err = j.trust.Stands(r.Path, j.now); f.err != nil || j.policy == nil || judged {
		return f
	}
	c := r.Connection
	c.Groups = j.member
	v := j.policy.Judge(&c)
	f.rule, f.would, f.unsure = v.Rule, v.Would, !j.asked
	switch {
	case v.Would:
		v.Allowed = false
		f.err = denial(&c, v)
	case f.unsure && !v.Denied:
	default:
		f.err = denial(&c, v)
	}
	return f
}
