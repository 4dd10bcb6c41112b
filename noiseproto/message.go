package noiseproto

import "crypto/mlkem"

// The parts of the payloads and of the Noise messages, docs/protocol.md, section 4, in bytes.
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
	ciphertext      []byte // ML-KEM-768, mlkem.CiphertextSize768 bytes
	identity, offer []byte
}

func (m *message2) size() int { return len(m.ciphertext) + 2 + len(m.identity) + 2 + len(m.offer) }

func (m *message2) append(b []byte) []byte {
	b = append(b, m.ciphertext...)
	b = appendOpaque16(b, m.identity)
	return appendOpaque16(b, m.offer)
}

// parseMessage2 reads the payload of message 2. The result points into b.
func parseMessage2(b []byte) (message2, error) {
	d := decoder{b: b}
	m := message2{
		ciphertext: d.take("ML-KEM ciphertext", mlkem.CiphertextSize768),
		identity:   d.opaque("identity", 2, 1, maxIdentitySize),
		offer:      d.opaque("offer", 2, 1, maxNegotiateSize),
	}
	return m, d.end("message 2")
}

// message3 is the payload of message 3.
type message3 struct{ identity, choice []byte }

func (m *message3) size() int { return 2 + len(m.identity) + 2 + len(m.choice) }

func (m *message3) append(b []byte) []byte {
	b = appendOpaque16(b, m.identity)
	return appendOpaque16(b, m.choice)
}

// parseMessage3 reads the payload of message 3. The result points into b.
func parseMessage3(b []byte) (message3, error) {
	d := decoder{b: b}
	m := message3{
		identity: d.opaque("identity", 2, 1, maxIdentitySize),
		choice:   d.opaque("choice", 2, 1, maxNegotiateSize),
	}
	return m, d.end("message 3")
}
