package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// An Account is a local account that may take part in handshakes.
type Account struct {
	UID uint32
	// Name is the account's name in the form of docs/spec/protocol.md, section 5.3.
	Name string
	// Groups are those of the published groups that the account is a member of.
	Groups []string
	// LocalGroups says of each group that the policy in force names for this machine's accounts whether the account is a
	// member of it. They are not published.
	LocalGroups map[string]bool
}

// askedFor reports whether of each of groups it is known whether the account is in it.
func (a *Account) askedFor(groups []string) bool {
	for _, g := range groups {
		if _, asked := a.LocalGroups[g]; !asked {
			return false
		}
	}
	return true
}

// divide tells the groups that are published from those that were looked for besides.
func (a *Account) divide(published, local []string) {
	for _, g := range local {
		if a.LocalGroups == nil {
			a.LocalGroups = make(map[string]bool)
		}
		a.LocalGroups[g] = slices.Contains(a.Groups, g)
	}
	a.Groups = slices.DeleteFunc(a.Groups, func(g string) bool { return !slices.Contains(published, g) })
}

// An AccountDatabase knows who a uid is. An error is a *reason.Error that names cause and cure: LocalAccount if the
// account may not take part, Internal if the database failed. It is safe for concurrent use.
//
// One that has a method LookFor as well, as Accounts, is told by it which groups Account.LocalGroups has to have. For
// sockets that give out accounts it has to be Accounts, which can say that there is nobody of a name.
type AccountDatabase interface {
	Lookup(ctx context.Context, uid uint32) (Account, error)
}

// AccountOptions says how Accounts reads the user database.
type AccountOptions struct {
	// AllowDomainAccounts lets @ and \ stand in account names.
	AllowDomainAccounts bool
	// Domains, in lower case, are those of directories whose accounts may take part, each by its name with its domain,
	// alice@ad.example.com, however the database writes it here. Then an account is of one of them or has a line in /etc/passwd. None:
	// names are taken as the database has them. It goes with AllowDomainAccounts.
	Domains []string
	// Groups are the groups whose membership is looked up, by their names in lower case.
	Groups []string
	// Timeout bounds each query of a lookup; 0 means 5 seconds.
	Timeout time.Duration
}

const (
	accountFresh   = 30 * time.Second // how long a name is used without asking again
	accountStale   = 30 * time.Second // how much longer, while it is asked for again
	accountRefused = 5 * time.Second  // how long a refusal is
	accountsKept   = 4096             // uids in the cache
	lookupsAtOnce  = 64               // lookups of known uids that may be stuck in the user database together
)

// A uidClass is how much is known of a uid before it is looked up.
type uidClass int

const (
	known       uidClass = iota // had a name before, or is in /etc/passwd
	stranger                    // of those nothing is known
	subordinate                 // in a range of /etc/subuid: users have 65536 each, without a name as a rule
	unnamed                     // no uid at all: a name of a socket's, which nobody is to have (vacancies.go)
)

// A pool bounds the lookups of one class: how many may be stuck in the user database together, and how many of uids
// that are not in the cache begin in a second. What strangers use up is theirs.
type pool struct {
	atOnce int
	rate   float64 // a second; 0: any
	burst  float64
}

var pools = [...]pool{known: {atOnce: lookupsAtOnce}, stranger: {8, 20, 200}, subordinate: {4, 10, 50},
	unnamed: {atOnce: lookupsAtOnce}}

// A lane is a pool in use.
type lane struct {
	pool
	places chan struct{} // one entry for each under way
	left   float64       // of the burst
	filled time.Time     // when left was right
}

// take takes one of what may begin now.
func (l *lane) take(now time.Time) bool {
	if l.rate == 0 {
		return true
	}
	l.left = min(l.burst, l.left+now.Sub(l.filled).Seconds()*l.rate)
	l.filled = now
	if l.left < 1 {
		return false
	}
	l.left--
	return true
}

// Accounts is the system's user database (see AccountSource), asked once for concurrent callers, with a deadline, and
// cached briefly both ways. A lookup that hangs delays only callers with that uid, and not them if they had a name less
// than a minute ago.
type Accounts struct {
	source                userSource
	files                 *userFiles
	opts                  AccountOptions
	fresh, stale, refused time.Duration

	mu        sync.Mutex
	lanes     [len(pools)]lane
	entries   map[uint32]*accountEntry
	local     []string                 // the groups of Account.LocalGroups; replaced, not changed
	vacancies map[string]*accountEntry // of the names that sockets give out, as many as there are such
}

