package service

import (
	"context"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What an account costs the daemon, in microseconds of its processor, about. Work that can be long is done in turns
// among accounts (Server.turns). What only may lead to a handshake is taken from a budget, frames by localgrpc's count of
// their cost, and a handshake that went well gives more back than the dearest library's connection and frames for it come
// to: so whoever does handshakes is not held up, and whoever does none cannot keep the daemon busy.
const (
	budgetRate  = 100_000 // a second: a tenth of a processor
	budgetSaved = 400_000
	handshakeOK = 1000 // stock gRPC's come to 520, and to 1 more for 8 bytes of a larger certificate

	// A server's handshakes are paid for by a budget of their own when message 1 is there, and paid back when the peer has
	// proved who he is, so that replays of message 1 to a server of one account's do not slow those of others.
	unprovenRate  = 300_000
	unprovenSaved = 600_000
	costMessage1  = 700
	// costClaim is for the signature of a statement that anybody can have made, which is verified twice where DNS is to vouch.
	costClaim = 700

	costConnection = 200
	costHandover   = 40 // a request with a descriptor
	// pendingConnections is how many connections of an account may wait for its budget; those above are closed.
	pendingConnections = 256
)

// Work does something for a caller that is not a handshake, which costs about so many microseconds: when his budget has
// them, and in turn with the work for others. An error is ctx's.
func (s *Server) Work(ctx context.Context, c Caller, cost int, do func()) error {
	if err := s.budget.Charge(ctx, c.share, cost); err != nil {
		return err
	}
	s.turns.Do(c.share, do)
	return nil
}

// makeKeys makes up for keys that handshakes used, if nothing else is done. It is called by goroutines that
// have answered and would wait next: another one to be woken costs more than the keys save.
func (s *Server) makeKeys() {
	const maxPieces = 4 // twice what one handshake uses, so that what had to be left out is made up for
	for n := 0; n < maxPieces && s.keys.Pending() && s.turns.DoIdle(s.keys.Piece); n++ {
	}
}

// payMessage1 takes from the account what message 1 costs, once.
func (h *session) payMessage1(ctx context.Context) error {
	switch {
	case h.paid:
		return nil
	case h.srv.unproven.Try(h.share, costMessage1):
		h.paid = true
		return nil
	case h.impatient: // is told at once
	case h.hurried:
		return errWouldWait
	default:
		ctx, cancel := context.WithTimeout(ctx, h.srv.cfg.HandshakeTimeout)
		defer cancel()
		if !h.underWay() {
			defer context.AfterFunc(h.srv.draining, cancel)()
		}
		if h.srv.unproven.Charge(ctx, h.share, costMessage1) == nil {
			h.paid = true
			return nil
		}
	}
	if h.srv.draining.Err() != nil && !h.underWay() {
		return errStopping
	}
	return reason.Errorf(reason.Overloaded, "too many peers of %s begin handshakes and do not prove who they are", h.share)
}

// pay waits until the account's budget has what a connection costs.
func (c *conn) pay() error {
	ctx, cancel := context.WithTimeout(c.ctx, 2*prefaceTimeout)
	defer cancel()
	defer context.AfterFunc(c.srv.draining, cancel)()
	if err := c.srv.budget.Charge(ctx, c.share, costConnection); err != nil {
		return err
	}
	_ = c.UnixConn.SetDeadline(time.Now().Add(prefaceTimeout)) // the wait was not the caller's
	return nil
}
