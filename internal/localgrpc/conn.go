package localgrpc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	maxStreams = 256
	connWindow = 1 << 20 // for requests of all streams, those that are being answered included
	maxHeld    = 2 << 20 // bytes, counted by hold

	goAwayWait = time.Second // for streams that the client opened before it read of the end
)

// Variables for tests.
var (
	prefaceTimeout = 5 * time.Second
	partTimeout    = 10 * time.Second // for the rest of a frame
	writeTimeout   = 10 * time.Second // for a peer to take what is written
	answerTimeout  = 10 * time.Second // for a client to take the answers of a call that is over
)

// A Socket is the connection's.
type Socket interface {
	net.Conn
	syscall.Conn
}

type conn struct {
	srv  *Server
	peer Peer
	sock Socket

	// The reading goroutine's own.
	raw     syscall.RawConn
	tryRead func(uintptr) bool
	readErr error
	bench   *bench
	settled bool // the client's first SETTINGS came
	dec     *hpack.Decoder
	block   *headerBlock // the one under way

	tryWrite func(uintptr) bool

	mu          sync.Mutex
	taken       *sync.Cond // the socket has taken what waited
	closed      bool
	streams     map[uint32]*Stream
	working     int    // streams that are no more, for which something still works
	last        uint32 // the highest stream that came
	limit       uint32 // the highest that is taken
	ending      bool   // once limit is set, and the last stream ends, so does the connection
	draining    bool
	held        int
	recvWindow  int
	owed        int
	sendWindow  int64
	firstWindow int64 // of a new stream
	blocked     []*Stream
	age         *time.Timer
	ping        [8]byte // the PING that waits for its answer, if pinged
	pinged      bool
	pingTimer   *time.Timer

	out      []byte
	outBuf   *[]byte // out's from the pool
	written  int
	writeErr error
	writing  bool // a goroutine writes
}

// ServeConn answers calls on a connection until it ends, and closes it. It returns why, nil if nothing was wrong.
func (s *Server) ServeConn(sock Socket, peer Peer) error {
	c := &conn{srv: s, peer: peer, sock: sock, recvWindow: connWindow, sendWindow: 65535, firstWindow: 65535,
		limit: math.MaxInt32}
	c.taken = sync.NewCond(&c.mu)
	defer c.close()
	var err error
	if c.raw, err = sock.SyscallConn(); err != nil {
		return err
	}
	c.tryRead, c.tryWrite = c.attemptRead, c.attemptWrite
	if err := sock.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return err
	}
	if err := c.readPreface(); err != nil {
		return err
	}
	c.dec = hpack.NewDecoder(tableSize, c.field)
	c.dec.SetMaxStringLength(maxHeaderList)
	c.streams = make(map[uint32]*Stream)
	draining := s.add(c)
	defer s.remove(c)
	c.do(func() {
		c.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
		c.frame32(http2.FrameWindowUpdate, 0, connWindow-65535)
		c.age = time.AfterFunc(s.Age+time.Duration(rand.Int64N(int64(s.Age/10)+1)), func() { c.do(c.growOld) })
		if draining {
			c.drain()
		}
	})
	return c.run()
}

// run reads frames until the connection ends. An error in them is told to the peer.
func (c *conn) run() error {
	for {
		err := c.readFrame()
		var bad http2.ConnectionError
		var reset http2.StreamError
		switch {
		case err == nil:
			continue
		case errors.As(err, &reset):
			c.do(func() { c.refuse(reset) })
			continue
		case errors.As(err, &bad) || errors.Is(err, http2.ErrFrameTooLarge):
			if errors.Is(err, http2.ErrFrameTooLarge) {
				bad = http2.ConnectionError(http2.ErrCodeFrameSize)
			}
			text := err.Error()
			if b := c.bench; b != nil && b.fr.ErrorDetail() != nil {
				text = b.fr.ErrorDetail().Error()
			}
			c.do(func() { c.goAway(c.last, http2.ErrCode(bad), "shared-altsd: "+text) })
			return fmt.Errorf("the peer speaks HTTP/2 badly: %s", text)
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
			return nil
		}
		return err
	}
}

// A connError is what is wrong with a frame, for the peer's GOAWAY.
type connError struct {
	http2.ConnectionError
	text string
}

func (e connError) Error() string { return e.text }

func (e connError) Unwrap() error { return e.ConnectionError }

func bad(code http2.ErrCode, text string) error { return connError{http2.ConnectionError(code), text} }

