package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A resolver asks a user database and applies the rules for names.
type resolver struct {
	source userSource
	files  *userFiles
	opts   AccountOptions
	// ask begins a query, which has its own time.
	ask func() (context.Context, context.CancelFunc)
}

// query does one query.
func query[T, K any](r resolver, of func(context.Context, K) (T, error), key K) (T, error) {
	ctx, cancel := r.ask()
	defer cancel()
	return of(ctx, key)
}

// resolve returns the account of a uid. From uid to name to uid must come back to the same uid (a second passwd line
// root:x:5000 would make uid 5000 "root"), and it is the name in lower case that must, since gRPC libraries compare
// accounts without regard to case: so no two uids have one name, however the database compares.
func (r resolver) resolve(uid uint32) (Account, error) {
	u, err := query(r, r.source.byUID, uid)
	if errors.Is(err, errNoUser) {
		return Account{}, reason.Errorf(reason.LocalAccount,
			"uid %d has no name in the user database (%s); give it an account", uid, AccountSource)
	}
	if err != nil {
		return Account{}, reason.Errorf(reason.Internal, "the user database failed for uid %d: %w", uid, err)
	}
	name := ""
	if len(r.opts.Domains) > 0 && !r.files.has(uid, ascii.Lower(u.name)) {
		name, err = r.inDomain(u)
	} else {
		name, err = r.asItIs(u)
	}
	if err != nil {
		return Account{}, err
	}
	acct := Account{UID: uid, Name: name}
	if acct.Groups, err = r.groups(u); err != nil {
		return Account{}, reason.Errorf(reason.Internal, "the user database failed for the groups of %q: %w", name, err)
	}
	return acct, nil
}

// asItIs returns the name of a user as the database has it, in lower case.
func (r resolver) asItIs(u userEntry) (string, error) {
	name := ascii.Lower(u.name)
	if err := certbind.ValidAccount(name, r.opts.AllowDomainAccounts); err != nil {
		return "", reason.Errorf(reason.LocalAccount, "the account name %.80q of uid %d cannot be used: %w", u.name, u.uid, err)
	}
	back, err := query(r, r.source.uidOf, name)
	unknown := absent(err, name)
	if err != nil && !unknown {
		return "", reason.Errorf(reason.Internal, "the user database failed for account %q: %w", name, err)
	}
	if unknown || back != u.uid {
		return "", reason.Errorf(reason.LocalAccount, "%s", leadsElsewhere(u, unknown, back))
	}
	return name, nil
}

// absent reports whether an error means that the user database does not know a name, and not that it failed. For digits
// alone systemd-userdbd knows no other answer than that it failed.
func absent(err error, name string) bool {
	return errors.Is(err, errNoUser) || errors.Is(err, errCannotAsk) && (!errors.Is(err, errFailed) || onlyDigits(name))
}

// leadsElsewhere is the text for a user whose name, in lower case, is unknown or leads back to another uid.
func leadsElsewhere(u userEntry, unknown bool, back uint32) string {
	name := ascii.Lower(u.name)
	switch {
	case name != u.name && unknown:
		return fmt.Sprintf("the account name %q of uid %d has capitals, and the user database (%s) does not know it in "+
			"lower case, as peers see it: rename the account to %q, or have the database take names in any case (SSSD: "+
			"case_sensitive = false)", u.name, u.uid, AccountSource, name)
	case name != u.name:
		return fmt.Sprintf("the account name %q of uid %d has capitals, and in lower case, as peers see it, it is the "+
			"name of uid %d; rename one of them", u.name, u.uid, back)
	case onlyDigits(name):
		return fmt.Sprintf("uid %d is named %q, and a name of digits alone is taken for a uid (by getent, by id, or by "+
			"systemd-userdbd), so that it does not lead back to this account; give the account a name with a letter, or "+
			"run a daemon built with cgo", u.uid, name)
	case unknown:
		return fmt.Sprintf("uid %d is named %q, but the user database (%s) does not know that name; give the uid an "+
			"account of its own", u.uid, name, AccountSource)
	}
	return fmt.Sprintf("uid %d is named %q, but that name is uid %d; give each its own name in the user database", u.uid,
		name, back)
}

// groups returns those of the published groups that a user is a member of, its primary group among them. One that the
// database does not know has no members.
func (r resolver) groups(u userEntry) ([]string, error) {
	if len(r.opts.Groups) == 0 {
		return nil, nil
	}
	gids, err := query(r, r.source.gids, u)
	if err != nil {
		return nil, err
	}
	gids = append(gids, u.gid)
	var member []string
	for _, group := range r.opts.Groups {
		gid, err := query(r, r.source.gidOf, group)
		in := slices.Contains(gids, gid)
		if err == nil && !in {
			in, err = query(r, func(ctx context.Context, group string) (bool, error) { return r.source.lists(ctx, u, group) }, group)
		}
		switch {
		case absent(err, group):
		case err != nil:
			return nil, fmt.Errorf("group %q: %w", group, err)
		case in:
			member = append(member, group)
		}
	}
	return member, nil
}

// groupWait is how long the user database may take to find a group.
const groupWait = 5 * time.Second

// GroupID returns the gid of a group, by its name in the user database that accounts are looked up in (AccountSource).
// The error names cause and cure.
func GroupID(name string) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), groupWait)
	defer cancel()
	gid, err := newUserSource().gidOf(ctx, name)
	switch {
	case absent(err, name):
		return 0, fmt.Errorf("no group %q in the user database (%s): create it with groupadd, or give a number", name, AccountSource)
	case err != nil:
		return 0, fmt.Errorf("the user database (%s) failed for the group %q: %w; give its number", AccountSource, name, err)
	}
	return gid, nil
}
