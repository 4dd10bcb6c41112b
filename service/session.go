package service

import (
	"bytes"
	"context"
	"errors"
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
	running                     // holds a place among the handshakes, and the timer runs
	refused                     // the peer is being told; the application will be when it asks again, or in a second
	ended                       // there is a result, or the failure was reported
)

// lingerTime is how long an application may take to see its peer hang up after a refusal.
const lingerTime = time.Second

// A session is one handshake of a local application: requests in, responses out. It knows no transport: whoever drives it
// calls step for each request, expire when timer fires, and close in the end. It is not safe for concurrent use.
type session struct {
	srv    *Server
	caller Caller
	state  sessionState

	counted bool // in srv.idleStreams
	place   bool // holds a place of srv.gate
	role    Role
	me      *identity
	start   *start
	hs      *noiseproto.Handshake
	peer    *certbind.Peer // as soon as it is verified
	timer   *time.Timer    // of the handshake, then of the lingering; nil while nothing is timed
	began   time.Time
	refusal *failure

	id             string
	sent, received int
}

func (s *Server) newSession(c Caller) *session {
	h := &session{srv: s, caller: c, counted: s.idleStreams.enter(c.UID)}
	if c.refusal != nil || !h.counted {
		// It will be refused, but its first request is waited for: some libraries show only an answer to one.
		h.setTimer(lingerTime)
	}
	return h
}

// expired gives the channel of the timer; nil, which never fires, if nothing is timed.
func (h *session) expired() <-chan time.Time {
	if h.timer == nil {
		return nil
	}
	return h.timer.C
}

func (h *session) setTimer(d time.Duration) {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.timer = time.NewTimer(d)
}

// await waits for what comes first: something from in, which is the application or the socket, or what ends the session:
// its timer, the daemon's stop if nothing is under way yet, the end of ctx. An error is that end.
func await[T any](ctx context.Context, h *session, in <-chan T) (got T, err error) {
	var stop <-chan struct{}
	if h.state == idle || h.state == waiting {
		stop = h.srv.draining.Done()
	}
	select {
	case got = <-in:
		return got, nil
	case <-h.expired():
		return got, h.expire()
	case <-stop:
		return got, h.abort(asFailure(errStopping))
	case <-ctx.Done():
		return got, h.abort(gone(ctx))
	}
}

// gone is what the end of ctx, or of the application's requests, means.
func gone(ctx context.Context) *failure {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		f := asFailure(reason.Errorf(reason.TimedOut, "the application's own deadline for the handshake passed"))
		f.end = true
		return f
	}
	return cancelled()
}

// step answers one request. final: the response holds the result, and none may follow. An error is final, too; the caller
// tells it to the application in the form that it can show, and has it recorded already.
func (h *session) step(ctx context.Context, req *altspb.HandshakerReq) (resp *altspb.HandshakerResp, final bool, err error) {
	if h.state == refused {
		h.state = ended
		return nil, true, h.refusal
	}
	resp, out, err := h.take(ctx, req)
	if err == nil {
		resp.Status = &altspb.HandshakerStatus{}
		return resp, h.state == ended, nil
	}
	f := asFailure(err)
	if h.role == Initiator || out == nil {
		return nil, true, h.abort(f)
	}
	h.sent += len(out)
	h.fail(f)
	h.state, h.refusal = refused, f
	h.setTimer(lingerTime)
	return &altspb.HandshakerResp{
		OutFrames: out, BytesConsumed: uint32(len(inBytes(req))), Status: &altspb.HandshakerStatus{},
	}, false, nil
}

