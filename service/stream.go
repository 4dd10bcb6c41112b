package service

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A stream is one call of DoHandshake, whatever server carries it. Both methods wait until they are done or the call is over.
type stream interface {
	receive(*altspb.HandshakerReq) error // io.EOF after the last
	send(*altspb.HandshakerResp) error
}

// serveStream does one handshake by a stream, of a library of the given kind. The error that it returns is the status that
// ends the call. Requests are read by a goroutine of their own, so that timers and the daemon's stop end it at once.
func (s *Server) serveStream(ctx context.Context, caller Caller, kind clientKind, st stream) error {
	h := s.newSession(caller)
	defer h.close()
	if caller.refusal != nil || !h.counted {
		// It will be refused, but its first request is waited for: some libraries show only an answer to one.
		h.setTimer(lingerTime)
	}
	more := make(chan struct{}, 1)
	requests := receive(ctx, st, more)
	sent := 0 // bytes
	for {
		resp, req, final, err := s.next(ctx, h, requests)
		if err == nil {
			sent += 5 + proto.Size(resp) // with the prefix of a message
			err = h.send(st, resp, sent > sendsFree)
			if late := (*failure)(nil); errors.As(err, &late) {
				_, err = kind.deliver(late, h.id, nil)
				return err
			}
			clear(resp.GetResult().GetKeyData())
			if err != nil {
				h.abort(cancelled())
				return err
			}
			if final {
				h.succeed()
				return nil
			}
			more <- struct{}{}
			continue
		}
		resp, err = kind.deliver(asFailure(err), h.id, req)
		if resp != nil {
			if err := st.send(resp); err != nil {
				return err
			}
		}
		return err
	}
}

// sendsFree is how many bytes of responses the server takes on a stream whose client reads none, less a margin for
// the last one (64 KiB in all); then send waits for the client.
const sendsFree = 48 << 10

// send sends a response, which is encoded at once. If that may block, the session's timer ends it with a *failure: an
// application that asks and does not read must not keep its place among the handshakes.
func (h *session) send(st stream, resp *altspb.HandshakerResp, mayBlock bool) error {
	if !mayBlock {
		return st.send(resp)
	}
	done := make(chan error, 1)
	go func() { done <- st.send(resp) }() // the end of the stream ends it
	select {
	case err := <-done:
		return err
	case <-h.expired():
		return h.expire()
	}
}

type received struct {
	req *altspb.HandshakerReq
	err error
}

// receive reads requests, each only when more says that the one before was answered: a request may be large, and an
// application has no reason to send two.
func receive(ctx context.Context, st stream, more <-chan struct{}) <-chan received {
	ch := make(chan received)
	go func() {
		for {
			r := received{req: new(altspb.HandshakerReq)}
			r.err = st.receive(r.req)
			select {
			case ch <- r:
			case <-ctx.Done():
				return
			}
			if r.err != nil {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch
}

// next waits for whatever comes first and gives the response to it; req is the request that is still unanswered.
func (s *Server) next(ctx context.Context, h *session, requests <-chan received) (
	resp *altspb.HandshakerResp, req *altspb.HandshakerReq, final bool, err error) {
	stop := s.draining.Done()
	if h.inFlight() {
		stop = nil
	}
	select {
	case r := <-requests:
		switch {
		case r.err == nil:
			resp, final, err = h.step(ctx, r.req)
			return resp, r.req, final, err
		case errors.Is(r.err, io.EOF) || ctx.Err() != nil:
			return nil, nil, true, h.abort(s.gone(ctx))
		default: // too large, or no protobuf: grpc's own text says which
			return nil, nil, true, h.abort(badRequest("the request could not be read: %v", r.err))
		}
	case <-h.expired():
		if h.state == idle {
			return nil, nil, true, h.abort(asFailure(h.overload()))
		}
		return nil, nil, true, h.expire()
	case <-stop:
		return nil, nil, true, h.abort(asFailure(errStopping))
	case <-ctx.Done():
		return nil, nil, true, h.abort(s.gone(ctx))
	}
}

func (s *Server) gone(ctx context.Context) *failure {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		f := asFailure(reason.Errorf(reason.TimedOut, "the application's own deadline for the handshake passed"))
		f.end = true
		return f
	}
	return cancelled()
}