// An accountEntry is one lookup and its outcome.
type accountEntry struct {
	ends  atomic.Int64  // time until which the query under way may take, ns since 1970
	last  *accountEntry // the outcome with a name that it replaces, nil if there is none
	named bool          // the uid had a name when the database last answered
	done  chan struct{} // closed when the fields below are set
	until time.Time     // when it is to be asked again
	local []string      // the groups of Account.LocalGroups that it asks about; of a name it asks about none
	acct  Account
	err   error
}

// found reports whether the lookup has ended, so that its outcome may be read.
func (e *accountEntry) found() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// NewAccounts returns an Accounts that reads the source that this build has.
func NewAccounts(o AccountOptions) *Accounts { return newAccounts(o, newUserSource()) }

func newAccounts(o AccountOptions, src userSource) *Accounts {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	o.Groups = lowered(o.Groups)
	a := &Accounts{source: src, files: newUserFiles(), opts: o, fresh: accountFresh, stale: accountStale,
		refused: accountRefused, entries: make(map[uint32]*accountEntry), vacancies: make(map[string]*accountEntry)}
	for i, p := range pools {
		a.lanes[i] = lane{pool: p, places: make(chan struct{}, p.atOnce), left: p.burst, filled: time.Now()}
	}
	return a
}

// Lookup returns the account of uid, from the cache if it is there. A name that has aged serves a little longer while
// it is asked for again, or while the database fails; an answer that there is no such account ends it at once.
func (a *Accounts) Lookup(ctx context.Context, uid uint32) (Account, error) {
	e, err := a.entry(uid)
	if err != nil {
		return Account{}, err
	}
	return a.await(ctx, e, subject{uid: uid})
}

// A subject is what a lookup is about: a uid, or a name.
type subject struct {
	uid  uint32
	name string
}

func (s subject) String() string {
	if s.name != "" {
		return fmt.Sprintf("say whether there is an account %q", s.name)
	}
	return fmt.Sprintf("name uid %d", s.uid)
}

// key is what getent is asked for.
func (s subject) key() string {
	if s.name != "" {
		return s.name
	}
	return strconv.FormatUint(uint64(s.uid), 10)
}

// await returns the outcome of a lookup, or what serves in its place.
func (a *Accounts) await(ctx context.Context, e *accountEntry, of subject) (Account, error) {
	if acct, ok := a.served(e); ok {
		return acct, nil
	}
	if e.found() {
		return e.acct, e.err
	}
	// The deadline counts from the query's own start, so that nobody waits again for one that is known to hang.
	deadline := time.NewTimer(e.left())
	defer deadline.Stop()
	for {
		select {
		case <-e.done:
			return e.acct, e.err
		case <-ctx.Done():
			return Account{}, reason.Errorf(reason.Internal,
				"gave up waiting for the user database to %v: %w", of, ctx.Err())
		case <-deadline.C:
			left := e.left() // another query may have begun
			if left <= 0 {
				return Account{}, a.hung(of)
			}
			deadline.Reset(left)
		}
	}
}

// left is how long the query under way may still take.
func (e *accountEntry) left() time.Duration { return time.Until(time.Unix(0, e.ends.Load())) }

// served returns the name from before, if that still serves in the place of e's outcome.
func (a *Accounts) served(e *accountEntry) (Account, bool) {
	if e.last == nil || e.found() && reason.Of(e.err) != reason.Internal || !a.serves(e.last) || !e.last.covers(e.local) {
		return Account{}, false
	}
	return e.last.acct, true
}

// serves reports whether a name that was found is young enough to serve.
func (a *Accounts) serves(e *accountEntry) bool { return time.Now().Before(e.until.Add(a.stale)) }

// LookFor has the membership of accounts in groups, by their names in lower case, looked up as Account.LocalGroups from now
// on. What is known of an account that was not asked about all of them serves no longer.
func (a *Accounts) LookFor(groups []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.local, groups) {
		a.local = slices.Clone(groups)
	}
}

// covers reports whether a lookup asks about all of groups.
func (e *accountEntry) covers(groups []string) bool {
	if len(groups) == 0 || len(e.local) == len(groups) && &e.local[0] == &groups[0] {
		return true
	}
	return !slices.ContainsFunc(groups, func(g string) bool { return !slices.Contains(e.local, g) })
}

// Known reports whether a uid had a name when it was last looked up, or is in /etc/passwd. It asks nobody.
func (a *Accounts) Known(uid uint32) bool { return a.classOf(uid) == known }

