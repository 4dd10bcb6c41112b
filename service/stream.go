package service

import (
	"context"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localgrpc"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A handshakeCall is one call of DoHandshake, and drives its session: by requests as they come, by the session's timer,
// by others' need of its place, by the daemon's stop, and by the end of the call. All of its methods run under the lock
// of the stream's connection, and do not wait; a step that has to wait is made by a goroutine of its own.
type handshakeCall struct {
	st     *localgrpc.Stream
	h      *session
	kind   clientKind
	cancel context.CancelFunc // of a step that waits; nil if none does
	later  []func() *failure  // what came from outside while a step waits
}

func (s *Server) newCall(caller Caller, st *localgrpc.Stream) *handshakeCall {
	c := &handshakeCall{st: st, kind: clientKindOf(st.UserAgent)}
	sentAway := func() { go st.Do(c.giveWay) } // it is called under the gate's lock
	c.h = s.newSession(caller, func() { st.Do(c.expire) }, sentAway)
	c.h.impatient, c.h.again = c.kind.blocks(), c.kind == clientAltscreds
	c.h.watches, c.h.retries = c.h.again, c.kind.retries()
	return c
}

// Message takes a request: the session's step, at once if it does not wait.
func (c *handshakeCall) Message(b []byte) {
	req := new(altspb.HandshakerReq)
	if err := proto.Unmarshal(b, req); err != nil {
		c.h.end(badRequest("the request could not be read: %v", err))
		c.st.Finish(status.Errorf(codes.Internal, "shared-altsd: failed to unmarshal the received message: %v", err))
		return
	}
	if c.h.state == idle && !c.st.Hold(memoryOf(b, req)) {
		c.end(asFailure(tooMuchMemory(c.h.share)))
		return
	}
	c.h.hurried = true
	resp, err := c.h.step(context.Background(), req)
	if err == errWouldWait {
		c.wait(req)
		return
	}
	c.answer(req, resp, err)
}

// wait makes a step beside the connection's goroutine.
func (c *handshakeCall) wait(req *altspb.HandshakerReq) {
	ctx, cancel := c.st.Context()
	c.cancel, c.h.hurried = cancel, false
	c.st.Go(func() {
		resp, err := c.h.step(ctx, req)
		c.st.Do(func() {
			cancel()
			c.cancel = nil
			c.answer(req, resp, err)
			for _, end := range c.later {
				c.event(end)
			}
			c.later = nil
		})
	})
}

// answer sends the response to a request, and ends the call if the session ended.
func (c *handshakeCall) answer(req *altspb.HandshakerReq, resp *altspb.HandshakerResp, err error) {
	switch {
	case err != nil && c.retry(asFailure(err)):
	case err != nil:
		resp, err = c.kind.deliver(asFailure(err), c.h.id, req)
		if resp != nil {
			c.st.Send(resp)
		}
		c.st.Finish(err)
	case resp.GetResult() != nil:
		sent := c.st.Send(resp)
		clear(resp.GetResult().GetKeyData())
		if sent {
			c.h.end(nil)
		} else {
			c.h.end(cancelled())
		}
		c.st.Finish(nil)
	default:
		c.st.Send(resp)
	}
}

// end ends session and call.
func (c *handshakeCall) end(f *failure) {
	f = c.h.end(f)
	c.h.end(f)
	c.ended(f)
}

// ended ends the call by a failure that no request is to be answered by.
func (c *handshakeCall) ended(f *failure) {
	if c.retry(f) {
		return
	}
	_, err := c.kind.deliver(f, c.h.id, nil)
	c.st.Finish(err)
}

// retry has the client's library make a call anew, at the next daemon, of which a stopping one has done nothing; it reports whether it
// does.
func (c *handshakeCall) retry(f *failure) bool {
	return f.tell == reason.ShuttingDown && !f.byPeer && c.h.retries && c.st.Retry()
}

// event ends the session for a reason from outside. One that then has a status frame for the peer goes on for a moment,
// for the next request. A step that waits is told to end, and comes first.
func (c *handshakeCall) event(end func() *failure) {
	if c.cancel != nil {
		c.later = append(c.later, end)
		return
	}
	if f := end(); f != nil && c.h.state != refused {
		c.ended(f)
	}
}

// expire is what the session's timer does.
func (c *handshakeCall) expire() {
	c.event(func() *failure {
		if !c.h.due() {
			return nil // it was set anew meanwhile
		}
		running := c.h.state == running
		f := c.h.expire()
		if running && c.kind.asksLate() {
			c.h.late()
		}
		return f
	})
}

// giveWay ends a session whose place is wanted.
func (c *handshakeCall) giveWay() {
	c.event(func() *failure {
		if c.h.holds != aPlace {
			return nil
		}
		return c.h.giveWay()
	})
}

// Drain ends a session under which nothing is under way, and one that is over but for being asked why; of others, the
// peer must not be silent for long.
func (c *handshakeCall) Drain() {
	c.event(func() *failure { return c.h.drain() })
}

// End says that no request comes any more.
func (c *handshakeCall) End(err error) {
	if c.cancel != nil && err != io.EOF {
		c.cancel()
	}
	c.event(func() *failure {
		f := c.h.srv.gone(err)
		_, broken := status.FromError(err)
		if broken {
			f = badRequest("the request could not be read: %v", err)
		}
		f = c.h.end(f)
		c.h.end(f) // there is no request any more by which the peer could be told
		if broken {
			return nil // that status ends the call
		}
		return f
	})
}

// tooMuchMemory refuses a start request that would be held beside too many others.
func tooMuchMemory(of share) error {
	return reason.Errorf(reason.Overloaded, "the start requests of %s take up too much memory; make them smaller, or fewer", of)
}

// elementSize is about what an element of a decoded message takes up beside its bytes.
const elementSize = 160

// memoryOf returns about how many bytes a decoded request, of the encoding b, takes up.
func memoryOf(b []byte, req *altspb.HandshakerReq) int {
	return len(b) + elementSize*elements(req)
}

// elements returns how many elements its lists have.
func elements(req *altspb.HandshakerReq) int {
	identities := func(ids ...*altspb.Identity) int {
		n := len(ids)
		for _, id := range ids {
			n += len(id.GetAttributes())
		}
		return n
	}
	c, s := req.GetClientStart(), req.GetServerStart()
	n := len(c.GetApplicationProtocols()) + len(c.GetRecordProtocols()) + identities(c.GetTargetIdentities()...) +
		identities(c.GetLocalIdentity()) + len(c.GetTransportProtocolPreferences().GetTransportProtocol()) +
		len(s.GetApplicationProtocols()) + len(s.GetTransportProtocolPreferences().GetTransportProtocol())
	for _, p := range s.GetHandshakeParameters() {
		n += 1 + len(p.GetRecordProtocols()) + identities(p.GetLocalIdentities()...)
	}
	return n
}
