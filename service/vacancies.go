package service

import (
	"context"
	"errors"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A name that a socket gives out (SocketUse.Account) is to be nobody's in the user database. That is asked for each
// handshake, by a cache of its own, so that neither delays the other, since a directory may gain the name any day.

// vacant returns nil if the user database knows no account of that name, in any spelling. Only names of sockets are asked
// for: each has one query under way at most. As with names of uids, an answer that there is none serves a little longer
// while it is asked for again, or while the database fails. What /etc/passwd says counts within a second.
func (a *Accounts) vacant(ctx context.Context, name string) error {
	if spelling := a.files.spelling(name); spelling != "" {
		return taken(name, spelling)
	}
	_, err := a.await(ctx, a.vacancy(name), subject{name: name})
	return err
}

// vacantReady reports whether vacant would answer at once.
func (a *Accounts) vacantReady(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready(a.vacancies[name], nil)
}

// vacancy returns the entry to wait for, starting a lookup if there is none or it has aged.
func (a *Accounts) vacancy(name string) *accountEntry {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.vacancies[name]
	if old != nil && !old.aged(now) {
		return old
	}
	e := a.after(old, now, nil)
	a.vacancies[name] = e
	go a.fill(e, subject{name: name}, a.lanes[unnamed].places)
	return e
}

// vacant returns nil if nobody has the name. What the database cannot tell is a failure, unlike where a uid has the name by
// its own word (absent).
func (r resolver) vacant(name string) error {
	_, err := query(r, r.source.uidOf, name)
	switch {
	case err == nil, errors.Is(err, errOtherSpelling):
		return taken(name, name)
	case errors.Is(err, errNoUser):
		return nil
	}
	return reason.Errorf(reason.Internal, "the user database (%s) failed for the account %q, which a socket gives out: %w",
		AccountSource, name, err)
}

// taken refuses a name of a socket's that is somebody's.
func taken(name, spelling string) error {
	return reason.Errorf(reason.LocalAccount, "this socket's programs are to be %q (account=), but the user database (%s) has "+
		"an account %q by now, and no two may have one name: give the socket another name, best with a \"+\", or rename the "+
		"account", name, AccountSource, spelling)
}
