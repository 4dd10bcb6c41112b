package altscreds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
)

// A Conn is a connection secured by ALTS. Like a tls.Conn it does its handshake at the first Read or Write, if
// Handshake was not called before; a handshake that failed is final. Its methods may be called concurrently.
//
// Under an application protocol of ServiceProtocol its ends are authenticated: Read returns io.EOF only after the peer's
// CloseWrite, and an error that is io.ErrUnexpectedEOF if the connection was cut or closed without that.
//
// Under any other there is no authenticated end: Read returns io.EOF when the peer's TCP ends between two frames, whether
// the peer closed or somebody on the way did, so what is said over it must tell its own ends (HTTP/2 does; HTTP/1 does
// with a length). An end within a frame is io.ErrUnexpectedEOF.
//
// A connection that the local daemon would refuse by now is closed: Read and Write return an *EndedError then.
type Conn struct {
	raw      net.Conn
	settings *settings // until the handshake is done
	target   string    // the name that was dialled
	received []byte    // read from raw before the handshake

	handshakeMu  sync.Mutex
	handshakeErr error
	done         atomic.Bool // the handshake succeeded; what follows is set before and never changes
	other        net.Conn    // to a peer that does not speak ALTS; else nil
	rec          *record
	info         credentials.AuthInfo
	id           string                     // of the handshake
	ended        atomic.Pointer[EndedError] // by the daemon

	mu                          sync.Mutex
	closed                      bool
	watching                    *watching               // nil: the connection is not watched
	cancel                      context.CancelCauseFunc // of the handshake under way
	timer                       *time.Timer             // calls cancel at the earlier of the two deadlines
	readDeadline, writeDeadline time.Time
}

func newConn(raw net.Conn, s *settings, target string) *Conn {
	return &Conn{raw: raw, settings: s, target: target}
}

// Handshake does the handshake if it has not been done, within the options' Timeout and the connection's deadlines.
func (c *Conn) Handshake() error { return c.HandshakeContext(context.Background()) }

// HandshakeContext does the handshake if it has not been done. The end of ctx ends it at once; ctx has no bearing on
// the connection afterwards.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	if c.done.Load() {
		return nil
	}
	c.handshakeMu.Lock()
	defer c.handshakeMu.Unlock()
	if c.done.Load() || c.handshakeErr != nil {
		return c.handshakeErr
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.cancel = cancel
	c.armTimer()
	if c.closed {
		cancel(net.ErrClosed)
	}
	c.mu.Unlock()

	var watch func(*Conn)
	c.handshakeErr = c.settings.bounded(ctx, c.raw, func(ctx context.Context) (err error) {
		watch, err = c.handshake(ctx)
		return err
	})

	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = nil
	c.armTimer()
	c.received = nil
	if c.handshakeErr == nil {
		c.settings = nil // for the collector: of Server and Client each connection has its own
		c.done.Store(true)
		switch {
		case c.closed && c.rec != nil:
			c.rec.release()
		case watch != nil:
			watch(c)
		}
	}
	return c.handshakeErr
}

// handshake returns what has the connection watched, nil if nobody can.
func (c *Conn) handshake(ctx context.Context) (watch func(*Conn), err error) {
	if m := c.settings.mixed; m != nil && len(c.received) == 0 {
		var kind string
		if kind, c.received, err = m.classify(c.raw); err != nil {
			return nil, err
		}
		if kind != kindALTS {
			c.other, c.info, err = m.serve(ctx, kind, &prefixConn{Conn: c.raw, prefix: c.received})
			return nil, err
		}
	}
	rec, info, o, err := c.settings.secure(ctx, c.raw, c.target, c.received)
	if err != nil {
		return nil, err
	}
	c.rec, c.info, c.id = rec, info, o.id
	if o.standing != nil {
		watch = func(c *Conn) { o.daemon.watch(c, o.standing) }
	}
	return watch, nil
}

// armTimer sets the timer that applies the connection's deadlines to a handshake: it waits for the daemon as well, of
// which the deadlines of raw know nothing. c.mu is held.
func (c *Conn) armTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	first := c.readDeadline
	if first.IsZero() || !c.writeDeadline.IsZero() && c.writeDeadline.Before(first) {
		first = c.writeDeadline
	}
	if cancel := c.cancel; cancel != nil && !first.IsZero() {
		c.timer = time.AfterFunc(time.Until(first), func() { cancel(os.ErrDeadlineExceeded) })
	}
}