// classOf returns how much is known of a uid, and asks nobody.
func (a *Accounts) classOf(uid uint32) uidClass {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.class(uid)
}

// Ready reports whether Lookup would answer for uid at once.
func (a *Accounts) Ready(uid uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready(a.entries[uid], a.local)
}

// ready reports whether await would answer about groups at once; a.mu is held.
func (a *Accounts) ready(e *accountEntry, groups []string) bool {
	if e == nil {
		return false
	}
	const margin = time.Second // until Lookup is called
	switch {
	case !e.covers(groups):
		return false
	case !e.found():
	case time.Until(e.until) > margin:
		return true
	case e.err == nil:
		return time.Until(e.until.Add(a.stale)) > margin
	case reason.Of(e.err) != reason.Internal:
		return false
	}
	return e.last != nil && e.last.covers(groups) && time.Until(e.last.until.Add(a.stale)) > margin
}

func (a *Accounts) class(uid uint32) uidClass {
	if e := a.entries[uid]; e != nil && (e.named || e.found() && e.err == nil) {
		return known
	}
	return a.files.class(uid)
}

func (a *Accounts) hung(of subject) error {
	return reason.Errorf(reason.Internal, "the user database (%s) did not %v within %v; see whether `getent passwd %s` hangs",
		AccountSource, of, a.opts.Timeout, of.key())
}

// aged reports whether an entry is to be asked for again.
func (e *accountEntry) aged(now time.Time) bool { return e.found() && now.After(e.until) }

// entry returns the entry to wait for, starting a lookup if there is none or it has aged. An error says that no lookup
// could be started.
func (a *Accounts) entry(uid uint32) (*accountEntry, error) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.entries[uid]
	if old != nil && !old.aged(now) && old.covers(a.local) {
		return old, nil
	}
	l := &a.lanes[a.class(uid)]
	if !l.take(now) {
		return nil, reason.Errorf(reason.Overloaded,
			"uid %d had no name so far, and too many such uids are looked up; try again", uid)
	}
	if old == nil && len(a.entries) >= accountsKept {
		// Refusals go first, whatever their age: a user with many subordinate uids could fill the cache with them.
		maps.DeleteFunc(a.entries, func(_ uint32, e *accountEntry) bool { return e.aged(now) || e.found() && e.err != nil })
		if len(a.entries) >= accountsKept {
			return nil, reason.Errorf(reason.Internal,
				"the user database does not answer for %d accounts already", accountsKept)
		}
	}
	e := a.after(old, now, a.local)
	a.entries[uid] = e
	go a.fill(e, subject{uid: uid}, l.places)
	return e, nil
}

// after returns the entry of a lookup that begins now and asks about groups, in the place of old, nil if there was none.
func (a *Accounts) after(old *accountEntry, now time.Time, groups []string) *accountEntry {
	e := &accountEntry{done: make(chan struct{}), local: groups}
	e.ends.Store(now.Add(a.opts.Timeout).UnixNano())
	switch {
	case old == nil:
	case !old.found(): // it asks about other groups
		e.last, e.named = old.last, old.named
	case old.err == nil:
		e.last, e.named = &accountEntry{until: old.until, acct: old.acct, local: old.local}, true
	case reason.Of(old.err) == reason.Internal:
		e.last, e.named = old.last, old.named
	}
	return e
}

// fill does one lookup. NSS cannot be interrupted, so that a hung one keeps this goroutine and its place among the
// lookups until it returns.
func (a *Accounts) fill(e *accountEntry, of subject, places chan struct{}) {
	ask := func() (context.Context, context.CancelFunc) {
		ends := time.Now().Add(a.opts.Timeout)
		e.ends.Store(ends.UnixNano())
		return context.WithDeadline(context.Background(), ends)
	}
	ctx, cancel := ask()
	defer cancel()
	select {
	case places <- struct{}{}:
		opts := a.opts
		opts.Groups = slices.Concat(opts.Groups, e.local)
		slices.Sort(opts.Groups)
		opts.Groups = slices.Compact(opts.Groups)
		r := resolver{a.source, a.files, opts, ask}
		if of.name != "" {
			e.err = r.vacant(of.name)
		} else {
			e.acct, e.err = r.resolve(of.uid)
		}
		<-places
		e.acct.divide(a.opts.Groups, e.local)
	case <-ctx.Done():
		e.err = a.hung(of)
	}
	life := a.fresh
	if e.err != nil {
		life = a.refused
	}
	e.until = time.Now().Add(life)
	close(e.done)
}
