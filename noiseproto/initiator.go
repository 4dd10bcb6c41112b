package noiseproto

// The initiator's side of the handshake, docs/spec/protocol.md, section 7.1.

import (
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// writeMessage1 writes
//
//	-> e                        payload: encapsulation key
func (h *Handshake) writeMessage1() (frame []byte, err error) {
	if h.noise, h.dh, err = newNoise(h.version, true, h.static, h.source); err != nil {
		return nil, err
	}
	if h.decapsulation, err = h.source.MLKEM768(); err != nil {
		return nil, err
	}
	payload := h.decapsulation.EncapsulationKey()
	frame = h.newFrame(frameMessage1, message1Size)
	if frame, _, _, err = h.noise.WriteMessage(frame, payload); err != nil {
		return nil, err
	}
	h.id = handshakeID(frame[:headerSize], frame[headerSize:])
	h.state = stateWait2
	return frame, nil
}

// takeMessage2 reads
//
//	<- e, ee, s, es             payload: ciphertext, identity, offer
//
// and, if the peer is whom the application wants, the two agree and may talk, writes
//
//	-> s, se, psk               payload: identity, choice
//
// so that a wrong responder never learns who called. Where DNS is to be asked, that is by Resume.
func (h *Handshake) takeMessage2(body []byte) (frame []byte, err error) {
	payload, _, _, err := h.noise.ReadMessage(make([]byte, 0, len(body)), body)
	if err != nil {
		return nil, undecipherable(2, err)
	}
	m, err := parseMessage2(payload)
	if err != nil {
		return nil, err
	}
	psk, err := h.decapsulation.Decapsulate(m.ciphertext)
	if err != nil {
		return nil, err
	}
	h.decapsulation = nil
	if err := h.setPSK(psk); err != nil {
		return nil, err
	}
	return h.verify(m.identity, func(peer *certbind.Peer) ([]byte, error) { return h.writeMessage3(peer, m.offer) })
}

// writeMessage3 answers message 2 of a peer who is proved and the one that the application wants.
func (h *Handshake) writeMessage3(peer *certbind.Peer, encodedOffer []byte) (frame []byte, err error) {
	offer, err := parseOffer(encodedOffer)
	if err != nil {
		return nil, err
	}
	c, err := choose(h.params, offer)
	if err != nil {
		return nil, err
	}
	if err := h.mayTalk(peer, c); err != nil {
		return nil, err
	}

	encoded, err := marshalChoice(c)
	if err != nil {
		return nil, err
	}
	m3, err := (&message3{h.static.Identity, encoded}).marshal()
	if err != nil {
		return nil, err
	}
	frame, k1, k2, err := h.noise.WriteMessage(h.newFrame(frameMessage3, message3Overhead+len(m3)), m3)
	if err != nil {
		return nil, err
	}
	h.pending = newResult(peer, splitKeys(k1, k2), c, offer.RPCVersions, offer.MaxFrameSize)
	h.endNoise()
	h.state = stateWaitStatus
	return frame, nil
}

// takeStatus ends the handshake: well only if it answers message 3 with code 0.
func (h *Handshake) takeStatus(body []byte) error {
	s, err := parseStatus(body)
	switch {
	case err != nil:
		return err
	case s.code != reason.Accepted:
		return s.refusal(h.version)
	case h.state != stateWaitStatus:
		return reason.Errorf(reason.Malformed, "the peer sent an accepting status where a %s must come", h.state.expects())
	}
	h.finish(h.pending)
	return nil
}
