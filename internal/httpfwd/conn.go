package httpfwd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is a connection that net/http serves or uses. Its end is a clean one if no request was under way.
type conn struct {
	net.Conn
	times Times
	busy  *atomic.Int32 // requests under way
	// Of connections that are served:
	caller  map[string]string // the headers that tell of the peer
	backend *backend
	idle    atomic.Bool // between two requests, with all answers written

	in, out atomic.Int64

	once   sync.Once
	closed chan struct{}
	broken bool // closed while a request was under way
	err    error
}

// A Result is what a connection has carried.
type Result struct {
	In, Out int64 // bytes from who made the connection, and to it
	Err     error // nil: it ended between two requests
}

var errBroken = errors.New("the connection ended while a request was under way")

func newConn(raw net.Conn, t Times, busy *atomic.Int32) *conn {
	return &conn{Conn: raw, times: t, busy: busy, closed: make(chan struct{})}
}

// Write gives up a peer that does not take what is written: a stream may be quiet for as long as it likes, but what is
// there must go.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.times.Write)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.out.Add(int64(n))
	return n, err
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.Add(int64(n))
	return n, err
}

func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close returns at once. The connection is closed when the other side has closed its direction too, or lingers no longer:
// before that what is under way would be lost with it, our end as well.
func (c *conn) Close() error {
	c.once.Do(func() {
		if c.broken = c.busy.Load() != 0; c.broken {
			c.err = c.Conn.Close()
			close(c.closed)
			return
		}
		c.Conn.SetDeadline(time.Now().Add(c.times.Linger))
		go func() {
			if c.CloseWrite() == nil { // else the end is not clean, and the other side sees that
				if tcp, ok := c.Conn.(*net.TCPConn); ok {
					tcp.SetLinger(-1) // no reset, as it is for every other end of a local program's connection
				}
				io.CopyN(io.Discard, c.Conn, maxLeft)
			}
			c.Conn.Close()
			close(c.closed)
		}()
	})
	return c.err
}

// maxLeft is how much is read, for nobody, of a connection that ends.
const maxLeft = 256 << 10

// A queue is a net.Listener for connections that were accepted elsewhere.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), done: make(chan struct{})} }

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// serve has the connection served, and returns at its end.
func (q *queue) serve(ctx context.Context, c *conn) Result {
	err := q.wait(ctx, c)
	c.Close()
	<-c.closed
	if err == nil && c.broken {
		err = errBroken
	}
	return Result{c.in.Load(), c.out.Load(), err}
}

func (q *queue) wait(ctx context.Context, c *conn) error {
	select {
	case q.conns <- c:
	case <-q.done:
		return http.ErrServerClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		if !c.idle.Load() {
			c.busy.Add(1) // an answer may not have left whole
		}
		return context.Cause(ctx)
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.UnixAddr{Name: "forward", Net: "unix"} }

type connKey struct{}

// connOf returns the connection by which a request has come.
func connOf(r *http.Request) *conn { return r.Context().Value(connKey{}).(*conn) }