// Read returns received bytes, at least one, or waits for them. After a timeout it may be called again.
func (c *Conn) Read(b []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if c.other != nil {
		return c.other.Read(b)
	}
	if e := c.ended.Load(); e != nil {
		return 0, e
	}
	n, err := c.rec.Read(b)
	return n, c.why(err)
}

// why returns what ended the connection in the place of what that made of err.
func (c *Conn) why(err error) error {
	if err != nil {
		if e := c.ended.Load(); e != nil {
			return e
		}
	}
	return err
}

// ReadOnReady is for gRPC: Read into a buffer of size bytes that is taken from pool only when there is something to put
// into it, so that idle connections hold none.
func (c *Conn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if err := c.Handshake(); err != nil {
		return nil, 0, err
	}
	if c.rec != nil {
		if e := c.ended.Load(); e != nil {
			return nil, 0, e
		}
		b, n, err := c.rec.ReadOnReady(size, pool)
		return b, n, c.why(err)
	}
	b := pool.Get(size)
	n, err := c.other.Read(*b)
	return b, n, err
}

// Write sends b. After an error, a timeout too, the connection cannot be written to any more: part of a frame may have
// left.
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if c.other != nil {
		return c.other.Write(b)
	}
	if e := c.ended.Load(); e != nil {
		return 0, e // raw may not be closed yet
	}
	n, err := c.rec.Write(b)
	return n, c.why(err)
}

// Close closes the connection. It ends a handshake, Read or Write under way. It says nothing to the peer, for whom the
// connection is cut unless CloseWrite was called before.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel(net.ErrClosed)
	}
	watching := c.watching
	c.mu.Unlock()
	if watching != nil {
		watching.by.remove(watching)
	}
	if !c.done.Load() {
		return c.raw.Close()
	}
	if c.other != nil {
		return c.other.Close()
	}
	err := c.raw.Close()
	c.rec.release()
	if c.ended.Load() != nil {
		return nil // it was closed before
	}
	return err
}

// CloseWrite ends this side's direction, after which the peer's Read returns io.EOF while it can still write. The end is
// authenticated under an application protocol of ServiceProtocol; under any other it is a TCP FIN, which whoever can
// inject one can feign.
func (c *Conn) CloseWrite() error {
	if !c.done.Load() {
		return errors.New("altscreds: CloseWrite before the handshake is done")
	}
	if c.other == nil {
		return c.why(c.rec.closeWrite())
	}
	return closeWrite(c.other)
}

// AuthInfo returns what the handshake proved: an AuthInfo, or an Unauthenticated if the server's options let in peers
// that do not speak ALTS. It is nil before the handshake is done.
func (c *Conn) AuthInfo() credentials.AuthInfo {
	if !c.done.Load() {
		return nil
	}
	return c.info
}

// ApplicationProtocol returns what both ends agreed to speak. It is "" before the handshake is done, and for a peer that
// does not speak ALTS.
func (c *Conn) ApplicationProtocol() string {
	if ai, ok := c.AuthInfo().(AuthInfo); ok {
		return ai.ApplicationProtocol()
	}
	return ""
}

// HandshakeID returns the ID under which both daemons have logged the handshake. It is "" before the handshake is done,
// and where the handshaker does not say.
func (c *Conn) HandshakeID() string {
	if !c.done.Load() {
		return ""
	}
	return c.id
}

// Peer returns the peer's identity. It is nil before the handshake is done, and for a peer that does not speak ALTS.
func (c *Conn) Peer() *Peer {
	p, _ := PeerFromAuthInfo(c.AuthInfo())
	return p
}

// NetConn returns the connection underneath. To write to it or read from it corrupts this one.
func (c *Conn) NetConn() net.Conn { return c.raw }

// LocalAddr returns the local address of the connection underneath.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the remote address of the connection underneath.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline limits Read, Write and the handshake; the zero time is no limit.
func (c *Conn) SetDeadline(t time.Time) error {
	c.setDeadlines(&t, &t)
	return c.raw.SetDeadline(t)
}

// SetReadDeadline limits Read and the handshake.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.setDeadlines(&t, nil)
	return c.raw.SetReadDeadline(t)
}

// SetWriteDeadline limits Write and the handshake.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.setDeadlines(nil, &t)
	return c.raw.SetWriteDeadline(t)
}

func (c *Conn) setDeadlines(read, write *time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if read != nil {
		c.readDeadline = *read
	}
	if write != nil {
		c.writeDeadline = *write
	}
	c.armTimer()
}

// closeWrite ends our direction of a connection that can.
func closeWrite(conn net.Conn) error {
	if cw, ok := conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("altscreds: a %T cannot be closed for writing alone: %w", conn, errors.ErrUnsupported)
}
