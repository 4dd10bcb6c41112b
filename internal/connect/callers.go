package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/reports"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
	"github.com/shared-altsd/shared-altsd/service"
)

// callers are the accounts to which the identity is lent: this process's own, and those that were named.
type callers struct {
	uids    []uint32
	reports *reports.Once
}

// newCallers returns those of this account and of others, uids.
func newCallers(others []uint32, report func(error)) (*callers, error) {
	own := uint32(os.Geteuid())
	if err := localsock.OwnAccount(own); err != nil {
		return nil, err
	}
	return &callers{append([]uint32{own}, others...), reports.New(report)}, nil
}

// lookupTime is how long the user database may take.
const lookupTime = 10 * time.Second

// LookupAccount returns the uid of an account, a name or a number, that --for may name.
func LookupAccount(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	uid := uint32(n)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
		defer cancel()
		acct, err := service.AccountNamed(ctx, v, service.AccountOptions{AllowDomainAccounts: true})
		if err != nil {
			return 0, err
		}
		uid = acct.UID
	}
	if localsock.Overflow(uid) {
		return 0, fmt.Errorf("uid %d stands for every account unknown here: name one that is somebody's", uid)
	}
	return uid, nil
}

// check returns whose a connection is, and refuses one that the kernel does not name as a caller's. It is asked once:
// afterwards the descriptor is the proof, for the other end may have been closed for writing, or altogether, while its
// bytes are read.
func (c *callers) check(conn net.Conn) (account string, err error) {
	uid, err := ownerOf(conn)
	if err != nil {
		c.reports.Say("owner", fmt.Errorf("a connection was refused, since the kernel does not say whose it is: %w", err))
		return "", &forward.Refusal{Outcome: forward.Foreign, Err: err, Told: true}
	}
	account = fmt.Sprintf("uid %d", uid)
	if !slices.Contains(c.uids, uid) || localsock.Overflow(uid) {
		err := fmt.Errorf("a connection of uid %d was refused: this lends its identity to uid %d%s", uid, c.uids[0], c.others())
		c.reports.Refused(uid, err)
		return account, &forward.Refusal{Outcome: forward.Foreign, Err: err, Told: true}
	}
	return account, nil
}

func (c *callers) others() (list string) {
	for _, uid := range c.uids[1:] {
		list += fmt.Sprintf(", %d", uid)
	}
	return list
}

// ownerOf asks the kernel whose socket is at the other end.
func ownerOf(conn net.Conn) (uint32, error) {
	switch conn := conn.(type) {
	case *net.UnixConn:
		cred, err := peercred.FromConn(conn)
		return cred.UID, err
	case *net.TCPConn:
		owner, err := sockowner.Lookup(conn)
		return owner.UID, err
	}
	return 0, errors.New("it is neither of UNIX nor of TCP")
}

// loopback reports whether nobody but this machine's accounts can connect to a listener.
func loopback(addr net.Addr) bool {
	a, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	return ok && ip.Unmap().IsLoopback()
}
