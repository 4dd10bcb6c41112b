package service

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

type sessionState int

const (
	idle    sessionState = iota // no start request yet
	waiting                     // a server without bytes of the peer's
	running                     // has bytes of the peer's or waits for a place, then has it; it is timed
	refused                     // over, but there is a status frame for the peer; the application is told after that
	ended
)

// A session is one handshake of a local application: requests in, responses out. It knows no transport: whoever drives
// it calls step for each request, and expire, giveWay or end for what ends it in between. It is not safe for concurrent
// use.
type session struct {
	srv    *Server
	caller Caller
	share  share // the caller's, or better if he has a name by now
	state  sessionState

	holds  holding
	place  [2]*place // while it holds aPlace: that of its account, that of the peer's address, if known
	role   Role
	me     *identity
	start  *start
	hs     *noiseproto.Handshake
	peer   *certbind.Peer // as soon as it is verified
	judged judgement      // of the peer
	timer  *time.Timer    // of the handshake, then of the lingering; nil while nothing is timed
	until  time.Time      // when timer fires
	fire   func()         // what timer does
	began  time.Time
	heard  time.Time // when bytes of the peer's came last

	hurried bool // a step that would have to wait is not made (errWouldWait)
	paid    bool // for message 1

	sentAway func()                                  // what is done when the place has to be given up
	wanted   atomic.Bool                             // it has to be
	cut      atomic.Pointer[context.CancelCauseFunc] // of a question to DNS that is waited for

	half   half             // of a step that waits for DNS
	answer *certbind.Answer // DNS's, about the peer's machine
	asked  int              // questions to DNS
	claims int              // paid for them

	refusal *failure // a responder's answer to message 1, when that is whole
	frame   []byte   // a responder's status frame for the peer, not given out yet
	failure *failure // why it ended, if not well

	id             string
	sent, received int

	carried   bool      // the daemon reads and writes the connection itself
	ends      endpoints // of the connection, if the kernel told them
	ending    bool      // the daemon stops: the peer must not be silent for long
	again     bool      // the application begins again with the next daemon if this one stops
	answered  bool      // a request was
	retries   bool      // its library makes a call anew of which nothing was done
	watches   bool      // the application can have its connections watched
	impatient bool      // the application's thread stands still until it is answered
}

// newSession begins a session. Its timer calls fire, and who needs its place sentAway, beside whatever goes on; neither
// may wait.
func (s *Server) newSession(c Caller, fire, sentAway func()) *session {
	h := &session{srv: s, caller: c, share: c.share, fire: fire, sentAway: sentAway}
	if s.idleStreams.enter(h.share) {
		h.holds = aStream
	}
	if c.refusal != nil || h.holds == nothing {
		// It will be refused, but its first request is waited for: some libraries show only an answer to one.
		h.setTimer(lingerTime)
	}
	return h
}

func (h *session) setTimer(d time.Duration) {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.until = time.Now().Add(d)
	h.timer = time.AfterFunc(d, h.fire)
}

// due reports whether the timer, as it is set now, has fired.
func (h *session) due() bool { return h.timer != nil && !time.Now().Before(h.until) }

// errWouldWait says that a step was not made because it would have had to wait: for the user database, message 1's budget,
// a place, a signature, a turn, or DNS. It left no trace but in session.half.
var errWouldWait = errors.New("the step would have to wait")

// step answers one request: the response with the result is the last. An error is the session's end; the caller tells
// it to the application in the form that it can show.
func (h *session) step(ctx context.Context, req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
	if h.state != refused {
		before := h.state
		resp, err := h.take(ctx, req)
		switch err {
		case nil:
			resp.Status = &altspb.HandshakerStatus{}
			h.answered = true
			return resp, nil
		case errWouldWait:
			h.state = before
			return nil, err
		}
		h.end(asFailure(err))
	}
	if frame := h.frame; h.state == refused && frame != nil && len(inBytes(req)) > 0 {
		h.frame = nil
		h.setTimer(lingerTime)
		return &altspb.HandshakerResp{
			OutFrames: frame, BytesConsumed: uint32(len(inBytes(req))), Status: &altspb.HandshakerStatus{},
		}, nil
	}
	return nil, h.end(h.failure)
}

// take does what the request asks.
func (h *session) take(ctx context.Context, req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
	switch r := req.GetReqOneof().(type) {
	case *altspb.HandshakerReq_ClientStart:
		if h.state != idle {
			return nil, badRequest("a second start request on one stream; open a stream for each handshake")
		}
		h.role = Initiator
		if err := h.begin(ctx, req); err != nil {
			return nil, err
		}
		return h.dial(ctx)
	case *altspb.HandshakerReq_ServerStart:
		if h.state != idle {
			return nil, badRequest("a second start request on one stream; open a stream for each handshake")
		}
		h.role = Responder
		in := r.ServerStart.GetInBytes()
		if err := h.begin(ctx, req); err != nil && (len(in) == 0 && !h.carried || !h.refuse(err)) {
			return nil, err
		}
		h.state = waiting
		return h.feed(ctx, in)
	case *altspb.HandshakerReq_Next:
		if h.state == idle {
			return nil, badRequest("a next request before any start request")
		}
		if len(r.Next.GetInBytes()) == 0 {
			return nil, peerClosed("the peer closed the connection in the middle of the handshake; " +
				"the log of the daemon there says why, and if it says accepted, the application there wanted somebody else")
		}
		return h.feed(ctx, r.Next.GetInBytes())
	}
	return nil, badRequest("a request that is neither client_start, server_start nor next")
}

