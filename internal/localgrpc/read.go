package localgrpc

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

const (
	readSize = 16 << 10
	maxFrame = 16 << 10 // the least that HTTP/2 allows to announce
)

// A bench is what a connection needs to read, and has only while there is something to read: an idle one holds none.
type bench struct {
	src  *conn
	buf  [readSize]byte
	r, w int // what is unread
	fr   *http2.Framer
}

var benches = sync.Pool{New: func() any {
	b := new(bench)
	b.fr = http2.NewFramer(nil, b)
	b.fr.SetReuseFrames()
	b.fr.SetMaxReadFrameSize(maxFrame)
	return b
}}

// Read is what the Framer reads by: in the middle of a frame it waits for the rest, for a while.
func (b *bench) Read(p []byte) (int, error) {
	if b.r == b.w {
		c := b.src
		if c.settled {
			_ = c.sock.SetReadDeadline(time.Now().Add(partTimeout))
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
		if c.settled {
			_ = c.sock.SetReadDeadline(time.Time{})
		}
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	return n, nil
}

// leave gives the bench away, unless there is something on it, or its Framer waits for more headers.
func (c *conn) leave() {
	if b := c.bench; b != nil && b.r == b.w && c.block == nil {
		c.bench, b.src = nil, nil
		benches.Put(b)
	}
}

// fill waits until there is something to read, and reads it onto the bench, whose bytes have all been read.
func (c *conn) fill() error {
	c.readErr = nil
	if err := c.raw.Read(c.tryRead); err != nil {
		return err // the deadline, or closed
	}
	return c.readErr
}

// attemptRead is called by the runtime when the socket may be readable; false means wait.
func (c *conn) attemptRead(fd uintptr) bool {
	b := c.bench
	if b == nil {
		b = benches.Get().(*bench)
	}
	n, err := syscall.Read(int(fd), b.buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), b.buf[:])
	}
	if n > 0 && err == nil {
		b.src, b.r, b.w = c, 0, n
		c.bench = b
		return true
	}
	if c.bench == nil {
		benches.Put(b)
	}
	if err == syscall.EAGAIN {
		if c.srv.Idle != nil {
			c.srv.Idle()
		}
		return false
	}
	if c.readErr = err; err == nil {
		c.readErr = io.EOF
	}
	return true
}

var errNoHTTP2 = errors.New("the peer does not speak HTTP/2")

// readPreface reads the client's preface, and gives up at the first byte that is wrong.
func (c *conn) readPreface() error {
	for want := http2.ClientPreface; want != ""; {
		if c.bench == nil || c.bench.r == c.bench.w {
			if err := c.fill(); err != nil {
				return err
			}
		}
		b := c.bench
		n := min(len(want), b.w-b.r)
		if string(b.buf[b.r:b.r+n]) != want[:n] {
			return errNoHTTP2
		}
		b.r += n
		want = want[n:]
	}
	return nil
}
