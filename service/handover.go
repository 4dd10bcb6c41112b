package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// The second local interface: an application hands over its connected socket, the daemon does the whole handshake on it
// and answers once (package handed has the format). Sessions, and so accounts, limits, checks and logs, are those of
// the gRPC interface; only who carries the peer's bytes differs.

const (
	answerTimeout = 5 * time.Second // for an application to take an answer
	firstRead     = 8               // bytes of a frame's header: what is read before there is a handshake to ask
)

// handoverAge is how long a connection takes requests; a variable for tests.
var handoverAge = connectionAge

// A taker serves a connection by which sockets are handed over, with the one goroutine of the connection. What comes from
// elsewhere in the middle of a handshake interrupts the wait for the peer.
type taker struct {
	srv    *Server
	c      *conn
	caller Caller
	ctx    context.Context // done when the connection ends, is far too old, or the daemon waits no longer
	sock   atomic.Pointer[handed.Socket]
	away   atomic.Bool // the place of the handshake under way has to be given up
}

// takeOver serves a connection that begins with handed.Hello, until it ends, is too old, or the daemon stops.
func (s *Server) takeOver(c *conn, caller Caller) {
	defer c.Close()
	hello := make([]byte, len(handed.Hello))
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != handed.Hello {
		return
	}
	if !s.handoverConns.enter(caller.share) {
		return // which makes an application use gRPC
	}
	defer s.handoverConns.leave(caller.share) // at last: see below
	s.takeDescriptors(c, true)
	_ = c.UnixConn.SetDeadline(time.Time{}) // gRPC's, for the preface
	if _, err := c.Write(hello); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.stopped, handoverAge+connectionGrace)
	defer cancel()
	t := &taker{srv: s, c: c, caller: caller, ctx: ctx}
	defer context.AfterFunc(ctx, t.interrupt)()
	reading, done := context.WithTimeout(s.draining, handoverAge)
	defer done()
	// Before it counts no longer: a descriptor that the giver makes linger or keeps locked, and that nobody has taken, may hold
	// the thread that closes it for as long as he likes.
	defer c.Close()
	// When the daemon stops, or the connection is too old, what was written before is still read and answered; what would
	// come after fails to be written.
	defer context.AfterFunc(reading, func() {
		_ = c.CloseRead()
		t.interrupt()
	})()
	// Also in the middle of a handshake, the application's end closing aborts it; our own reading end closing does not.
	unwatch, err := s.poller.Watch(c.UnixConn, func(closed bool) {
		if closed || reading.Err() == nil {
			cancel()
		}
	})
	if err != nil {
		s.log.Warn("a connection by which sockets are handed over cannot be watched", "error", err)
		return
	}
	defer unwatch()
	for ctx.Err() == nil {
		message, fd, err := handed.ReadRequest(c.UnixConn, prefaceTimeout)
		if err != nil || t.serve(message, fd) != nil {
			return
		}
	}
}

// interrupt has the handshake under way look whether it is over.
func (t *taker) interrupt() {
	if sock := t.sock.Load(); sock != nil {
		sock.Interrupt()
	}
}

// takeDescriptors lets a connection, or those that a listener will accept, be sent descriptors or not, where the kernel
// can.
func (s *Server) takeDescriptors(c syscall.Conn, on bool) {
	if err := handed.TakeDescriptors(c, on); err != nil {
		s.log.Debug("the kernel cannot keep descriptors from connections that have no use for them", "error", err)
	}
}

// serve does the handshake of one request, of which message is the start request, encoded, and closes fd, its descriptor.
// An error is the answer's, and the connection's end.
func (t *taker) serve(message []byte, fd int) error {
	s := t.srv
	if err := s.budget.Charge(t.ctx, t.caller.share, costHandover+len(message)/8); err != nil { // as for DATA
		_ = unix.Close(fd)
		return err
	}
	t.away.Store(false)
	h := s.newSession(t.caller, t.interrupt, func() {
		t.away.Store(true)
		go t.interrupt() // it may close the socket, and this is called under the gate's lock
	})
	h.carried, h.again, h.watches = true, true, true
	defer h.end(cancelled())
	var answer altspb.Answer
	var err error
	if answer.Result, answer.Standing, err = t.carry(h, message, fd); err != nil {
		f := h.end(asFailure(err))
		if s.stopped.Err() != nil {
			return err // Shutdown closes the connection; shutting_down in an answer means that nothing was begun
		}
		answer.Refusal = f.refusal(h.id)
		answer.Refusal.Code, answer.Refusal.Text = uint32(f.rpc), f.message(h.id)
	} else {
		answer.HandshakeId = h.hs.ID()
	}
	_ = t.c.SetWriteDeadline(time.Now().Add(answerTimeout))
	err = handed.WriteAnswer(t.c.UnixConn, &answer)
	clear(answer.GetResult().GetKeyData())
	if err == nil && answer.Result != nil {
		h.end(nil)
		s.makeKeys() // now that the answer is written
	}
	return err
}

