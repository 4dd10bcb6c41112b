package service

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

const (
	prefaceTimeout  = 5 * time.Second  // for the first byte, and for the rest of a preface
	connectionAge   = 26 * time.Minute // to which localgrpc adds up to a tenth
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

// A listener makes each connection a conn.
type listener struct {
	*net.UnixListener
	srv     *Server
	allowed UIDRanges
	socket  uint32     // its number, if it is limited to uids, else 0
	as      *SocketUse // whom it makes of its callers, nil if they are the accounts of their uids
	file    *os.File   // a copy of its descriptor, which, unlike a net.Listener, can be waited for
}

// Close closes the listener and the copy.
func (l *listener) Close() error { return errors.Join(l.UnixListener.Close(), l.file.Close()) }

// Accept takes the next connection of an account of which not too many wait already. Those of others it closes while
// they are a descriptor and nothing else yet, which is all that they cost. An Errno is a lack of descriptors or memory.
func (l *listener) Accept() (*conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		fd := -1
		var e unix.Errno
		var cred peercred.Cred
		var whose share
		var began time.Time
		rerr := raw.Read(func(on uintptr) bool {
			began = time.Now()
			for range acceptedInARow {
				var r uintptr
				r, _, e = unix.RawSyscall6(unix.SYS_ACCEPT4, on, 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
				if e != 0 {
					return e != unix.EAGAIN
				}
				if cred, err = peercred.FromFD(int(r)); err == nil {
					whose = l.guess(cred.UID)
					if l.srv.pending.enter(whose) {
						fd = int(r)
						return true
					}
				}
				unix.Close(int(r))
			}
			return true
		})
		switch {
		case rerr != nil:
			return nil, rerr
		case fd >= 0:
			if c, err := l.newConn(fd, cred, whose); err == nil {
				return c, nil
			}
			l.srv.pending.leave(whose)
		case e == unix.EMFILE || e == unix.ENFILE || e == unix.ENOBUFS || e == unix.ENOMEM:
			return nil, e
		}
		// Who connects for nothing keeps this loop busy, and himself: half of a processor is enough for that. More would be
		// taken from handshakes, and less would leave others in the kernel's queue for long.
		time.Sleep(time.Since(began))
	}
}

// acceptedInARow is how many connections are closed at accept before others have their turn: some 2 ms of work, which a
// timer can follow.
const acceptedInARow = 256

// newConn makes a conn of a descriptor, which is counted as pending.
func (l *listener) newConn(fd int, cred peercred.Cred, whose share) (*conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	u, err := net.FileConn(f) // has a copy of the descriptor
	if err != nil {
		return nil, err
	}
	c := &conn{UnixConn: u.(*net.UnixConn), srv: l.srv, allowed: l.allowed, socket: l.socket, as: l.as, cred: cred,
		share: whose}
	c.leave = func() { l.srv.pending.leave(whose) }
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// guess returns, without asking anybody, whose a connection of a uid is. Whoever may not use the socket is who he is all
// the same, so that what he does is not charged to strangers.
func (l *listener) guess(uid uint32) share {
	accounts, asks := l.srv.accounts.(*Accounts)
	switch {
	case l.srv.refusedUIDs.check(uid) != nil:
		return share{}
	case l.socket != 0 && l.allowed.contains(uid):
		return share{ofSocket, l.socket}
	case uid == 0 || int(uid) == os.Geteuid() || !asks:
		return share{ofAccount, uid}
	}
	switch accounts.classOf(uid) {
	case known:
		return share{ofAccount, uid}
	case subordinate:
		return share{kind: ofSubordinates}
	}
	return share{}
}

// A conn is a connection, which remembers by which socket it came.
type conn struct {
	*net.UnixConn
	srv     *Server
	allowed UIDRanges
	socket  uint32     // as in listener
	as      *SocketUse // as in listener
	cred    peercred.Cred
	share   share           // whose it is, as far as is known
	ctx     context.Context // ends with it
	cancel  context.CancelFunc

	once   sync.Once // closes it
	mu     sync.Mutex
	leave  func() // ends its being counted, nil before its handshake and after its end
	closed bool
}

// Close closes the connection, which then counts no longer; whoever else closes it waits for that.
func (c *conn) Close() (err error) {
	c.cancel()
	c.once.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.srv.mu.Lock()
		delete(c.srv.conns, c)
		c.srv.mu.Unlock()
		err = c.UnixConn.Close()
		// Not before: descriptors that were sent on it and never taken are closed with it, and may linger (docs/threat-model.md).
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.leave != nil {
			c.leave()
		}
		c.leave = nil
	})
	return err
}

// accept serves connections of a listener until it fails.
func (s *Server) accept(l *listener) error {
	wait := time.Duration(0)
	for {
		c, err := l.Accept()
		var lack unix.Errno
		switch {
		case err == nil:
			wait = 0
			if !s.add(c) {
				return net.ErrClosed
			}
			go c.serve()
		case errors.As(err, &lack):
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
			case <-s.draining.Done():
			}
		default:
			return err
		}
	}
}

// add notes a connection that is served, unless the daemon stops.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Err() != nil {
		c.cancel()
		c.leave()
		c.UnixConn.Close()
		return false
	}
	s.serving.Add(1)
	s.conns[c] = struct{}{}
	return true
}

// serve serves a connection until it ends.
func (c *conn) serve() {
	defer c.srv.serving.Done()
	defer c.Close()
	caller, handsOver, err := c.begin()
	switch {
	case err != nil:
		c.srv.log.Debug("a connection to the daemon was closed", "error", err)
	case handsOver:
		c.srv.takeOver(c, caller)
	default:
		c.srv.serveGRPC(c, caller)
	}
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
	caller.Program = peercred.Program(c.UnixConn, c.cred) // not for who connects and says nothing
	return caller, first == handed.Hello[0], nil
}

// countIn counts the connection in t, and no longer where it was, unless that is over the limit or the connection was
// closed.
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
