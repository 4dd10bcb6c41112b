package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Machines for which DNS vouches: a session whose peer is one of them asks, outside of its turn, and goes on with the answer.

// A Resolver asks validated DNS what vouches for a machine.
type Resolver interface {
	// Resolve returns what DNS says, for callers at the same time. That there are no records is an answer, if it is proved.
	// An answer is good for 10 seconds at least (package dane), also where its records are not. Errors are *reason.Error, mostly
	// DNSUnknown. Strangers choose the names, within the limits of --ca, so that it bounds what it holds and does by the query's
	// Share. What it has begun to ask when nobody waits any more, it goes on with: the peer tries again.
	Resolve(ctx context.Context, q Query) (*certbind.Answer, error)
}

// A Query is one question.
type Query struct {
	Share     string // who pays: the same for the same, and nothing else
	Initiator bool   // the local application dialled; its target is the machine
	Machine   string // a valid name, in lower case
}

// key returns the share in the form that leaves this package.
func (s share) key() string { return fmt.Sprintf("%d/%d", s.kind, s.id) }

const (
	// maxAsked bounds the questions of one handshake: one, and one more for each reload, or answer's end, in the middle of it.
	maxAsked = 3
	// How long a caller waits for DNS whose other connections stand still meanwhile, as a client, which has chosen its peer,
	// and as a server, to which strangers come: the answer may be there when the peer tries again.
	impatientLookup   = time.Second
	impatientStranger = 100 * time.Millisecond
)

// A half is how far a step has come that waits for DNS.
type half struct {
	waits *certbind.Unresolved // what for; nil if it does not
	n     int                  // bytes that were taken
	out   []byte               // frames for the peer
}

// answering does work in turns, and asks DNS in between while that is what work waits for. A step that is not made after all
// (errWouldWait) goes on where it was when it is made again.
func (h *session) answering(ctx context.Context, work func() error) error {
	for {
		if u := h.half.waits; u != nil {
			if err := h.ask(ctx, u); err != nil {
				return err
			}
			if err := h.knowGroups(ctx); err != nil { // the rules may name others by now
				return err
			}
			h.half.waits = nil
		}
		err := h.inTurn(work)
		u, ok := err.(*certbind.Unresolved)
		if !ok {
			return err
		}
		h.half.waits = u
	}
}

// advance hands bytes of the peer's to the handshake, as far as it goes without DNS.
func (h *session) advance(in []byte) error {
	for !h.hs.Done() {
		var n int
		var out []byte
		var err error
		if h.hs.Unresolved() != nil {
			out, err = h.hs.Resume()
		} else {
			n, out, err = h.hs.Feed(in[h.half.n:])
		}
		h.half.n += n
		if out != nil || err != nil {
			h.half.out = out
		}
		switch u := h.hs.Unresolved(); {
		case err != nil:
			return err
		case u != nil:
			return u
		case h.half.n == len(in) && !h.hs.Done():
			return nil
		}
	}
	return h.permitAgain()
}

// ask asks DNS about a peer who is not proved yet. It must not be called in a turn. Policy does not judge the peer before: who
// says what it would say of anybody, to whom it is not proved, tells its rules to everybody.
func (h *session) ask(ctx context.Context, u *certbind.Unresolved) error {
	machine := u.Claimed.Machine
	// An application's target is another matter: who was dialled knows who was meant.
	if h.start != nil && h.start.authorize != nil {
		if err := h.start.authorize(u.Claimed); err != nil {
			return err
		}
	}
	switch {
	case h.srv.cfg.Resolver == nil:
		return reason.Errorf(reason.DNSUnknown, "DNS vouches for machine %q, and this daemon has nobody to ask", machine)
	case h.asked == maxAsked:
		return reason.Errorf(reason.DNSUnknown, "DNS was asked about machine %q %d times, and each time its answer had ended or the trust "+
			"here had changed by then: try again", machine, maxAsked)
	case h.hurried:
		return errWouldWait
	}
	h.asked++
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	until := h.until
	patience := impatientLookup
	if h.role == Responder {
		patience = impatientStranger
	}
	if soon := time.Now().Add(patience); h.impatient && soon.Before(until) {
		until = soon
	}
	limited, cancel := context.WithDeadlineCause(ctx, until, errDNSLate)
	defer cancel()
	h.cut.Store(&cut)
	defer h.cut.Store(nil)
	if h.wanted.Load() { // since before
		cut(errPlaceWanted)
	}
	defer context.AfterFunc(h.srv.draining, func() {
		select {
		case <-time.After(stopPatience):
			cut(errStopsSoon)
		case <-limited.Done():
		}
	})()
	answer, err := h.resolve(limited, machine)
	switch cause := context.Cause(limited); {
	case err == nil:
		h.answer = answer
		return nil
	case cause == errPlaceWanted:
		return h.gaveWay()
	case cause == errStopsSoon:
		f := asFailure(reason.Errorf(reason.TimedOut, "DNS did not answer about machine %q, and the daemon is to stop; try again", machine))
		f.tell = reason.ShuttingDown
		return f
	case cause == errDNSLate && h.role == Responder && h.claims == 0:
		return reason.Errorf(reason.Overloaded, "too many peers of %s name machines and do not prove who they are", h.share)
	case cause == errDNSLate:
		return reason.Errorf(reason.DNSUnknown, "DNS did not answer about machine %q in time; try again", machine)
	case cause != nil:
		return h.srv.gone(ctx.Err())
	}
	return err
}

// Why a question is waited for no more.
var (
	errPlaceWanted = errors.New("the place is wanted")
	errDNSLate     = errors.New("DNS is late")
	errStopsSoon   = errors.New("the daemon is to stop")
)

// resolve asks, once what a claim costs is paid for.
func (h *session) resolve(ctx context.Context, machine string) (*certbind.Answer, error) {
	if h.role == Responder && h.claims == 0 {
		if err := h.srv.unproven.Charge(ctx, h.share, costClaim); err != nil {
			return nil, err
		}
		h.claims = costClaim
	}
	a, err := h.srv.cfg.Resolver.Resolve(ctx, Query{Share: h.share.key(), Initiator: h.role == Initiator, Machine: machine})
	if err == nil && a == nil {
		err = reason.Errorf(reason.DNSUnknown, "nothing came of asking DNS about machine %q", machine)
	}
	return a, err
}

// sendAway tells the session that its place is wanted. It may be called at any time, and does not wait.
func (h *session) sendAway() {
	h.wanted.Store(true)
	if cut := h.cut.Load(); cut != nil {
		(*cut)(errPlaceWanted)
	}
	h.sentAway()
}