// take does what the request asks. With an error it may give a status frame for the peer.
func (h *session) take(ctx context.Context, req *altspb.HandshakerReq) (resp *altspb.HandshakerResp, out []byte, err error) {
	switch r := req.GetReqOneof().(type) {
	case *altspb.HandshakerReq_ClientStart:
		if h.state != idle {
			return nil, nil, badRequest("a second start request on one stream; open a stream for each handshake")
		}
		h.role = Initiator
		if err := h.begin(ctx, req); err != nil {
			return nil, nil, err
		}
		resp, err = h.dial(ctx)
		return resp, nil, err
	case *altspb.HandshakerReq_ServerStart:
		if h.state != idle {
			return nil, nil, badRequest("a second start request on one stream; open a stream for each handshake")
		}
		h.role = Responder
		if err := h.begin(ctx, req); err != nil {
			return nil, statusFor(err, r.ServerStart.GetInBytes()), err
		}
		h.state = waiting
		return h.feed(ctx, r.ServerStart.GetInBytes())
	case *altspb.HandshakerReq_Next:
		if h.state == idle {
			return nil, nil, badRequest("a next request before any start request")
		}
		if len(r.Next.GetInBytes()) == 0 {
			return nil, nil, peerClosed("the peer closed the connection in the middle of the handshake; " +
				"the log of the daemon there says why")
		}
		return h.feed(ctx, r.Next.GetInBytes())
	}
	return nil, nil, badRequest("a request that is neither client_start, server_start nor next")
}

// begin checks the start request; nothing is done for the peer yet.
func (h *session) begin(ctx context.Context, req *altspb.HandshakerReq) error {
	h.began = time.Now()
	if h.srv.draining.Err() != nil {
		return errStopping
	}
	if h.caller.refusal != nil {
		return h.caller.refusal
	}
	if !h.counted && h.role == Responder {
		return h.overload()
	}
	var err error
	if h.me, err = h.srv.identityOf(ctx, h.caller.UID); err != nil {
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

// overload is why a stream is refused before it asked for anything.
func (h *session) overload() error {
	if h.caller.refusal != nil {
		return h.caller.refusal
	}
	return reason.Errorf(reason.Overloaded,
		"uid %d has %d streams open that wait for a start request or a peer; close some, or raise "+
			"the limit", h.caller.UID, h.srv.idleStreams.perAccount)
}

// run waits for a place, then starts the handshake's timer and makes the handshake.
func (h *session) run(ctx context.Context) error {
	h.state = running
	if err := h.admit(ctx); err != nil {
		return err
	}
	h.began = time.Now()
	h.setTimer(h.srv.cfg.HandshakeTimeout)
	static, err := h.srv.cfg.Machine.Attest(h.me.account.Name, h.me.attributes())
	if err != nil {
		return err
	}
	h.hs, err = noiseproto.New(noiseproto.Config{
		Initiator: h.role == Initiator, Static: static, Verifier: h.srv.cfg.Machine, Authorize: h.authorize,
		Params: h.start.params, MinVersion: h.srv.cfg.MinVersion,
	})
	return err
}

// authorize notes the peer for the log before it judges.
func (h *session) authorize(p *certbind.Peer) error {
	h.peer = p
	if h.start.authorize == nil {
		return nil
	}
	return h.start.authorize(p)
}

func (h *session) admit(ctx context.Context) error {
	wait := h.srv.cfg.HandshakeTimeout
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d)*4/5) // so that the answer still arrives in time
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(h.srv.draining, cancel)()
	err := h.srv.gate.acquire(ctx, gateKey{h.caller.UID, h.role})
	switch {
	case err == nil:
	case h.srv.draining.Err() != nil:
		return errStopping
	case errors.Is(err, context.Canceled):
		return cancelled()
	default:
		return reason.Errorf(reason.Overloaded,
			"too many handshakes under way (%d for one account in one direction, %d in all), "+
				"and none ended in time; try again, or raise the limit", h.srv.gate.perAccount, h.srv.gate.inAll)
	}
	h.place = true
	h.uncount()
	return nil
}

func (h *session) dial(ctx context.Context) (*altspb.HandshakerResp, error) {
	if err := h.run(ctx); err != nil {
		return nil, err
	}
	out, err := h.hs.Start()
	if err != nil {
		return nil, err
	}
	h.sent = len(out)
	return &altspb.HandshakerResp{OutFrames: out}, nil
}

