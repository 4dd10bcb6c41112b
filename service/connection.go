package service

import (
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/handed"
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
	// handoverConnections is how many connections of a uid may hand over sockets. Each can hold one thread of the
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

// A conn is a connection, which remembers by which socket it came.
type conn struct {
	*net.UnixConn
	srv     *Server
	allowed UIDRanges

	mu     sync.Mutex
	tally  *tally // where it is counted, nil before its handshake and after its end
	uid    uint32
	closed bool
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

// accept serves connections of a listener until it fails.
func (s *Server) accept(l *net.UnixListener, allowed UIDRanges) error {
	wait := time.Duration(0)
	for {
		u, err := l.AcceptUnix()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			wait = 0
			c := &conn{UnixConn: u, srv: s, allowed: allowed}
			if !s.add(c) {
				return net.ErrClosed
			}
			go c.serve()
		case errors.As(err, &temporary) && temporary.Temporary(): // no descriptors, or no memory, for now
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
	_ = c.SetDeadline(time.Now().Add(prefaceTimeout))
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
	if caller, err = c.srv.judge(c); err != nil {
		return Caller{}, false, err
	}
	first, err := handed.Peek(c.UnixConn)
	if err != nil {
		return Caller{}, false, fmt.Errorf("waiting for the first byte: %w", err)
	}
	return caller, first == handed.Hello[0], nil
}

// countIn counts the connection in t as uid's, unless that is over the limit or the connection was closed.
func (c *conn) countIn(t *tally, uid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !t.enter(uid) {
		return false
	}
	c.tally, c.uid = t, uid
	return true
}