// decode decodes a start request, and counts what it takes up: held bytes, to be given back. One at a time does so, as
// far as processors go, so that nobody holds many that are not counted yet.
func (s *Server) decode(of share, message []byte) (req *altspb.HandshakerReq, held int, err error) {
	req = new(altspb.HandshakerReq)
	s.turns.Do(of, func() {
		if err = proto.Unmarshal(message, req); err != nil {
			err = badRequest("the request is no HandshakerReq: %v", err)
			return
		}
		if held = memoryOf(message, req); !s.heldBytes.add(of, held) {
			err = tooMuchMemory(of)
		}
	})
	if err != nil {
		return nil, 0, err
	}
	return req, held, nil
}

// carry is the application's part of a handshake, done by the daemon: bytes between the socket and the session.
func (t *taker) carry(h *session, message []byte, fd int) (*altspb.HandshakerResult, *altspb.Standing, error) {
	sock, err := t.srv.poller.Adopt(fd)
	switch {
	case errors.Is(err, handed.ErrNotTCP):
		return nil, nil, badRequest("the descriptor is %v; hand over the application's connection to its peer", err)
	case err != nil:
		return nil, nil, fmt.Errorf("the daemon cannot wait for the connection to the peer: %w", err)
	}
	defer sock.Close()
	t.sock.Store(sock)
	defer t.sock.Store(nil)
	// The kernel knows the addresses better than the application, which has no reason to tell them.
	h.ends = endpoints{sock.Local(), sock.Peer()}
	req, held, err := t.srv.decode(h.share, message)
	if err != nil {
		return nil, nil, err
	}
	defer t.srv.heldBytes.add(h.share, -held)
	if req.GetClientStart() == nil && req.GetServerStart() == nil {
		return nil, nil, badRequest("a request that is neither client_start nor server_start")
	}
	var buf []byte
	for {
		resp, err := h.step(t.ctx, req)
		if err != nil {
			return nil, nil, err
		}
		if int(resp.GetBytesConsumed()) != len(inBytes(req)) {
			return nil, nil, badRequest("in_bytes go beyond the handshake's end; hand over what was not read yet instead")
		}
		if err := t.write(h, sock, resp.GetOutFrames()); err != nil {
			clear(resp.GetResult().GetKeyData())
			return nil, nil, h.lost(err)
		}
		if resp.GetResult() != nil {
			if h.outdated() { // since the step, by as long as the connection had no room
				if err := h.answering(t.ctx, h.permitAgain); err != nil {
					clear(resp.Result.GetKeyData())
					return nil, nil, err
				}
			}
			return resp.GetResult(), resp.GetStanding(), nil
		}
		var n int
		if h.state != refused { // else there is nothing to wait for: the next step tells why
			want := firstRead
			if h.hs != nil {
				want = h.hs.Want()
			}
			if want > len(buf) {
				buf = make([]byte, want)
			}
			if n, err = t.await(h, sock.Read, buf[:want]); err != nil && err != io.EOF {
				err = h.lost(err)
				_, _ = sock.Offer(h.frame) // nil if there is nothing to tell the peer
				return nil, nil, err
			}
		}
		req = &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{
			Next: &altspb.NextHandshakeMessageReq{InBytes: buf[:n]},
		}}
	}
}

// write sends what a step has for the peer: as far as there is room for it, whatever has happened since, for the step is
// done, and what it says is so.
func (t *taker) write(h *session, sock *handed.Socket, b []byte) error {
	n, err := sock.Offer(b)
	if err == nil && n < len(b) {
		_, err = t.await(h, sock.Write, b[n:])
	}
	return err
}

// await calls do, which is the socket's Read or Write, for b, until it is done, or until the session is over.
func (t *taker) await(h *session, do func([]byte) (int, error), b []byte) (n int, err error) {
	for {
		// Whatever ends the session does so first and interrupts then.
		if f := t.over(h); f != nil {
			return n, f
		}
		m, err := do(b[n:])
		if n += m; !errors.Is(err, handed.ErrInterrupted) {
			return n, err
		}
	}
}

// over ends the session, and says so, if its time is over, its place has to be given up, the daemon stops and nothing is
// under way yet, or the connection has ended.
func (t *taker) over(h *session) error {
	switch {
	case h.due():
		return h.expire()
	case t.away.Load() && h.holds == aPlace:
		return h.giveWay()
	}
	if t.srv.draining.Err() != nil && !h.ending {
		if f := h.drain(); f != nil {
			return f
		}
	}
	if t.ctx.Err() != nil {
		return h.end(t.srv.gone(t.ctx.Err()))
	}
	return nil
}

// lost returns what a failed read or write means: the session's end as it is, an error of the socket as the peer's end.
func (h *session) lost(err error) error {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, handed.ErrTaken):
		return badRequest("%v in the middle of the handshake; leave it alone until it is answered", err)
	}
	return h.end(peerClosed("the connection to the peer broke in the middle of the handshake: " + err.Error()))
}
