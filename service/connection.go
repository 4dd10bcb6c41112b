package service

import (
	"context"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

const (
	prefaceTimeout  = 5 * time.Second  // for the HTTP/2 preface
	connectionAge   = 26 * time.Minute // to which grpc adds up to a tenth
	connectionGrace = time.Minute      // for the streams on an aged connection: 29.6 minutes in all
)

const (
	// refusedConnections is how many connections of a uid are taken though they are refused, so that their streams can be
	// told why; those above it are closed at once.
	refusedConnections = 16
	// refusedConnectionsInAll is how many there are of them in all: uids without an account cost nothing to come by
	// (subordinate uids).
	refusedConnectionsInAll = 256
	// handoverConnections is how many connections of an account may hand over sockets. Each can hold one thread of the
	// daemon's (see docs/threat-model.md); an application that gets none uses gRPC.
	handoverConnections = 256
)

// connectionsInAll returns how many connections there may be, which leaves a quarter of the open files that the process
// may have for everything else.
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
	socket  uint32 // its number, if it is limited to uids, else 0
}

// Accept closes connections of an account of which too many wait already: that is all that they may cost.
func (l *listener) Accept() (net.Conn, error) {
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if c, err := l.newConn(u); err == nil && c.enter() {
			return c, nil
		} else if err == nil {
			c.Close()
		} else {
			u.Close()
		}
		runtime.Gosched() // the loop itself must not keep a processor from others
	}
}

func (l *listener) newConn(u *net.UnixConn) (*conn, error) {
	cred, err := peercred.FromConn(u)
	if err != nil {
		return nil, err
	}
	c := &conn{UnixConn: u, srv: l.srv, allowed: l.allowed, socket: l.socket, cred: cred}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	l.srv.mu.Lock()
	l.srv.conns[c] = struct{}{}
	l.srv.mu.Unlock()
	return c, nil
}

type conn struct {
	*net.UnixConn
	srv     *Server
	allowed UIDRanges
	socket  uint32 // as in listener
	cred    peercred.Cred
	share   share           // whose it is, as far as is known
	ctx     context.Context // ends with it
	cancel  context.CancelFunc
	frames  *frameMeter // of a connection of HTTP/2

	mu     sync.Mutex
	leave  func() // ends its being counted, nil before its handshake and after its end
	closed bool
	ours   bool // not grpc's any more: it hands over sockets

	refused atomic.Int32 // streams refused by Server.enterStream
}

// SetDeadline is what grpc sets for the preface, and takes back as soon as peerCreds are done: a connection that hands
// over sockets keeps the deadline until its hello is whole.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours {
		return nil
	}
	return c.UnixConn.SetDeadline(t)
}

// Read is how a server of HTTP/2 reads: no faster than the account's budget lets it.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	if n > 0 && c.frames != nil {
		if c.frames.read(c.ctx, b[:n]) != nil {
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *conn) Close() error {
	c.cancel()
	c.mu.Lock()
	if c.leave != nil {
		c.leave()
	}
	c.leave, c.closed = nil, true
	c.mu.Unlock()
	c.srv.mu.Lock()
	delete(c.srv.conns, c)
	c.srv.mu.Unlock()
	return c.UnixConn.Close()
}

// begin finds out who holds the connection, and by its first byte, which stays unread, whether he hands over sockets or
// speaks HTTP/2.
func (c *conn) begin() (caller Caller, handsOver bool, err error) {
	if err := c.pay(); err != nil {
		return Caller{}, false, fmt.Errorf("%s makes too many connections for nothing: %w", c.share, err)
	}
	if caller, err = c.srv.judge(c); err != nil {
		return Caller{}, false, err
	}
	c.share = caller.share
	first, err := handed.Peek(c.UnixConn)
	if err != nil {
		return Caller{}, false, fmt.Errorf("waiting for the first byte: %w", err)
	}
	if first != handed.Hello[0] {
		c.frames = newFrameMeter(c.srv.budget.Of(c.share))
		return caller, false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ours = true
	return caller, true, nil
}

// countIn counts the connection in t, and no longer where it was, unless that is over the limit or the connection was closed.
func countIn[K comparable](c *conn, t *tally[K], key K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !t.enter(key) {
		return false
	}
	if c.leave != nil {
		c.leave()
	}
	c.leave = func() { t.leave(key) }
	return true
}

// shareOf returns whose a connection of a uid with a name is.
func (c *conn) shareOf(uid uint32) share {
	if c.socket != 0 {
		return share{ofSocket, c.socket}
	}
	return share{ofAccount, uid}
}
