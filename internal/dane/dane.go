// Package dane finds out what validated DNS says of a machine: it asks the companion that asks the resolver, and keeps the
// answers.
//
// Whoever can send a self-signed statement chooses the name that is asked for, and no such statement costs anything. So
// every lookup is somebody's: of the local account whose handshake it is, outbound and inbound apart. Each has a bounded
// part of the lookups under way and of what is kept, and so has each branch of DNS, whose servers may be slow on purpose. A quarter
// of all is what names that were never good have. So made-up names keep out neither another account's lookups nor those of machines
// that have been met.
package dane

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
	"github.com/shared-altsd/shared-altsd/service"
)

const (
	// lookupTime is how long the companion may take, which itself gives DNS 5 seconds and knows better what was slow.
	lookupTime = 6 * time.Second

	// How many names are kept that were good, and what DNS said of others that vouches for nobody.
	maxKnown, maxMissed = 4096, 1024

	// An answer serves for its TTL, within these: the handshake that asked has to come to its end.
	minKept, maxKept = 10 * time.Second, time.Hour
	// missKept is how long it stands that DNS does not vouch for a machine, silenceKept that there was no answer.
	missKept, silenceKept = time.Minute, 5 * time.Second
)

// Places for lookups under way, of names that were ever good and of others: together no more than the companion works on for one
// account (resolve's InFlight), so that none of them waits there.
var (
	knownPlaces   = bound{places: 45, share: 15, shareBranch: 4, branch: 11}
	strangePlaces = bound{places: 15, share: 4, shareBranch: 2, branch: 4}
)

// A Caller hands requests to the companion and returns its answers, as *companion.Client does.
type Caller interface {
	Call(ctx context.Context, req []byte) ([]byte, error)
}

// Config is what a Resolver is made of. Client is required.
type Config struct {
	Client Caller
	// Names returns the limits within which DNS vouches for machines; nil: none are known.
	Names func() []string
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Log gets a line when the resolver changes for better or worse. nil: none.
	Log *slog.Logger
}

// A Resolver answers what DNS says of machines. It is safe for concurrent use.
type Resolver struct {
	client Caller
	names  func() []string
	now    func() time.Time
	log    *slog.Logger

	mu            sync.Mutex
	asked         map[string]*inquiry // by machine: those that are under way, or wait for a place
	known, missed *cache
	lanes         [2]*lane          // of names that were never good, and of those that were
	counts        map[string]uint64 // lookups that ended, by outcome
	cached        uint64
	probed        *Probe // nil before the first
}

