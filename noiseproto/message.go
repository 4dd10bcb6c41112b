package noiseproto

import (
	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

// The parts of the payloads and of the Noise messages, docs/spec/protocol.md, section 4, in bytes.
const (
	keySize         = 32 // an X25519 public key
	tagSize         = 16 // an AES-GCM tag
	maxIdentitySize = 21504

	// What stands around the payloads of messages 2 (e, encrypted s) and 3 (encrypted s).
	message2Overhead = keySize + keySize + tagSize + tagSize
	message3Overhead = keySize + tagSize + tagSize
)

// message2 is the payload of message 2.
type message2 struct {
	ciphertext      []byte // ML-KEM-768, mlkem768.CiphertextSize bytes
	identity, offer []byte
}

func (m *message2) marshal() ([]byte, error) {
	var w wire.Writer
	w.Put("ciphertext", m.ciphertext, mlkem768.CiphertextSize)
	w.Opaque16("identity", m.identity, 1, maxIdentitySize)
	w.Opaque16("offer", m.offer, 1, maxNegotiateSize)
	return w.Bytes()
}

// parseMessage2 reads the payload of message 2. The result points into b.
func parseMessage2(b []byte) (message2, error) {
	r := wire.NewReader(b)
	m := message2{
		ciphertext: r.Take("ciphertext", mlkem768.CiphertextSize),
		identity:   r.Opaque16("identity", 1, maxIdentitySize),
		offer:      r.Opaque16("offer", 1, maxNegotiateSize),
	}
	return m, malformed("message 2", r.End())
}

// message3 is the payload of message 3.
type message3 struct{ identity, choice []byte }

func (m *message3) marshal() ([]byte, error) {
	var w wire.Writer
	w.Opaque16("identity", m.identity, 1, maxIdentitySize)
	w.Opaque16("choice", m.choice, 1, maxNegotiateSize)
	return w.Bytes()
}

// parseMessage3 reads the payload of message 3. The result points into b.
func parseMessage3(b []byte) (message3, error) {
	r := wire.NewReader(b)
	m := message3{
		identity: r.Opaque16("identity", 1, maxIdentitySize),
		choice:   r.Opaque16("choice", 1, maxNegotiateSize),
	}
	return m, malformed("message 3", r.End())
}

// malformed turns what is wrong with the format of what the peer sent into the refusal of it, nil if nothing is.
func malformed(what string, err error) error {
	if err == nil {
		return nil
	}
	return reason.Errorf(reason.Malformed, "the peer's %s is malformed: %w", what, err)
}
