package localgrpc

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxMessage = 128 << 10 // bytes of a request
	prefixSize = 5         // before a message: whether it is compressed, its length

	streamWindow = maxMessage + 32<<10 // for a whole message and the beginning of the next
)

// A Stream is one call. Its methods are to be called under the connection's lock: in those of Call, or in Do.
type Stream struct {
	c  *conn
	id uint32

	// UserAgent is the client's.
	UserAgent string
	deadline  time.Time // zero: none

	call    Call
	cancel  context.CancelFunc // of a generated service's call, nil until it began
	timer   *time.Timer        // of the deadline, then of the answer
	held    int                // bytes counted by hold
	started bool               // the response's headers were sent
	over    bool               // the call is; final is what is left to send
	final   []byte             // trailers' header block
	ended   bool               // End was called
	working int                // functions of Go's that run

	recvClosed bool
	recvWindow int
	owed       int    // bytes of the window to give back
	in         []byte // what came; up to off it was taken
	off        int
	taken      int  // bytes of the request that is being answered
	asked      bool // there is one

	sendWindow int64
	out        []byte // what no window has room for
	queued     bool   // is in conn.blocked
}

// Do runs f under the connection's lock, also when the call is over, and sends what it brings.
func (st *Stream) Do(f func()) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	f()
	if !st.c.closed {
		st.proceed() // to the request that came while the one before was worked on
		st.c.flush()
	}
}

// Go runs f beside the connection. The stream counts as one until f has returned, even if the call is over before.
func (st *Stream) Go(f func()) {
	st.working++
	go func() {
		f()
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		if st.working--; st.working == 0 && st.c.streams[st.id] != st {
			st.c.working--
			st.c.peer.Account.Leave()
		}
	}()
}

// PeerContext returns the Context of the connection's Peer.
func (st *Stream) PeerContext() context.Context { return st.c.peer.Context }

// Context returns a context of the connection's peer with the client's deadline.
func (st *Stream) Context() (context.Context, context.CancelFunc) {
	if st.deadline.IsZero() {
		return context.WithCancel(st.c.peer.Context)
	}
	return context.WithDeadline(st.c.peer.Context, st.deadline)
}

// Hold counts n bytes that the call holds until it is over, and reports whether it may.
func (st *Stream) Hold(n int) bool {
	if !st.c.hold(n) {
		return false
	}
	st.held += n
	return true
}

func (st *Stream) letGo(n int) {
	st.held -= n
	st.c.hold(-n)
}

// receive takes what a DATA frame brought, of n bytes with its padding.
func (st *Stream) receive(data []byte, n int, last bool) {
	st.credit(n - len(data))
	st.recvClosed = last
	if st.over {
		st.credit(len(data))
	} else if size, ok := whole(data); ok && len(st.in) == 0 && len(st.out) == 0 && !st.asked {
		st.ask(data[prefixSize:size])
		st.store(data[size:])
	} else {
		st.store(data)
	}
	st.proceed()
}

// whole returns the size of the first message in b, and whether it is there and can be taken.
func whole(b []byte) (size int, ok bool) {
	if len(b) < prefixSize {
		return 0, false
	}
	n := binary.BigEndian.Uint32(b[1:])
	size = prefixSize + int(min(n, maxMessage))
	return size, b[0] == 0 && n <= maxMessage && len(b) >= size
}

// store keeps what cannot be taken yet.
func (st *Stream) store(data []byte) {
	if len(data) == 0 || st.over {
		st.credit(len(data))
		return
	}
	if !st.Hold(len(data)) {
		st.credit(len(data))
		st.fail(errTooMuch)
		return
	}
	st.in = append(st.in, data...)
}

// proceed takes the next request if the one before was answered and the answer has left, and sees the last one.
func (st *Stream) proceed() {
	for !st.over && !st.asked {
		in := st.in[st.off:]
		if s := checkPrefix(in); s != nil {
			st.fail(s)
			return
		}
		size, ok := whole(in)
		switch {
		case ok && len(st.out) == 0:
			if st.off += size; st.off > len(st.in)/2 { // so that taking many small ones costs no more than their bytes
				st.in, st.off = append([]byte(nil), in[size:]...), 0
			}
			st.letGo(size)
			st.ask(in[prefixSize:size])
			continue
		case ok || !st.recvClosed || st.ended:
		case len(in) > 0:
			st.fail(status.New(codes.Internal, "shared-altsd: the request ends in the middle of a message"))
		default:
			st.end(io.EOF)
		}
		return
	}
}

