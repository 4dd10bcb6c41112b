package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// Ends say what a local program is shown of an end that was not clean.
type Ends struct {
	// Hold keeps a UNIX socket open, without another byte, until the program closes it or ctx ends: it could not tell a
	// close from the peer's own.
	Hold bool
}

// A Side is who ended a connection.
type Side int

// The sides.
const (
	Both   Side = iota // each has said its end
	Local              // the program here, or its socket
	Peer               // the other end, or something on the way there
	Daemon             // the daemon here, which would refuse the connection by now
	Stop               // ctx
)

var sides = [...]string{Both: "both", Local: "local", Peer: "peer", Daemon: "daemon", Stop: "stop"}

// String returns the side in a word, for a log or a metric.
func (s Side) String() string { return sides[s] }

// A Result is what became of a connection.
type Result struct {
	ToPeer, FromPeer int64 // bytes that were passed on
	// Err is nil if both sides have said their ends and each was passed on; By is who ended it otherwise.
	Err error
	By  Side
}

// closeWait is how long the peer's close is waited for after both ends: its kernel's reset would say that it was stopped
// before it had what was sent.
const closeWait = 10 * time.Second

var errEarlyClose = errors.New("the peer closed the connection before it was told that this side has ended")

// Carry passes bytes between the local program's connection and the peer's, whose handshake is done, until both have ended
// or something fails, and closes both. Local is a *net.TCPConn, a *net.UnixConn, a *Stdio or something else that has
// CloseWrite. A clean end of the one is passed on to the other. At any other end, and when ctx ends, as for a limit on age
// or a drain, the peer sees that the connection was cut, and a local TCP connection is reset, which it is as well if this
// process is killed.
//
// It is best called in a goroutine of its own: one that has done a handshake has a stack that is larger by 4 KiB, which is a
// quarter of what an idle connection costs.
func Carry(ctx context.Context, local net.Conn, peer *altscreds.Conn, o Ends) Result {
	c := &carrier{local: local, peer: peer, hold: o.Hold, marked: altscreds.IsServiceProtocol(peer.ApplicationProtocol())}
	linger(local, 0)
	stop := context.AfterFunc(ctx, func() { c.fail(Stop, context.Cause(ctx)) })
	var fromPeer sync.WaitGroup
	fromPeer.Go(c.fromPeer)
	c.toPeer()
	fromPeer.Wait()
	stop()
	if c.clean() {
		linger(local, -1)
	} else if c.held {
		AwaitHangup(ctx, local.(*net.UnixConn))
	}
	local.Close()
	peer.Close()
	return c.result
}

// linger has a TCP connection reset by its close, or by that of a process that is killed, if seconds is 0; not if it is -1.
func linger(conn net.Conn, seconds int) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(seconds) // it fails only where the connection is closed
	}
}

// A carrier is one connection that is carried.
type carrier struct {
	local  net.Conn
	peer   *altscreds.Conn
	hold   bool
	marked bool // the peer's ends are authenticated

	mu                    sync.Mutex
	localEnded, peerEnded bool // as was said to this process
	told                  bool // the peer, that local has ended
	over                  bool // nothing can fail any more
	held                  bool // the local connection stays open
	result                Result
}

// toPeer passes on what the program sends, and its end.
func (c *carrier) toPeer() {
	n, err := c.peer.ReadFrom(c.local)
	c.result.ToPeer = n
	if err != nil {
		_, ofPeer := c.peer.Write(nil)
		c.failBy(ofPeer, err)
		return
	}
	c.mu.Lock()
	c.localEnded = true // before the peer is told: it may close the connection as soon as it knows
	last := c.peerEnded
	c.mu.Unlock()
	if err := c.peer.CloseWrite(); err != nil {
		c.failBy(err, err)
		return
	}
	c.mu.Lock()
	c.told = true
	c.mu.Unlock()
	if last {
		_ = c.peer.SetReadDeadline(time.Now().Add(closeWait))
	}
}

// fromPeer passes on what the peer sends, and its end.
func (c *carrier) fromPeer() {
	n, err := c.peer.WriteTo(c.local)
	c.result.FromPeer = n
	if err != nil {
		_, ofPeer := c.peer.Read(nil)
		c.failBy(ofPeer, err)
		return
	}
	if err := c.local.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.failBy(nil, err)
		return
	}
	c.mu.Lock()
	c.peerEnded = true
	last := c.localEnded
	c.mu.Unlock()
	if last || !c.marked {
		return
	}
	// The peer has ended first, and closes the connection once it knows of the other end, not before.
	err = c.peer.WaitClose()
	c.mu.Lock()
	told := c.localEnded
	c.mu.Unlock()
	switch {
	case err == nil && !told:
		c.fail(Peer, errEarlyClose)
	case err != nil && !(told && isTimeout(err)):
		c.failBy(err, err)
	}
}

// failBy ends the connection because of err, which came from the peer's side if ofPeer is not nil.
func (c *carrier) failBy(ofPeer, err error) {
	var ended *altscreds.EndedError
	switch {
	case errors.As(ofPeer, &ended):
		c.fail(Daemon, ofPeer)
	case ofPeer != nil && ofPeer != io.EOF: // its end is no failure
		c.fail(Peer, ofPeer)
	default:
		c.fail(Local, err)
	}
}

// fail ends the connection, unless that was done, in a way that neither side takes for a clean end.
func (c *carrier) fail(by Side, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.over = true; by == Stop && c.told && c.peerEnded {
		_ = c.peer.Close() // which was all that was waited for
		return
	}
	c.result.By, c.result.Err = by, err
	if _, unix := c.local.(*net.UnixConn); unix && c.hold && (by == Peer || by == Daemon) {
		c.held = true
		_ = c.local.SetDeadline(time.Unix(1, 0))
	} else {
		_ = c.local.Close()
	}
	_ = c.peer.Close()
}

// clean reports whether nothing has failed, and keeps it so.
func (c *carrier) clean() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	return c.result.Err == nil
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
