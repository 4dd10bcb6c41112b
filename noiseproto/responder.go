package noiseproto

// The responder's side of the handshake, docs/spec/protocol.md, section 7.2.

import (
	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// takeMessage1 reads
//
//	-> e                        payload: encapsulation key
//
// and writes
//
//	<- e, ee, s, es             payload: ciphertext, identity, offer
//
// and sets the psk, without which message 3 must not be read: the library would take an empty one.
func (h *Handshake) takeMessage1(body []byte) (frame []byte, err error) {
	h.id = handshakeID(h.reader.raw[:], body)
	if h.refuse != nil {
		return nil, h.refuse
	}
	if h.noise, h.dh, err = newNoise(h.version, false, h.static, h.source); err != nil {
		return nil, err
	}
	payload, _, _, err := h.noise.ReadMessage(make([]byte, 0, len(body)), body)
	if err != nil {
		return nil, undecipherable(1, err)
	}
	ek, err := mlkem768.NewEncapsulationKey(payload) // length and modulus, FIPS 203, section 7.2
	if err != nil {
		return nil, reason.Errorf(reason.DecryptionFailed,
			"the peer's ML-KEM encapsulation key is not valid; its daemon is at fault: %w", err)
	}
	psk, ciphertext := h.source.encapsulate(ek)

	m2, err := (&message2{ciphertext, h.static.Identity, h.offer}).marshal()
	if err != nil {
		return nil, err
	}
	frame, _, _, err = h.noise.WriteMessage(h.newFrame(frameMessage2, message2Overhead+len(m2)), m2)
	if err != nil {
		return nil, err
	}
	if err := h.setPSK(psk); err != nil {
		return nil, err
	}
	h.state = stateWait3
	return frame, nil
}

// takeMessage3 reads
//
//	-> s, se, psk               payload: identity, choice
//
// and, if all is well, answers with status 0; where DNS is to be asked, by Resume.
func (h *Handshake) takeMessage3(body []byte) (frame []byte, err error) {
	payload, k1, k2, err := h.noise.ReadMessage(make([]byte, 0, len(body)), body)
	if err != nil {
		return nil, undecipherable(3, err)
	}
	m, err := parseMessage3(payload)
	if err != nil {
		return nil, err
	}
	return h.verify(m.identity, func(peer *certbind.Peer) ([]byte, error) { return h.accept(peer, m.choice, k1, k2) })
}

// accept answers message 3 of a peer who is proved.
func (h *Handshake) accept(peer *certbind.Peer, encodedChoice []byte, k1, k2 *noise.CipherState) (frame []byte, err error) {
	c, err := parseChoice(encodedChoice)
	if err != nil {
		return nil, err
	}
	if err := c.check(h.params); err != nil {
		return nil, err
	}
	if err := h.mayTalk(peer, c); err != nil {
		return nil, err
	}
	frame = appendStatus(make([]byte, 0, headerSize+statusSize), reason.Accepted, h.version, h.minVersion)
	h.sent += len(frame)
	h.finish(newResult(peer, splitKeys(k1, k2), c, c.rpcVersions, c.maxFrameSize))
	return frame, nil
}
