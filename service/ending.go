package service

// How a session ends: by its timer, for another's sake, with the daemon, and what is told to whom.

import (
	"context"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

const (
	// lingerTime is how long an application may take to see its peer hang up after a refusal.
	lingerTime = time.Second
	// lateTime is how long a client whose handshake is over may take to ask why: it waits for its peer meanwhile, up to a
	// deadline of its own, which is 20 seconds from the beginning in most libraries.
	lateTime = 20 * time.Second
	// stopPatience is how long a peer may be silent when the daemon is to stop, and partPatience in the middle of message 1.
	stopPatience = 2 * time.Second
	partPatience = 200 * time.Millisecond
)

// tells reports whether a status frame of ours can reach the peer. A client's application that relays would have to see it
// answered before it learned anything itself.
func (h *session) tells() bool { return h.role == Responder || h.carried }

// hear notes that the peer is not silent. Of a client's it is noted for the daemon's stop, too, which waits for those.
func (h *session) hear() {
	h.heard = time.Now()
	if h.role == Initiator {
		h.srv.heardLast.Store(h.heard.UnixNano())
	}
}

// hurry has a peer who is silent end the session soon, since the daemon stops. It is to be called again when the peer was
// heard.
func (h *session) hurry() {
	h.ending = true
	silence := stopPatience
	if h.holds != aPlace {
		silence = partPatience
	}
	h.setTimer(min(time.Until(h.heard.Add(silence)), time.Until(h.began.Add(h.srv.cfg.HandshakeTimeout))))
}

// drain does what the daemon's stop means for a session that no step is being made of, and returns why it ended, nil if it
// did not.
func (h *session) drain() *failure {
	switch {
	case h.state == idle || h.state == waiting:
		return h.end(asFailure(errStopping))
	case h.state == running && h.holds != aPlace && !h.underWay():
		// A part of message 1, which anybody can send: whether there is more, to be told by, is not waited for.
		return h.end(h.end(asFailure(errStopping)))
	case h.state == refused && h.holds == aStream:
		return h.end(h.failure)
	case h.state == running && !h.ending:
		h.hurry()
	}
	return nil
}

// mayBegin refuses what begins while the daemon stops. A client's library that makes its call anew waits for the moment from which its
// connection takes no more of them: before, a server of the same program has to get in by it still.
func (h *session) mayBegin(ctx context.Context) error {
	switch {
	case h.srv.draining.Err() != nil:
		return errStopping
	case h.role != Initiator || !h.srv.stopping.Load():
		return nil
	case !h.retries:
		return errStopping
	case h.hurried:
		return errWouldWait
	}
	select {
	case <-h.srv.draining.Done():
		return errStopping
	case <-ctx.Done():
		return h.srv.gone(ctx.Err())
	}
}

// late keeps a client's session that ended between two requests for the next one, by whose answer alone a stock library
// learns why. It stands among the streams that are not under way, if there is room.
func (h *session) late() {
	if h.role != Initiator || h.state != ended || !h.srv.idleStreams.enter(h.share) {
		return
	}
	h.holds, h.state = aStream, refused
	h.setTimer(lateTime)
}

// expire ends the session because its timer fired.
func (h *session) expire() *failure {
	switch {
	case h.state == idle:
		return h.end(asFailure(h.overload()))
	case h.ending: // not shutting_down, on which altscreds would begin again: it may have given the peer's bytes away
		f := asFailure(reason.Errorf(reason.TimedOut, "the peer was silent, and the daemon is to stop; try again"))
		f.tell = reason.ShuttingDown
		return h.end(f)
	}
	return h.end(asFailure(reason.Errorf(reason.TimedOut,
		"the handshake did not finish within %v: the peer, or its daemon, stopped answering",
		h.srv.cfg.HandshakeTimeout)))
}

// end is how every session ends: well, with nil, once the application has the result, or by a failure. It gives back
// what the session holds, records it, and returns the failure that ended it, which is the first:
//
//	ending                                     the peer is told   the application is told  recorded as
//	a request that cannot be served            nothing            INVALID_ARGUMENT         bad_request
//	a caller who may not, or has too much      the reason #       by the reason            the reason
//	this machine has nothing to prove it by    the reason #       by the reason            the reason
//	no place in time, or before the stop       the reason #       by the reason            the reason
//	a check of ours fails                      the reason *       by the reason            the reason
//	the peer's daemon refuses                  nothing            by the reason            the reason, by_peer
//	the peer hangs up                          nothing            UNAVAILABLE              peer_closed +
//	the handshake's time is over               timed_out *        DEADLINE_EXCEEDED        timed_out
//	the application gives up                   local_account *    CANCELLED, if it listens cancelled +
//	  by its own deadline                      timed_out *        DEADLINE_EXCEEDED        timed_out +
//	the daemon drains, nothing being under way nothing            UNAVAILABLE ##           nothing
//	  a peer being silent for long             shutting_down *    DEADLINE_EXCEEDED        timed_out
//	  and stops at last, cutting the rest      shutting_down *    nothing                  shutting_down
//	accepted                                   status 0, by step  the result               accepted
//
// * by a responder, if the peer has begun to speak our protocol, and by an initiator whose socket was handed over,
// unless its application gives up. Then the session is not ended but refused, for a second: the status frame is the
// response to the request that is being answered, or else to the next one; a socket that was handed over takes it at
// once. The failure follows with the request after that, or when the second is over. Nothing is told before the stop
// where the application asks the next daemon.
//
// # the same, in answer to a whole message 1 (refuse). Nothing is told if none has come within a second.
//
// ## or to begin anew at the next daemon, where its library does that (handshakeCall.retry); so also where there is no place before
// the stop, of which nothing is recorded then.
//
// + but not before a start request, or before the peer has said anything: that is not worth a line.
//
// What an application is told is in failure.go. All that is recorded goes to the log and to Config.OnFinish
// (logging.go).
func (h *session) end(f *failure) *failure {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if h.state == refused || h.state == ended {
		h.hold(nothing)
		h.state = ended
		return h.failure
	}
	if h.refusal != nil {
		f = h.refusal // whatever has come of the wait for message 1
	}
	h.sent += len(h.frame)
	if h.hs != nil {
		h.id = h.hs.ID()
		// A client's application that gives up hangs up, which says all that there is to say.
		if h.tells() && f != nil && f.tell != reason.Accepted && h.frame == nil && (h.role == Responder || !f.outside) {
			h.frame = h.hs.Abort(f.tell) // not counted as sent: nobody may ask for it
		}
		h.hs.Close()
	}
	h.hold(nothing)
	if f == nil {
		h.srv.budget.Credit(h.share, handshakeOK)
		if h.role == Responder {
			h.srv.unproven.Credit(h.share, costMessage1+h.claims)
		}
	}
	asked := !h.began.IsZero() && h.state != waiting
	h.failure, h.state = f, ended
	if h.frame != nil {
		h.state = refused
		h.setTimer(lingerTime)
	}
	anew := f != nil && f.tell == reason.ShuttingDown && h.retries && !h.answered // at the next daemon, and nothing failed
	if asked && !anew || !f.outside && f.tell != reason.ShuttingDown {
		h.srv.audit.finish(h.record())
	}
	// As large as the peer, or its zone, made it, and the session may linger.
	h.judged.identity, h.answer, h.half = nil, nil, half{}
	return f
}
