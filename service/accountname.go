package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// AccountNamed returns the account of a name, in any case, by the rules of Accounts. It is for tools: it keeps nothing, and
// whoever may ask it may have the user database asked as often as he likes.
func AccountNamed(ctx context.Context, name string, o AccountOptions) (Account, error) {
	return accountNamed(ctx, name, o, newUserSource())
}

func accountNamed(ctx context.Context, name string, o AccountOptions, src userSource) (Account, error) {
	accounts := newAccounts(o, src)
	ctx, cancel := context.WithTimeout(ctx, accounts.opts.Timeout)
	defer cancel()
	name = ascii.Lower(name)
	uid, err := src.uidOf(ctx, name)
	switch {
	case absent(err, name):
		return Account{}, fmt.Errorf("%w %.100q in the user database (%s)", ErrNoAccount, name, AccountSource)
	case err != nil:
		return Account{}, fmt.Errorf("the user database (%s) failed for the account %.100q: %w", AccountSource, name, err)
	}
	acct, err := accounts.Lookup(ctx, uid)
	if err == nil && acct.Name != name {
		err = fmt.Errorf("%.100q is another name of %q, by which peers know uid %d: use that", name, acct.Name, uid)
	}
	if err != nil {
		return Account{}, err
	}
	return acct, nil
}

// ErrNoAccount says that the user database does not know a name.
var ErrNoAccount = errors.New("no account")

// HasGroup reports whether the user database that accounts are looked up in has a group.
func HasGroup(name string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), groupWait)
	defer cancel()
	_, err := newUserSource().gidOf(ctx, name)
	if absent(err, name) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the user database (%s) failed for the group %.100q: %w", AccountSource, name, err)
	}
	return true, nil
}