// readFrame reads and answers one frame. When all that came was answered, the answers are written first.
func (c *conn) readFrame() error {
	if b := c.bench; b == nil || b.r == b.w {
		c.do(c.leave)
		if err := c.fill(); err != nil {
			return err
		}
	}
	fr := c.bench.fr
	fh, err := fr.ReadFrameHeader()
	if err != nil {
		return err
	}
	n := units(fh)
	if fh.Type == http2.FrameSettings && fh.Length > 0 {
		n += c.openStreams() / 4 // each gets another window, and may send by it
	}
	if !c.peer.Meter.TryCharge(n) {
		c.do(func() {}) // what was answered does not wait
		if err := c.peer.Meter.Charge(c.peer.Context, n); err != nil {
			return err
		}
		if !c.settled { // the wait was not the client's
			_ = c.sock.SetDeadline(time.Now().Add(prefaceTimeout))
		}
	}
	f, err := fr.ReadFrameForHeader(fh)
	if _, ok := err.(http2.StreamError); ok && fh.Type == http2.FrameHeaders {
		err = bad(http2.ErrCodeProtocol, "headers that cannot be read") // without them, later ones could not be decoded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.writing || len(c.out) >= maxOut) && !c.closed { // a peer that does not read is not read
		if c.flush(); c.writing {
			c.taken.Wait()
		}
	}
	switch {
	case c.closed:
		return net.ErrClosed
	case err != nil:
		return err
	}
	return c.handle(f)
}

// units returns the cost of a frame in microseconds, about: 1 for each and for 256 bytes of it, 10 more for a new stream,
// and for DATA, which may be a request, and 1 for 8 bytes of it, since it may be many, or for 32 bytes of headers, each
// of which may be a field. What a request asks for is not in it.
func units(fh http2.FrameHeader) int {
	n := 1 + int(fh.Length)/256
	switch {
	case fh.Type == http2.FrameHeaders:
		n += 10 + int(fh.Length)/32
	case fh.Type == http2.FrameContinuation:
		n += int(fh.Length) / 32
	case fh.Type == http2.FrameData && fh.Length > 0:
		n += 10 + int(fh.Length)/8
	}
	return n
}

func (c *conn) openStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// credit gives back n bytes of the connection's window.
func (c *conn) credit(n int) {
	if c.owed += n; c.owed >= connWindow/4 {
		c.frame32(http2.FrameWindowUpdate, 0, uint32(c.owed))
		c.recvWindow += c.owed
		c.owed = 0
	}
}

// hold counts bytes that requests or answers take up, or no more do.
func (c *conn) hold(n int) bool {
	if n == 0 {
		return true
	}
	if n > 0 && c.held+n > maxHeld || !c.peer.Account.Hold(n) {
		return false
	}
	c.held += n
	return true
}

// drop forgets a stream. A connection that is ending ends with its last.
func (c *conn) drop(st *Stream) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	if st.working > 0 {
		c.working++
	} else {
		c.peer.Account.Leave()
	}
	c.endIfDone()
}

func (c *conn) endIfDone() {
	if c.ending && len(c.streams) == 0 && c.limit < math.MaxInt32 {
		if c.flush(); !c.writing {
			c.shut()
		}
	}
}

// do runs f under the lock, and writes what it brings.
func (c *conn) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		f()
		c.flush()
	}
}

// drain ends the connection because the server stops.
func (c *conn) drain() {
	c.draining = true
	for _, st := range c.streams {
		st.call.Drain()
	}
	c.goAwayGently()
}

// growOld ends the connection because of its age; streams have a while to finish. A Call that has a method GrowOld is told.
func (c *conn) growOld() {
	for _, st := range c.streams {
		if call, ok := st.call.(interface{ GrowOld() }); ok {
			call.GrowOld()
		}
	}
	c.goAwayGently()
	c.age = time.AfterFunc(c.srv.Grace, func() { c.do(c.shut) })
}

// goAwayGently asks the client for no more streams. Those that it opens before it reads that are taken still.
func (c *conn) goAwayGently() {
	if c.ending {
		return
	}
	c.ending = true
	c.goAway(math.MaxInt32, http2.ErrCodeNo, "")
	copy(c.frame(http2.FramePing, 0, 0, len(goAwayPing)), goAwayPing[:])
	time.AfterFunc(goAwayWait, func() { c.do(c.lastCall) })
}

// goAwayPing is what a client that answers has read that the connection ends.
var goAwayPing = [8]byte{'g', 'o', ' ', 'a', 'w', 'a', 'y', '.'}

// lastCall takes no streams any more.
func (c *conn) lastCall() {
	if c.limit == math.MaxInt32 {
		c.limit = c.last
		c.goAway(c.last, http2.ErrCodeNo, "")
		c.endIfDone()
	}
}

// shut closes the socket; the reading goroutine then ends the connection.
func (c *conn) shut() {
	c.closed = true
	c.taken.Broadcast()
	_ = c.sock.Close()
}

// close ends all streams.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.flush()
	}
	c.shut()
	if c.age != nil {
		c.age.Stop()
	}
	if c.pingTimer != nil {
		c.pingTimer.Stop()
	}
	for _, st := range c.streams {
		st.abort()
	}
	if !c.writing {
		c.dropOut()
	}
	if b := c.bench; b != nil {
		clear(b.buf[:]) // it is not given back: its framer may be in the middle of something
		c.bench = nil
	}
}
