package service

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// A stream is one call of DoHandshake, whatever server carries it. Its methods wait until they are done or the call is
// over.
type stream interface {
	receive(*altspb.HandshakerReq) error // io.EOF after the last
	send(*altspb.HandshakerResp) error
}

// serveStream does one handshake by a stream, of a library of the given kind. The error that it returns is the status
// that ends the call. Requests are read by a goroutine of their own, so that timers and the daemon's stop end it at
// once.
func (s *Server) serveStream(ctx context.Context, caller Caller, kind clientKind, st stream) error {
	h := s.newSession(caller)
	h.impatient = kind.blocks()
	defer h.end(cancelled())
	more := make(chan struct{}, 1)
	requests := receive(ctx, st, more)
	sent := 0 // bytes
	for {
		req, err := h.nextRequest(ctx, requests)
		var resp *altspb.HandshakerResp
		if err == nil {
			resp, err = h.step(ctx, req)
		}
		if err != nil {
			resp, err = kind.deliver(asFailure(err), h.id, req)
			if resp != nil {
				if err := st.send(resp); err != nil {
					return err
				}
			}
			return err
		}
		sent += 5 + proto.Size(resp) // with the prefix of a message
		late := (*failure)(nil)
		switch err := h.send(ctx, st, resp, sent > sendsFree); {
		case errors.As(err, &late):
			_, err = kind.deliver(late, h.id, nil)
			return err
		case err != nil:
			return err
		case resp.GetResult() != nil:
			h.end(nil)
			return nil
		}
		more <- struct{}{}
	}
}

// sendsFree is how many bytes of responses the server takes on a stream whose client reads none, less a margin for
// the last one (64 KiB in all); then send waits for the client.
const sendsFree = 48 << 10

// send sends a response, which is encoded at once, and wipes the key in it. If that may block, what ends the session
// ends the sending, too: an application that asks and does not read must not keep its place among the handshakes.
func (h *session) send(ctx context.Context, st stream, resp *altspb.HandshakerResp, mayBlock bool) error {
	send := func() error {
		defer clear(resp.GetResult().GetKeyData())
		return st.send(resp)
	}
	if !mayBlock {
		return send()
	}
	done := make(chan error, 1)
	go func() { done <- send() }() // the end of the call ends it
	err, ended := await(ctx, h, done)
	if ended != nil {
		return ended
	}
	return err
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

// nextRequest waits for the next request. An error is the session's end.
func (h *session) nextRequest(ctx context.Context, requests <-chan received) (*altspb.HandshakerReq, error) {
	r, err := await(ctx, h, requests)
	if err != nil && h.state == refused { // the answer to a request that still comes tells the peer
		r, err = await(ctx, h, requests)
	}
	switch {
	case err != nil:
		return nil, err
	case r.err == nil:
		return r.req, nil
	case errors.Is(r.err, io.EOF) || ctx.Err() != nil:
		return nil, h.end(h.srv.gone(ctx))
	}
	return nil, h.end(badRequest("the request could not be read: %v", r.err)) // too large, or no protobuf
}
