package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What a session takes up of its account's share: a stream, a place, a turn.

// A holding is what a session takes up of its account's limits.
type holding int

const (
	nothing holding = iota
	aStream         // in srv.idleStreams
	aPlace          // in srv.gate
)

// named makes a caller who had no name when he connected count as his account, now that he has one.
func (h *session) named() {
	if h.share.kind != ofStrangers && h.share.kind != ofSubordinates {
		return
	}
	own := share{ofAccount, h.caller.UID}
	if h.holds == aStream && !h.srv.idleStreams.enter(own) {
		return
	}
	if h.holds == aStream {
		h.srv.idleStreams.leave(h.share)
	}
	h.share = own
}

// overload returns why a stream is refused before it asked for anything.
func (h *session) overload() error {
	if h.caller.refusal != nil {
		return h.caller.refusal
	}
	return reason.Errorf(reason.Overloaded,
		"%s has %d streams open that wait for a start request or a peer; close some, or raise "+
			"the limit", h.share, h.srv.idleStreams.perAccount)
}

// admit takes a place among the handshakes under way.
func (h *session) admit(ctx context.Context) error {
	if h.holds == aPlace { // since a step that was not made after all
		return nil
	}
	if !h.hurried {
		wait := h.srv.cfg.HandshakeTimeout
		if d, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(d)*4/5) // so that the answer still arrives in time
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
		if !h.underWay() {
			defer context.AfterFunc(h.srv.draining, cancel)()
		}
	}
	err := h.acquire(ctx)
	switch {
	case err == nil || err == errWouldWait:
		return err
	case h.srv.draining.Err() != nil && !h.underWay():
		return errStopping
	case errors.Is(err, context.Canceled):
		return cancelled()
	}
	return reason.Errorf(reason.Overloaded,
		"too many handshakes under way (%d for one account in one direction, %d in all), "+
			"and none ended in time; try again, or raise the limit", h.srv.gate.PerKey, h.srv.gate.InAll)
}

// underWay reports whether bytes of the peer's were taken that the application could not give to the next daemon.
func (h *session) underWay() bool { return h.again && h.received > 0 }

// acquire takes a place of the peer's address, if that is known, and then one of the account.
func (h *session) acquire(ctx context.Context) error {
	var sendAway func()
	if h.role == Responder {
		var once sync.Once // either place may be wanted
		sendAway = func() { once.Do(h.sendAway) }
	}
	take := func(g *handshakeGate, key gateKey) (*place, error) {
		if !h.hurried || h.impatient { // who is impatient does not wait
			return g.Acquire(ctx, key, h.impatient, sendAway)
		}
		if p := g.Try(key, sendAway); p != nil {
			return p, nil
		}
		return nil, errWouldWait
	}
	var places [2]*place
	var err error
	if from := handed.Network(h.ends.remote.Addr()); h.role == Responder && from.IsValid() {
		if places[1], err = take(h.srv.addresses, gateKey{h.share, h.role, from}); err != nil {
			return err
		}
	}
	if places[0], err = take(h.srv.gate, gateKey{share: h.share, role: h.role}); err != nil {
		if places[1] != nil {
			h.srv.addresses.Release(places[1])
		}
		return err
	}
	h.hold(aPlace)
	h.place = places
	return nil
}

// giveWay ends the session because its place was wanted.
func (h *session) giveWay() *failure {
	return h.end(h.gaveWay())
}

func (h *session) gaveWay() *failure {
	return asFailure(reason.Errorf(reason.Overloaded, "the handshake gave its place to one that waited, "+
		"since the peer had not proved who he is within %v; raise the limit if there are so many", h.srv.gate.Grace))
}

// inTurn does what takes the processor, and waits for nothing, when it is the account's turn, and returns its error.
func (h *session) inTurn(work func() error) (err error) {
	do := func() { err = work() }
	switch {
	case !h.hurried:
		h.srv.turns.Do(h.share, do)
	case !h.srv.turns.TryDo(h.share, do):
		return errWouldWait
	}
	return err
}

// hold gives back what the session holds, for something else.
func (h *session) hold(something holding) {
	switch h.holds {
	case aStream:
		h.srv.idleStreams.leave(h.share)
	case aPlace:
		h.srv.gate.Release(h.place[0])
		if h.place[1] != nil {
			h.srv.addresses.Release(h.place[1])
		}
	}
	h.holds = something
}