// feed hands bytes of the peer's to the handshake. A server's handshake is made when the first of them come.
func (h *session) feed(ctx context.Context, in []byte) (resp *altspb.HandshakerResp, out []byte, err error) {
	if len(in) == 0 {
		return new(altspb.HandshakerResp), nil, nil // a server's start request at accept
	}
	if h.state == waiting {
		if err := h.run(ctx); err != nil {
			return nil, statusFor(err, in), err
		}
	}
	n, out, err := h.hs.Feed(in)
	h.received += n
	if err != nil {
		return nil, out, err
	}
	h.sent += len(out)
	resp = &altspb.HandshakerResp{OutFrames: out, BytesConsumed: uint32(n)}
	if h.hs.Done() {
		res := h.hs.Result()
		resp.Result = newResult(res, h.me)
		res.Wipe()
		h.state = ended
	}
	return resp, nil, nil
}

// statusFor gives the status frame for a refusal that came before the handshake, if the peer speaks our protocol. A bad
// request is the application's own fault: it is told at once.
func statusFor(err error, in []byte) []byte {
	f := asFailure(err)
	magic := noiseproto.StatusFrame(f.tell)[:4]
	if f.name == reason.BadRequestName || f.end || !bytes.HasPrefix(in, magic) {
		return nil
	}
	return noiseproto.StatusFrame(f.tell)
}

var errStopping = reason.Errorf(reason.ShuttingDown, "the daemon is stopping; try again")

// expire ends the session because its timer fired.
func (h *session) expire() *failure {
	switch h.state {
	case idle:
		return h.abort(asFailure(h.overload()))
	case refused:
		h.state = ended
		return h.refusal
	}
	return h.abort(asFailure(reason.Errorf(reason.TimedOut,
		"the handshake did not finish within %v: the peer, or its daemon, stopped answering",
		h.srv.cfg.HandshakeTimeout)))
}

// abort ends the session for a reason from outside. A refusal that was recorded before stands.
func (h *session) abort(f *failure) *failure {
	if h.state == refused {
		h.state = ended
		return h.refusal
	}
	h.fail(f)
	h.state = ended
	return f
}

// fail records a failure and gives back the place; the state is set by the caller. A stream that ends before anybody
// asked for a handshake, or before the peer said anything, is not worth a line.
func (h *session) fail(f *failure) {
	if h.hs != nil {
		h.id = h.hs.ID()
	}
	h.release()
	ends := f.end || f.tell == reason.ShuttingDown
	if ends && (h.began.IsZero() || h.state == waiting) {
		return
	}
	h.record(f)
}

// succeed records a success, once the result was sent.
func (h *session) succeed() {
	h.id = h.hs.ID()
	h.release()
	h.record(&failure{name: reason.Accepted.String()})
}

func (h *session) record(f *failure) {
	r := Record{Time: time.Now(), Role: h.role, ID: h.id, UID: h.caller.UID, PID: h.caller.PID, Reason: f.name,
		Detail: f.text,
		ByPeer: f.byPeer, Sent: h.sent, Received: h.received}
	if !h.began.IsZero() {
		r.Duration = r.Time.Sub(h.began)
	}
	if h.me != nil {
		r.Local = h.me.String()
	}
	if h.peer != nil {
		r.Peer, r.machine = h.peer.String(), h.peer.Machine
	}
	if h.start != nil {
		r.Remote = h.start.endpoints.remote
	}
	h.srv.audit.finish(r)
}

// release wipes the handshake and gives back its place.
func (h *session) release() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if h.hs != nil {
		h.hs.Close()
	}
	if h.place {
		h.place = false
		h.srv.gate.release(gateKey{h.caller.UID, h.role})
	}
}

// uncount takes the session out of the streams that wait.
func (h *session) uncount() {
	if h.counted {
		h.counted = false
		h.srv.idleStreams.leave(h.caller.UID)
	}
}

// close ends the session in any state. It may be called more than once.
func (h *session) close() {
	h.release()
	h.uncount()
}
