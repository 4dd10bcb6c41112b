package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What a session takes up of its account's limits, from its stream on to its place among the handshakes.

// A holding is what a session takes up of its account's limits.
type holding int

const (
	nothing holding = iota
	aStream         // in srv.idleStreams
	aPlace          // in srv.gate
)

// named makes a caller who had no name when he connected count as his account, now that he has one.
func (h *session) named() {
	if h.share.kind != ofStrangers {
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

func (h *session) admit(ctx context.Context) error {
	wait := h.srv.cfg.HandshakeTimeout
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d)*4/5) // so that the answer still arrives in time
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(h.srv.draining, cancel)()
	err := h.acquire(ctx)
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
	return nil
}

// acquire takes a place of the peer's address, if that is known, and then one of the account.
func (h *session) acquire(ctx context.Context) error {
	var sendAway func()
	if h.role == Responder {
		h.away = make(chan struct{})
		var once sync.Once // either place may be wanted
		sendAway = func() { once.Do(func() { close(h.away) }) }
	}
	var places [2]*place
	var err error
	if from := handed.Network(h.from); h.role == Responder && from.IsValid() {
		if places[1], err = h.srv.addresses.acquire(ctx, gateKey{h.share, h.role, from}, h.impatient, sendAway); err != nil {
			return err
		}
	}
	if places[0], err = h.srv.gate.acquire(ctx, gateKey{share: h.share, role: h.role}, h.impatient, sendAway); err != nil {
		if places[1] != nil {
			h.srv.addresses.release(places[1])
		}
		return err
	}
	h.hold(aPlace)
	h.place = places
	return nil
}

// hold gives back what the session holds, for something else.
func (h *session) hold(something holding) {
	switch h.holds {
	case aStream:
		h.srv.idleStreams.leave(h.share)
	case aPlace:
		h.srv.gate.release(h.place[0])
		if h.place[1] != nil {
			h.srv.addresses.release(h.place[1])
		}
	}
	h.holds = something
}
