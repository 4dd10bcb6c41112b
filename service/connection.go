package service

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Caller is who holds a connection to the daemon, as the kernel recorded it when the connection was made.
type Caller struct {
	UID uint32
	PID int32 // for the log only

	refusal error // why this connection's streams are refused, nil if they are not
}

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

// spareConnections is how many connections of a uid are taken though they are refused, so that their streams can be told
// why; those above it are closed at once.
const spareConnections = 16

const (
	// spareInAll is how many there are of them in all: uids without an account cost nothing to come by (subordinate uids).
	spareInAll = 256
	// giverConnections is how many connections of a uid may hand over sockets. Each can hold one thread of the daemon's (see
	// docs/threat-model.md); an application that gets none uses gRPC.
	giverConnections = 256
	// nameWait is how long a connection waits to learn whether its uid has a name; a slow database decides nothing.
	nameWait = time.Second
)

// connectionsInAll leaves a quarter of the open files that the process may have for everything else.
func connectionsInAll() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(l.Cur / 4 * 3)
}

// A listener makes each connection a conn, which remembers by which socket it came.
type listener struct {
	*net.UnixListener
	srv     *Server
	allowed UIDRanges
}

func (l *listener) Accept() (net.Conn, error) {
	u, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	c := &conn{UnixConn: u, srv: l.srv, allowed: l.allowed}
	l.srv.mu.Lock()
	l.srv.conns[c] = struct{}{}
	l.srv.mu.Unlock()
	return c, nil
}

type conn struct {
	*net.UnixConn
	srv     *Server
	allowed UIDRanges

	mu     sync.Mutex
	tally  *tally // where it is counted, nil before its handshake and after its end
	uid    uint32
	closed bool
	ours   bool // not grpc's any more: it hands over sockets

	refused atomic.Int32 // streams refused by Server.enterStream
}

// SetDeadline is what grpc sets for the preface, and takes back as soon as peerCreds are done: a connection that hands over
// sockets keeps the deadline until its hello is whole.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours {
		return nil
	}
	return c.UnixConn.SetDeadline(t)
}

func (c *conn) Close() error {
	c.mu.Lock()
	if c.tally != nil {
		c.tally.leave(c.uid)
	}
	c.tally, c.closed = nil, true
	c.mu.Unlock()
	c.srv.mu.Lock()
	delete(c.srv.conns, c)
	c.srv.mu.Unlock()
	return c.UnixConn.Close()
}

// identify asks the kernel who is at the other end and counts the connection as his.
func (c *conn) identify() (Caller, error) {
	cred, err := peercred.FromConn(c.UnixConn)
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{UID: cred.UID, PID: cred.PID}
	if !c.allowed.contains(cred.UID) {
		caller.refusal = reason.Errorf(reason.LocalAccount, "uid %d may not use this socket, which is limited to other uids; "+
			"use the daemon's other socket", cred.UID)
	} else {
		caller.refusal = c.srv.refusedUIDs.check(cred.UID)
	}
	crowd := caller.refusal == nil && c.srv.nameless(cred.UID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return Caller{}, net.ErrClosed
	}
	count := c.srv.connections
	if caller.refusal == nil && !crowd && !count.enter(cred.UID) {
		caller.refusal = reason.Errorf(reason.Overloaded, "uid %d holds %d connections to the daemon already, or all together hold "+
			"%d; close some, or raise the limit", cred.UID, count.limit, count.most)
	}
	if caller.refusal != nil || crowd {
		if count = c.srv.spare; !count.enter(cred.UID) {
			return Caller{}, fmt.Errorf("uid %d, which is refused or has no name, holds too many connections", cred.UID)
		}
	}
	c.tally, c.uid = count, cred.UID
	return caller, nil
}

// nameless reports whether a uid has no account, so that its handshakes will be refused. Such uids, of which a user may have
// 65536, are kept out of the places of the others. The daemon's own uid needs no account, to ask for the daemon's status; and
// a database that does not answer in time says nothing.
func (s *Server) nameless(uid uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return false
	}
	ctx, cancel := context.WithTimeout(s.stop, nameWait)
	defer cancel()
	_, err := s.accounts.Lookup(ctx, uid)
	return reason.Of(err) == reason.LocalAccount
}

// peerCreds are the transport credentials of the UNIX socket: the kernel's word, no bytes exchanged.
type peerCreds struct{}

type callerInfo struct {
	credentials.CommonAuthInfo
	Caller
	conn *conn
}

func (callerInfo) AuthType() string { return "so_peercred" }

func (peerCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, fmt.Errorf("a connection of type %T has no peer credentials", raw)
	}
	caller, err := c.identify()
	if err != nil {
		return nil, nil, err
	}
	// The deadline of the preface is set. A connection that hands over sockets is served beside gRPC.
	first, err := handed.Peek(c.UnixConn)
	if err != nil {
		return nil, nil, fmt.Errorf("waiting for the first byte: %w", err)
	}
	if first == handed.Hello[0] {
		c.mu.Lock()
		c.ours = true
		c.mu.Unlock()
		c.srv.handovers.Add(1)
		go c.srv.takeOver(c, caller)
		return nil, nil, credentials.ErrConnDispatched
	}
	return c, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, caller, c}, nil
}

func (peerCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's only")
}

func (peerCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "so_peercred"}
}

func (p peerCreds) Clone() credentials.TransportCredentials { return p }

func (peerCreds) OverrideServerName(string) error { return nil }