// checkPrefix returns what is wrong with the message that begins in b, by its prefix.
func checkPrefix(b []byte) *status.Status {
	if len(b) < prefixSize {
		return nil
	}
	if b[0] != 0 {
		return status.New(codes.Internal, "shared-altsd: a compressed message without grpc-encoding")
	}
	if n := binary.BigEndian.Uint32(b[1:]); n > maxMessage {
		return status.Newf(codes.ResourceExhausted, "shared-altsd: received message larger than max (%d vs. %d)",
			n, maxMessage)
	}
	return nil
}

// ask hands a request to the call. Its bytes of the windows are given back when it is answered, so that requests that
// wait are bounded by the windows.
func (st *Stream) ask(msg []byte) {
	st.asked, st.taken = true, prefixSize+len(msg)
	if !st.Hold(st.taken) {
		st.taken = 0
		st.credit(prefixSize + len(msg))
		st.fail(errTooMuch)
		return
	}
	st.call.Message(msg)
}

// answered gives back what the request took.
func (st *Stream) answered() {
	if st.asked {
		st.letGo(st.taken)
		st.credit(st.taken)
		st.asked, st.taken = false, 0
	}
}

// credit gives back n bytes of the windows: the stream's only while more is to come on it.
func (st *Stream) credit(n int) {
	st.c.credit(n)
	if st.recvClosed || st.over {
		return
	}
	if st.owed += n; st.owed >= streamWindow/4 {
		st.c.frame32(http2.FrameWindowUpdate, st.id, uint32(st.owed))
		st.recvWindow += st.owed
		st.owed = 0
	}
}

// Finish ends the call with the status of err; nil: OK.
func (st *Stream) Finish(err error) {
	if st.over {
		return
	}
	st.final = trailers(!st.started, err)
	st.over = true
	st.release()
	if len(st.out) == 0 {
		st.remove()
		return
	}
	st.setTimer(answerTimeout, func() { // the client takes no answer, so it gets the end alone
		clear(st.out)
		st.out = nil
		st.remove()
	})
}

// Retry ends the call so that the client makes it anew on another connection: nothing of it was worked on (RFC 9113, section 8.7).
// It reports whether that can be said still, which is not so once an answer has begun.
func (st *Stream) Retry() bool {
	if st.over || st.started || st.c.closed {
		return false
	}
	st.c.goAwayGently() // before, so that the client does not come back by this one
	st.over = true
	st.c.reset(st.id, http2.ErrCodeRefusedStream)
	st.forget()
	return true
}

// release lets go of what the call needs no more, though its answer may wait.
func (st *Stream) release() {
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
	if st.cancel != nil {
		st.cancel()
	}
	st.c.credit(len(st.in) - st.off + st.taken)
	st.in, st.off, st.asked, st.taken = nil, 0, false, 0
	st.call = noCall{}
	st.c.hold(-(st.held - len(st.out)))
	st.held = len(st.out)
}

// remove sends the end of a call that is over, and forgets the stream. What still comes on it is dropped.
func (st *Stream) remove() {
	p := st.c.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, st.id, len(st.final))
	copy(p, st.final)
	if !st.recvClosed {
		st.c.reset(st.id, http2.ErrCodeNo)
	}
	st.forget()
}

// forget drops the stream and all that it holds.
func (st *Stream) forget() {
	st.over = true
	st.release()
	clear(st.out)
	st.out = nil
	st.c.hold(-st.held)
	st.held = 0
	st.c.drop(st)
}

// fail tells the call that no request comes, and ends it with s unless the call ends otherwise.
func (st *Stream) fail(s *status.Status) {
	err := s.Err()
	if s == errDeadline {
		err = context.DeadlineExceeded
	}
	st.end(err)
	st.Finish(s.Err())
}

func (st *Stream) end(err error) {
	st.ended = true
	st.call.End(err)
}

// abort ends the call because the client, or the connection, did; nothing more is sent on it.
func (st *Stream) abort() {
	if !st.over {
		st.over = true // what End sends goes nowhere
		st.call.End(context.Canceled)
	}
	st.forget()
}

// setTimer runs f after d, instead of what was to run before.
func (st *Stream) setTimer(d time.Duration, f func()) {
	var t *time.Timer
	if st.timer != nil {
		st.timer.Stop()
	}
	t = time.AfterFunc(d, func() {
		st.Do(func() {
			if st.timer == t {
				f()
			}
		})
	})
	st.timer = t
}

var errTooMuch = status.New(codes.ResourceExhausted,
	"shared-altsd: the account's calls hold too much memory; end some (overloaded)")

type noCall struct{}

func (noCall) Message([]byte) {}
func (noCall) End(error)      {}
func (noCall) Drain()         {}