// New returns a Resolver that has asked nothing yet.
func New(cfg Config) *Resolver {
	r := &Resolver{
		client: cfg.Client, now: cfg.Now, log: cfg.Log, asked: make(map[string]*inquiry), counts: make(map[string]uint64),
		known: newCache(maxKnown), missed: newCache(maxMissed),
		lanes: [2]*lane{newLane(strangePlaces), newLane(knownPlaces)}, names: cfg.Names,
	}
	if r.names == nil {
		r.names = func() []string { return nil }
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	for _, o := range resolve.Outcomes() {
		r.counts[o.String()] = 0
	}
	r.counts[Away] = 0
	return r
}

// An inquiry is one lookup, and who waits for it.
type inquiry struct {
	machine string
	branch  string
	wants   map[share]*want
	running bool
	done    chan struct{} // closed when verdict is there
	verdict verdict
}

// A verdict is what a lookup came to: an answer, of no records where DNS has proved that there are none, or an error.
type verdict struct {
	answer *certbind.Answer
	err    error
	until  time.Time // when it is to be asked anew
}

// Resolve returns what DNS says of a machine, from what is kept or by a lookup. It waits for one as long as ctx lets it.
// Every error is a *reason.Error of DNSUnknown: DNS may vouch for the machine or not.
func (r *Resolver) Resolve(ctx context.Context, q service.Query) (*certbind.Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, unanswered(q.Machine, false)
	}
	who := share{q.Share, q.Initiator}
	r.mu.Lock()
	if v, ok := r.kept(q.Machine, who); ok {
		r.cached++
		r.mu.Unlock()
		return v.answer, v.err
	}
	i := r.asked[q.Machine]
	if i == nil {
		i = &inquiry{machine: q.Machine, branch: certbind.Branch(q.Machine, r.names()), wants: make(map[share]*want), done: make(chan struct{})}
		r.asked[q.Machine] = i
	}
	if !i.running {
		r.lane(q.Machine).enter(i, who)
		r.dispatch()
	}
	r.mu.Unlock()
	select {
	case <-i.done:
		return i.verdict.answer, i.verdict.err
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := i.wants[who]; w != nil && !i.running {
		w.leave()
		if len(i.wants) == 0 {
			delete(r.asked, q.Machine)
		}
	}
	return nil, unanswered(q.Machine, i.running)
}

// kept returns the verdict about a machine that still stands. r.mu is held.
func (r *Resolver) kept(machine string, who share) (verdict, bool) {
	now := r.now()
	for _, c := range []*cache{r.known, r.missed} {
		if v, ok := c.get(machine, who); ok {
			return v, now.Before(v.until)
		}
	}
	return verdict{}, false
}

// lane returns the one for lookups of a machine. r.mu is held.
func (r *Resolver) lane(machine string) *lane {
	if r.known.has(machine) {
		return r.lanes[1]
	}
	return r.lanes[0]
}

// dispatch begins as many lookups as there are places for. r.mu is held.
func (r *Resolver) dispatch() {
	for _, l := range r.lanes {
		for i, p := l.next(); i != nil; i, p = l.next() {
			go r.lookUp(i, p)
		}
	}
}

// lookUp asks the companion, whoever still waits: that made-up names take no more places than a share has must not depend
// on the patience of who made them up.
func (r *Resolver) lookUp(i *inquiry, p *place) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	v, outcome := ask(ctx, r.client, i.machine, r.now)
	if v.answer != nil {
		compact(v.answer.Records)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[outcome]++
	r.keep(i.machine, p.branch.line.share, v)
	delete(r.asked, i.machine)
	i.verdict = v
	close(i.done)
	p.giveBack()
	r.dispatch()
}

// keep puts a verdict where it belongs: a name that was ever good stays one. r.mu is held.
func (r *Resolver) keep(machine string, who share, v verdict) {
	good := v.answer != nil && usable(v.answer)
	if good || r.known.has(machine) {
		r.missed.drop(machine)
		r.known.put(machine, who, v)
		return
	}
	if v.until.After(r.now()) {
		r.missed.put(machine, who, v)
	}
}

// Stats is what a Resolver has done and holds.
type Stats struct {
	// Lookups are those that ended, by the names of resolve's outcomes, and Away; Cached are answers that cost none.
	Lookups map[string]uint64
	Cached  uint64
	// InFlight are lookups under way, Waiting those that wait for a place.
	InFlight, Waiting int
	// Known are the names that were ever good, Missed others that are kept as not.
	Known, Missed int
	// Probe is how the resolver was when it was last asked about, nil before that.
	Probe *Probe
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Lookups: maps.Clone(r.counts), Cached: r.cached, Known: r.known.len(), Missed: r.missed.len(), Probe: r.probed}
	for _, i := range r.asked {
		if i.running {
			s.InFlight++
		} else {
			s.Waiting++
		}
	}
	return s
}

// unanswered returns the refusal of a handshake that ended before its answer was there.
func unanswered(machine string, underWay bool) error {
	if underWay {
		return reason.Errorf(reason.DNSUnknown, "the handshake's time was over before DNS had answered about machine %q; "+
			"see how long the resolver takes", machine)
	}
	return reason.Errorf(reason.DNSUnknown, "%w", errNoPlace)
}

var errNoPlace = errors.New("there were too many lookups of DNS under way for this account until the handshake's time was over; " +
	"somebody may be making up names of machines, which the log names")