// begin checks the start request; nothing is done for the peer yet.
func (h *session) begin(ctx context.Context, req *altspb.HandshakerReq) error {
	h.began = time.Now()
	if err := h.mayBegin(ctx); err != nil {
		return err
	}
	if h.caller.refusal != nil {
		return h.caller.refusal
	}
	if h.holds == nothing && h.role == Responder {
		return h.overload()
	}
	if h.hurried && !h.srv.ready(h.caller) {
		return errWouldWait
	}
	var err error
	if h.me, err = h.srv.identityOf(ctx, h.caller); err != nil {
		return err
	}
	h.named()
	if err := h.mayStand(); err != nil {
		return err
	}
	if unknownFields(req) {
		h.srv.noteUnknownFields(h.caller)
	}
	if h.role == Initiator {
		h.start, err = h.srv.clientStart(req.GetClientStart(), h.me)
	} else {
		h.start, err = h.srv.serverStart(req.GetServerStart(), h.me)
	}
	return err
}

// refuse has a responder refuse for its own sake, and reports whether the peer is to be told. That waits for the whole of
// message 1, though not for long: of it come the ID by which both machines' logs name the handshake, and whether there is
// a peer of our protocol to tell.
func (h *session) refuse(err error) bool {
	f := asFailure(err)
	if err == errWouldWait || err == errStopping && (h.again || h.retries) || f.tell == reason.Accepted {
		return false // the peer hears from the next daemon, or the application alone is at fault
	}
	h.refusal = f
	if h.hs != nil {
		h.hs.Refuse(f.tell)
	}
	h.setTimer(lingerTime)
	return true
}

// run starts the handshake's timer and makes the handshake.
func (h *session) run(ctx context.Context) error {
	h.state = running
	switch {
	case h.hs != nil: // since a step that was not made after all
		return nil
	case h.refusal != nil:
		h.hs = noiseproto.NewRefusal(h.refusal.tell)
		return nil
	}
	attributes := h.me.attributes()
	if h.hurried && !h.srv.cfg.Machine.Attested(h.me.account.Name, attributes) {
		return errWouldWait
	}
	h.began = time.Now()
	h.hear()
	h.setTimer(h.srv.cfg.HandshakeTimeout)
	attesting, cancel := context.WithDeadline(ctx, h.until)
	static, err := h.srv.cfg.Machine.Attest(attesting, h.me.account.Name, attributes)
	cancel()
	switch {
	case errors.Is(err, context.Canceled):
		return cancelled()
	case err != nil:
		return err
	}
	return h.inTurn(func() error {
		h.hs, err = noiseproto.New(noiseproto.Config{
			Initiator: h.role == Initiator, Static: static, Verifier: h, Authorize: h.authorize, Permit: h.permit,
			Params: h.start.params, MinVersion: h.srv.cfg.MinVersion, Keys: h.srv.keys,
		})
		return err
	})
}

func (h *session) dial(ctx context.Context) (*altspb.HandshakerResp, error) {
	h.state = running
	if err := h.admit(ctx); err != nil {
		return nil, err
	}
	if err := h.run(ctx); err != nil {
		return nil, err
	}
	var out []byte
	err := h.inTurn(func() (err error) {
		out, err = h.hs.Start()
		return err
	})
	if err != nil {
		return nil, err
	}
	h.sent = len(out)
	return &altspb.HandshakerResp{OutFrames: out}, nil
}

// feed hands bytes of the peer's to the handshake. A server's handshake is made when the first of them come, and has a
// place from a whole message 1 on.
func (h *session) feed(ctx context.Context, in []byte) (*altspb.HandshakerResp, error) {
	if len(in) == 0 {
		return new(altspb.HandshakerResp), nil // a server's start request at accept
	}
	if h.state == waiting {
		err := h.run(ctx)
		if err != nil && h.refuse(err) {
			err = h.run(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	if h.refusal == nil && h.holds != aPlace && h.hs.Completes(in) {
		err := h.payMessage1(ctx)
		if err == nil {
			err = h.admit(ctx)
		}
		switch {
		case err == nil:
			h.began = time.Now()
			h.setTimer(h.srv.cfg.HandshakeTimeout)
		case !h.refuse(err):
			return nil, err
		}
	}
	if err := h.knowGroups(ctx); err != nil {
		return nil, err
	}
	err := h.answering(ctx, func() error { return h.advance(in) })
	if err == errWouldWait {
		return nil, err
	}
	n, out := h.half.n, h.half.out
	h.half = half{}
	h.received += n
	h.hear()
	if err != nil {
		if h.hs.Done() {
			out = h.withhold(err)
		}
		if h.tells() {
			h.frame = out
		}
		return nil, err
	}
	if h.ending {
		h.hurry()
	}
	h.sent += len(out)
	resp := &altspb.HandshakerResp{OutFrames: out, BytesConsumed: uint32(n)}
	if h.hs.Done() {
		r := h.hs.Result()
		resp.Result, resp.Standing = newResult(r, h.me), h.standing(h.hs.ID(), r.ApplicationProtocol)
		if h.watches { // a caller that knows what is not gRPC's own
			resp.HandshakeId = h.hs.ID()
		}
		r.Wipe()
	}
	return resp, nil
}
