package service

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Caller is who holds a connection to the daemon, as the kernel recorded it when the connection was made.
type Caller struct {
	UID uint32
	PID int32 // for the log only
	// Program is what the process called itself, if that is known: its own word, for the log only.
	Program string

	share   share
	as      *SocketUse // whom his socket makes of him, nil if he is the account of his uid
	refusal error      // why all handshakes on this connection are refused, nil if they are not
}

// Himself reports whether he is the account of his uid, and not whom his socket makes of him.
func (c Caller) Himself() bool { return c.as == nil }

// A UIDRange is First to Last, both included.
type UIDRange struct{ First, Last uint32 }

// UIDRanges are the uids that may use a listener; nil: any.
type UIDRanges []UIDRange

// ParseUIDRanges reads N or N-M, or several of them joined by "+".
func ParseUIDRanges(s string) (UIDRanges, error) {
	var r UIDRanges
	for part := range strings.SplitSeq(s, "+") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 32)
		hi, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || lo > hi {
			return nil, fmt.Errorf("uids %.60q: must be N or N-M with N <= M, as in 100000-165535", s)
		}
		r = append(r, UIDRange{uint32(lo), uint32(hi)})
	}
	return r, nil
}

func (r UIDRanges) contains(uid uint32) bool {
	return r == nil || slices.ContainsFunc(r, func(u UIDRange) bool { return u.First <= uid && uid <= u.Last })
}

// judge decides whether he who holds c, as the kernel says, may, and counts the connection as his. A caller who may not is
// kept, so that what he asks for is refused with the reason; an error says that there are too many such.
func (s *Server) judge(c *conn) (Caller, error) {
	cred := c.cred
	caller := Caller{UID: cred.UID, PID: cred.PID, share: c.share, as: c.as} // as it was guessed, until it is known better
	if !c.allowed.contains(cred.UID) {
		caller.refusal = reason.Errorf(reason.LocalAccount, "uid %d may not use this socket, which is limited to other "+
			"uids: run the program under one of those (a container: docker run --user)", cred.UID)
	} else {
		caller.refusal = s.refusedUIDs.check(cred.UID)
	}
	if caller.refusal == nil && (c.socket != 0 || !s.nameless(cred.UID)) {
		caller.share = c.shareOf(cred.UID)
		if countIn(c, s.connections, caller.share) {
			return caller, nil
		}
		caller.refusal = reason.Errorf(reason.Overloaded, "%s holds %d connections to the daemon already, or all "+
			"together hold %d; close some, or raise the limit", caller.share, s.connections.perAccount, s.connections.inAll)
	}
	if !countIn(c, s.refusedConns, cred.UID) {
		return Caller{}, fmt.Errorf("uid %d, which is refused or has no name, holds too many connections", cred.UID)
	}
	return caller, nil
}

// nameWait is how long a connection waits to learn whether its uid has a name; a slow database decides nothing.
const nameWait = time.Second

// nameless reports whether a uid has no account, so that its handshakes will be refused. Such uids, of which a user may
// have 65536, are kept out of the places of the others. The daemon's own uid needs no account, to ask for the daemon's
// status; and where the database does not answer in time, what was known before decides.
func (s *Server) nameless(uid uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return false
	}
	ctx, cancel := context.WithTimeout(s.draining, nameWait)
	defer cancel()
	_, err := s.accounts.Lookup(ctx, uid)
	switch reason.Of(err) {
	case reason.Accepted:
		return false
	case reason.LocalAccount, reason.Overloaded:
		return true
	}
	accounts, ok := s.accounts.(*Accounts)
	return ok && !accounts.Known(uid)
}

// refusedUIDs are never an identity: where a user namespace has no mapping for a uid, the kernel shows one of them.
type refusedUIDs struct{ overflow uint32 }

func readRefusedUIDs() refusedUIDs {
	const standard = 65534
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return refusedUIDs{standard}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return refusedUIDs{standard}
	}
	return refusedUIDs{uint32(n)}
}

func (r refusedUIDs) check(uid uint32) error {
	switch uid {
	case r.overflow, 65534:
		return reason.Errorf(reason.LocalAccount,
			"uid %d is the overflow uid (nobody): the caller's own uid does not exist here; map it in its user namespace", uid)
	case 1<<32 - 1:
		return reason.Errorf(reason.LocalAccount, "uid %d is no uid", uid)
	}
	return nil
}

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

func (id *identity) String() string { return id.account.Name + "@" + id.machine }

// attributes are what this machine attests of the account (docs/protocol.md, section 5.4), in ascending order.
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

// identityOf returns who a caller is, for one handshake: the account that the user database has for his uid, now or at
// most accountFresh ago, or whom his socket makes of him, of whom that database must know nothing.
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
