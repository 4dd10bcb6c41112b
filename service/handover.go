package service

import (
	"context"
	"errors"
	"io"
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
	reading, done := context.WithTimeout(s.draining, handoverAge)
	defer done()
	requests := s.receiveHandovers(ctx, cancel, reading, c)
	// What closes a descriptor that the giver makes linger or keeps locked, one that was read or one that nobody has taken,
	// may hold a thread for as long as he likes: the connection counts until all are closed.
	defer func() {
		cancel()
		c.Close()
		for r := range requests {
			_ = unix.Close(r.fd)
		}
	}()
	// When the daemon stops, or the connection is too old, what was written before is still read and answered; what would
	// come after fails to be written.
	defer context.AfterFunc(reading, func() { _ = c.CloseRead() })()
	for r := range requests {
		if err := s.serveHandover(ctx, c, caller, r); err != nil {
			return
		}
	}
}

// takeDescriptors lets a connection, or those that a listener will accept, be sent descriptors or not, where the kernel
// can.
func (s *Server) takeDescriptors(c syscall.Conn, on bool) {
	if err := handed.TakeDescriptors(c, on); err != nil {
		s.log.Debug("the kernel cannot keep descriptors from connections that have no use for them", "error", err)
	}
}

// A handover is one request: the start request, encoded, and the descriptor, which whoever receives it closes.
type handover struct {
	message []byte
	fd      int
}

// receiveHandovers reads requests until ctx is done. It cancels ctx when the connection ends or breaks the format, also
// in the middle of a handshake: the application's end closing aborts it. That the daemon itself has stopped reading,
// because reading is done, aborts nothing.
func (s *Server) receiveHandovers(ctx context.Context, cancel context.CancelFunc, reading context.Context,
	c *conn) <-chan handover {
	requests := make(chan handover)
	go func() {
		defer close(requests)
		for {
			var r handover
			var err error
			if r.message, r.fd, err = handed.ReadRequest(c.UnixConn, prefaceTimeout); err != nil {
				if err != io.EOF || reading.Err() == nil {
					cancel()
				}
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				_ = unix.Close(r.fd)
				return
			}
		}
	}()
	return requests
}

// serveHandover does the handshake of one request and answers it. An error is the answer's, and the connection's end.
func (s *Server) serveHandover(ctx context.Context, c *conn, caller Caller, r handover) error {
	if err := s.budget.Charge(ctx, caller.share, costHandover+len(r.message)/8); err != nil { // as for DATA
		_ = unix.Close(r.fd)
		return err
	}
	h := s.newSession(caller, nil)
	h.again = true
	defer h.end(cancelled())
	var answer altspb.Answer
	var err error
	if answer.Result, err = s.carry(ctx, h, r); err != nil {
		f := h.end(asFailure(err))
		if s.stopped.Err() != nil {
			return err // Shutdown closes the connection; shutting_down in an answer means that nothing was begun
		}
		answer.Refusal = f.refusal(h.id)
		answer.Refusal.Code, answer.Refusal.Text = uint32(f.rpc), f.message(h.id)
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	err = handed.WriteAnswer(c.UnixConn, &answer)
	clear(answer.GetResult().GetKeyData())
	if err == nil && answer.Result != nil {
		h.end(nil)
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
func (s *Server) carry(ctx context.Context, h *session, r handover) (*altspb.HandshakerResult, error) {
	sock, err := s.poller.Adopt(r.fd)
	if err != nil {
		return nil, badRequest("the descriptor is %v; hand over the application's connection to its peer", err)
	}
	defer sock.Close()
	h.from = sock.Peer().Addr()
	req, held, err := s.decode(h.share, r.message)
	if err != nil {
		return nil, err
	}
	defer s.heldBytes.add(h.share, -held)
	// The kernel knows the peer's address better than the application, which has no reason to tell it.
	remote := &altspb.Endpoint{IpAddress: sock.Peer().Addr().WithZone("").String(), Port: int32(sock.Peer().Port()),
		Protocol: altspb.NetworkProtocol_TCP}
	switch r := req.GetReqOneof().(type) {
	case *altspb.HandshakerReq_ClientStart:
		if r.ClientStart != nil {
			r.ClientStart.RemoteEndpoint = remote
		}
	case *altspb.HandshakerReq_ServerStart:
		if r.ServerStart != nil {
			r.ServerStart.RemoteEndpoint = remote
		}
	default:
		return nil, badRequest("a request that is neither client_start nor server_start")
	}
	wait := func(ready <-chan struct{}) error {
		_, err := await(ctx, h, ready)
		return err
	}
	var buf []byte
	for {
		resp, err := h.step(ctx, req)
		if err != nil {
			return nil, err
		}
		if int(resp.GetBytesConsumed()) != len(inBytes(req)) {
			return nil, badRequest("in_bytes go beyond the handshake's end; hand over what was not read yet instead")
		}
		if len(resp.GetOutFrames()) > 0 {
			if err := sock.Write(resp.GetOutFrames(), wait); err != nil {
				return nil, h.lost(err)
			}
		}
		if resp.GetResult() != nil {
			return resp.GetResult(), nil
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
			if n, err = sock.Read(buf[:want], wait); err != nil && err != io.EOF {
				err = h.lost(err)
				_ = sock.Write(h.frame, noWait) // nil if there is nothing to tell the peer
				return nil, err
			}
		}
		req = &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{
			Next: &altspb.NextHandshakeMessageReq{InBytes: buf[:n]},
		}}
	}
}

// noWait has the socket take what it can at once.
func noWait(<-chan struct{}) error { return errors.New("the socket has no room") }

// lost returns what a failed read or write means: the session's end as it is, an error of the socket as the peer's end.
func (h *session) lost(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return h.end(peerClosed("the connection to the peer broke in the middle of the handshake: " + err.Error()))
}
