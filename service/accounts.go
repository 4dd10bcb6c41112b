package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// An Account is a local account that may take part in handshakes.
type Account struct {
	UID uint32
	// Name is the account's name in the form of docs/protocol.md, section 5.3.
	Name string
	// Groups are those of the published groups that the account is a member of.
	Groups []string
}

// An AccountDatabase knows who a uid is. An error is a *reason.Error that names cause and cure: LocalAccount if the
// account may not take part, Internal if the database failed. It is safe for concurrent use.
type AccountDatabase interface {
	Lookup(ctx context.Context, uid uint32) (Account, error)
}

// AccountOptions says how Accounts reads the user database.
type AccountOptions struct {
	// AllowDomainAccounts lets @ and \ stand in account names.
	AllowDomainAccounts bool
	// Groups are the groups whose membership is looked up.
	Groups []string
	// Timeout bounds one lookup; 0 means 5 seconds.
	Timeout time.Duration
}

const (
	accountFresh   = 30 * time.Second // how long a name is used without asking again
	accountRefused = 5 * time.Second  // how long a refusal is
	accountsKept   = 4096             // uids in the cache
	lookupsAtOnce  = 64               // lookups that may be stuck in the user database together
)

// Accounts is the system's user database (see AccountSource), asked once for concurrent callers, with a deadline, and
// cached briefly both ways. A lookup that hangs delays only callers with that uid.
type Accounts struct {
	source         userSource
	opts           AccountOptions
	fresh, refused time.Duration
	lookups        chan struct{} // one entry for each under way

	mu      sync.Mutex
	entries map[uint32]*accountEntry
}

type accountEntry struct {
	began time.Time
	done  chan struct{} // closed when the fields below are set
	until time.Time
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
	return &Accounts{source: src, opts: o, fresh: accountFresh, refused: accountRefused,
		lookups: make(chan struct{}, lookupsAtOnce), entries: make(map[uint32]*accountEntry)}
}

// Lookup returns the account of uid, from the cache if it is there.
func (a *Accounts) Lookup(ctx context.Context, uid uint32) (Account, error) {
	e := a.entry(uid)
	if e == nil {
		return Account{}, reason.Errorf(reason.Internal,
			"the user database does not answer for %d accounts already", accountsKept)
	}
	if e.found() {
		return e.acct, e.err
	}
	// The deadline counts from the lookup's own start, so that nobody waits again for one that is known to hang.
	deadline := time.NewTimer(time.Until(e.began.Add(a.opts.Timeout)))
	defer deadline.Stop()
	select {
	case <-e.done:
		return e.acct, e.err
	case <-ctx.Done():
		return Account{}, reason.Errorf(reason.Internal,
			"gave up waiting for the user database to name uid %d: %w", uid, ctx.Err())
	case <-deadline.C:
		return Account{}, a.hung(uid)
	}
}

// Known reports whether Lookup would answer for uid at once.
func (a *Accounts) Known(uid uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[uid]
	return e != nil && e.found() && time.Until(e.until) > time.Second
}

func (a *Accounts) hung(uid uint32) error {
	return reason.Errorf(reason.Internal,
		"the user database (%s) did not name uid %d within %v; see whether `getent passwd %d` hangs",
		AccountSource, uid, a.opts.Timeout, uid)
}

// entry returns the entry to wait for, starting a lookup if there is none or it has aged; nil if there is no room.
func (a *Accounts) entry(uid uint32) *accountEntry {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	aged := func(e *accountEntry) bool { return e.found() && now.After(e.until) }
	e := a.entries[uid]
	if e != nil && !aged(e) {
		return e
	}
	if e == nil && len(a.entries) >= accountsKept {
		// Refusals go first, whatever their age: a user with many subordinate uids could fill the cache with them.
		maps.DeleteFunc(a.entries, func(_ uint32, e *accountEntry) bool { return aged(e) || e.found() && e.err != nil })
		if len(a.entries) >= accountsKept {
			return nil
		}
	}
	e = &accountEntry{began: now, done: make(chan struct{})}
	a.entries[uid] = e
	go a.fill(e, uid)
	return e
}

// fill does one lookup. NSS cannot be interrupted, so that a hung one keeps this goroutine and its place among the
// lookups until it returns.
func (a *Accounts) fill(e *accountEntry, uid uint32) {
	ctx, cancel := context.WithTimeout(context.Background(), a.opts.Timeout)
	defer cancel()
	select {
	case a.lookups <- struct{}{}:
		e.acct, e.err = a.resolve(ctx, uid)
		<-a.lookups
	case <-ctx.Done():
		e.err = a.hung(uid)
	}
	life := a.fresh
	if e.err != nil {
		life = a.refused
	}
	e.until = time.Now().Add(life)
	close(e.done)
}

// resolve asks the database and applies the rules for names: uid to name to uid must come back to the same uid (a
// second passwd line root:x:5000 would make uid 5000 "root"), and a name with capitals is used in lower case, which
// must be the same uid (gRPC libraries compare accounts without regard to case).
func (a *Accounts) resolve(ctx context.Context, uid uint32) (Account, error) {
	u, err := a.source.byUID(ctx, uid)
	if errors.Is(err, errNoUser) {
		return Account{}, reason.Errorf(reason.LocalAccount,
			"uid %d has no name in the user database (%s); give it an account", uid, AccountSource)
	}
	if err != nil {
		return Account{}, reason.Errorf(reason.Internal, "the user database failed for uid %d: %w", uid, err)
	}
	name := ascii.Lower(u.name)
	if err := certbind.ValidAccount(name, a.opts.AllowDomainAccounts); err != nil {
		return Account{}, reason.Errorf(reason.LocalAccount,
			"the account name %.80q of uid %d cannot be used: %w", u.name, uid, err)
	}
	back, err := a.source.byName(ctx, name)
	switch {
	case err != nil && !errors.Is(err, errNoUser):
		return Account{}, reason.Errorf(reason.Internal, "the user database failed for account %q: %w", name, err)
	case (err != nil || back.uid != uid) && name != u.name:
		return Account{}, reason.Errorf(reason.LocalAccount,
			"the account name %q of uid %d has capitals, and %q is not the same account; rename one of them",
			u.name, uid, name)
	case err != nil:
		return Account{}, reason.Errorf(reason.LocalAccount,
			"uid %d is named %q, but the user database does not know that name", uid, name)
	case back.uid != uid:
		return Account{}, reason.Errorf(reason.LocalAccount,
			"uid %d is named %q, but that name is uid %d; give each its own name in the user database", uid, name,
			back.uid)
	}
	acct := Account{UID: uid, Name: name}
	if len(a.opts.Groups) > 0 {
		if acct.Groups, err = a.source.groups(ctx, u, a.opts.Groups); err != nil {
			return Account{}, reason.Errorf(reason.Internal,
				"the user database failed for the groups of %q: %w", name, err)
		}
	}
	return acct, nil
}

var errNoUser = fmt.Errorf("no such user")
