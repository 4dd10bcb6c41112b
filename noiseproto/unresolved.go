package noiseproto

// A handshake that waits for what only DNS can say of its peer, docs/spec/protocol.md, section 5.7.

import (
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// verify proves whom the peer's static key speaks for, and goes on with then; or it has the handshake wait, before then, if
// the verifier needs an answer first. It must be called only after ReadMessage succeeded: only then is the key
// authenticated, and copied here.
func (h *Handshake) verify(identity []byte, then func(*certbind.Peer) ([]byte, error)) (reply []byte, err error) {
	peer, err := h.verifier.Verify(identity, [32]byte(h.noise.PeerStatic()))
	if u, ok := err.(*certbind.Unresolved); ok && u != nil {
		h.unresolved, h.resume = u, func() ([]byte, error) { return h.verify(identity, then) }
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if peer == nil {
		return nil, reason.Errorf(reason.Internal, "the verifier named no peer")
	}
	if h.authorize != nil {
		if err := h.authorize(peer); err != nil {
			return nil, err
		}
	}
	return then(peer)
}

// Unresolved returns what the handshake waits for, nil if it does not: the verifier has returned an *certbind.Unresolved
// for the frame that Feed took last. Then it is to be resumed, or ended; Feed would end it.
func (h *Handshake) Unresolved() *certbind.Unresolved { return h.unresolved }

// Resume asks the verifier again and, unless it has no answer still, goes on where Feed stopped: out and err are as Feed's.
// What stood behind the frame in Feed's bytes was not consumed.
func (h *Handshake) Resume() (out []byte, err error) {
	resume := h.resume
	switch {
	case h.state == stateFailed:
		return nil, h.err
	case resume == nil:
		return h.fail(reason.Errorf(reason.Internal, "a handshake was resumed that did not wait"))
	}
	h.unresolved, h.resume = nil, nil
	if out, err = resume(); err != nil {
		return h.fail(err)
	}
	return out, nil
}
