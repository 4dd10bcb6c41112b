package service

import (
	"context"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A judgement is what a session's peer was let by, so that it can be seen whether the same is in force when the result is
// released.
type judgement struct {
	// As they were before the peer was verified: what has come into force since shows by another one.
	generation uint64
	trust      *certbind.Trust

	identity []byte // the peer's, with the static key that it vouches for
	static   [32]byte
	service  string // the application protocol that was chosen
	verdict  policy.Verdict
}

// Verify is the session's own noiseproto.Verifier, by what DNS has said so far.
func (h *session) Verify(identity []byte, static [32]byte) (*certbind.Peer, error) {
	_, generation := h.srv.inForce()
	h.judged = judgement{generation: generation, trust: h.srv.cfg.Machine.Trust(), identity: identity, static: static}
	return h.srv.cfg.Machine.VerifyAnswered(identity, static, h.answer)
}

// authorize notes the peer for the log before it judges.
func (h *session) authorize(p *certbind.Peer) error {
	h.peer = p
	if h.start.authorize == nil {
		return nil
	}
	return h.start.authorize(p)
}

// permit judges the peer, who is verified and whom the application wants, by the policy in force.
func (h *session) permit(p *certbind.Peer, service string) error {
	h.judged.service = service
	inForce, _ := h.srv.inForce()
	if inForce == nil {
		h.judged.verdict = policy.Verdict{Allowed: true}
		return nil
	}
	c, err := newConnection(inForce, h.role, h.me, p, service)
	if err != nil {
		return err
	}
	h.judged.verdict = inForce.Judge(c)
	return denial(c, h.judged.verdict)
}

// outdated reports whether trust or policy has changed since the peer was verified.
func (h *session) outdated() bool {
	_, generation := h.srv.inForce()
	return generation != h.judged.generation || h.srv.cfg.Machine.Trust() != h.judged.trust
}

// permitAgain judges the peer of a handshake that is done once more if trust or policy has changed since he was verified:
// what a reload refuses gets no key.
func (h *session) permitAgain() error {
	if !h.outdated() {
		return nil
	}
	before := h.judged
	p, err := h.Verify(before.identity, before.static)
	if err != nil {
		h.judged = before // so that it stays outdated, where DNS is to be asked first
		return err
	}
	if err := h.authorize(p); err != nil {
		return err
	}
	return h.permit(p, before.service)
}

// withhold wipes the result of a handshake that is done, of which the peer may not have one after all, and returns what goes
// out instead: a responder's refusal in the place of status 0; an initiator's peer has said the last word.
func (h *session) withhold(err error) []byte {
	h.hs.Result().Wipe()
	if h.role == Initiator {
		return nil
	}
	return noiseproto.StatusFrame(asFailure(err).tell)
}

// knowGroups asks for the caller's account again if the policy in force names local groups that it was not looked up for.
func (h *session) knowGroups(ctx context.Context) error {
	inForce, _ := h.srv.inForce()
	if inForce == nil || h.me == nil || h.me.knowsGroups(inForce.LocalGroups()) {
		return nil
	}
	if h.hurried && !h.srv.ready(h.caller) {
		return errWouldWait
	}
	now, err := h.srv.identityOf(ctx, h.caller)
	if err != nil {
		return err
	}
	me := *h.me
	me.account.LocalGroups = now.account.LocalGroups
	if now.account.Name == me.account.Name { // else the handshake is refused when it is judged
		h.me = &me
	}
	return nil
}

// denial returns the refusal of a connection that was judged, nil if it may be. Its text is for this machine alone.
func denial(c *policy.Connection, v policy.Verdict) error {
	if v.Allowed {
		return nil
	}
	peer, who := c.Peer.Account+"@"+c.Peer.Machine, "the rules of this machine do not let"
	if v.Denied {
		who = "the administrator of this machine has denied what would let"
	}
	if c.Direction == policy.In {
		return reason.Errorf(reason.DeniedByPolicy, "%s %s talk to %s (in): %s", who, peer, c.Account, v.Rule)
	}
	return reason.Errorf(reason.DeniedByPolicy, "%s %s talk to %s (out): %s", who, c.Account, peer, v.Rule)
}

// newConnection returns what a policy judges of a local account and a peer that was proved.
func newConnection(by *policy.Policy, role Role, me *identity, p *certbind.Peer, service string) (*policy.Connection, error) {
	c := &policy.Connection{Direction: policy.In, Account: me.account.Name, Service: service}
	if role == Initiator {
		c.Direction = policy.Out
	}
	groups := by.LocalGroups()
	if !me.knowsGroups(groups) {
		return nil, reason.Errorf(reason.Internal,
			"the rules of this machine changed while %s shook hands: try again", me.account.Name)
	}
	c.Groups = me.account.MemberOf(groups)
	a := aboutPeer(p)
	c.Peer = a.policy
	return c, a.err
}
