package service

import (
	"context"
	"slices"
	"strconv"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// An identity is who the local application is.
type identity struct {
	account Account
	machine string
	socket  *SocketUse // that gave the account out, nil if the user database did
}

// knowsGroups reports whether of each of groups it is known whether the account is in it: one that a socket gives out is in
// none.
func (id *identity) knowsGroups(groups []string) bool {
	return id.socket != nil || id.account.askedFor(groups)
}

// MemberOf returns those of groups that the account is in, by LocalGroups.
func (a *Account) MemberOf(groups []string) (of []string) {
	for _, g := range groups {
		if a.LocalGroups[g] {
			of = append(of, g)
		}
	}
	return of
}

func (id *identity) String() string { return id.account.Name + "@" + id.machine }

// attributes are what this machine attests of the account (docs/spec/protocol.md, section 5.4), in ascending order.
func (id *identity) attributes() []certbind.Attribute {
	if id.socket != nil {
		if id.socket.Label == "" {
			return nil
		}
		return []certbind.Attribute{{Name: "socket", Value: id.socket.Label}}
	}
	attrs := []certbind.Attribute{{Name: "uid", Value: strconv.FormatUint(uint64(id.account.UID), 10)}}
	if len(id.account.Groups) > 0 {
		attrs = slices.Insert(attrs, 0, certbind.Attribute{Name: "groups", Value: names.EncodeGroups(id.account.Groups)})
	}
	return attrs
}

// ready reports whether identityOf would answer at once.
func (s *Server) ready(c Caller) bool {
	if c.as != nil {
		a, ok := s.accounts.(interface{ vacantReady(name string) bool })
		return ok && a.vacantReady(c.as.Account)
	}
	a, ok := s.accounts.(interface{ Ready(uid uint32) bool })
	return ok && a.Ready(c.UID)
}

// AccountOf returns the account that a caller is.
func (s *Server) AccountOf(ctx context.Context, c Caller) (Account, error) {
	id, err := s.identityOf(ctx, c)
	if err != nil {
		return Account{}, err
	}
	return id.account, nil
}

// identityOf returns who a caller is, for one handshake: the account that the user database has for his uid, or whom his
// socket makes of him, of whom that database must know nothing. Either is as it says now, or said at most accountFresh ago,
// accountStale more while it is asked again or fails.
func (s *Server) identityOf(ctx context.Context, c Caller) (*identity, error) {
	if c.as != nil {
		if err := s.vacant(ctx, c.as.Account); err != nil {
			return nil, err
		}
		return &identity{Account{UID: c.UID, Name: c.as.Account}, s.cfg.Machine.Name(), c.as}, nil
	}
	uid := c.UID
	acct, err := s.accounts.Lookup(ctx, uid)
	if err != nil {
		return nil, err
	}
	if acct.UID != uid {
		return nil, reason.Errorf(reason.Internal,
			"the account database answered for uid %d instead of %d", acct.UID, uid)
	}
	if err := certbind.ValidAccount(acct.Name, s.cfg.AllowDomainAccounts); err != nil {
		return nil, reason.Errorf(reason.LocalAccount,
			"the account name %.80q of uid %d cannot be used: %w", acct.Name, uid, err)
	}
	var groups []string
	for _, g := range s.cfg.PublishGroups { // sorted
		if slices.Contains(acct.Groups, g) {
			groups = append(groups, g)
		}
	}
	acct.Groups = groups
	return &identity{acct, s.cfg.Machine.Name(), nil}, nil
}

// vacant returns nil if the user database knows no account of a name that a socket gives out.
func (s *Server) vacant(ctx context.Context, name string) error {
	a, ok := s.accounts.(interface {
		vacant(ctx context.Context, name string) error
	})
	if !ok {
		return reason.Errorf(reason.Internal, "this user database cannot say whether there is an account %q", name)
	}
	return a.vacant(ctx, name)
}
