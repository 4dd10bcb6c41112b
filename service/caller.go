package service

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

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
