package noiseproto

import (
	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/x25519"
)

// Keys makes the key pairs of handshakes, for callers at the same time. A pair that was given out is never given out again:
// whoever keeps pairs that were made before takes them out for good.
type Keys interface {
	// X25519 returns an ephemeral key pair.
	X25519() (*x25519.KeyPair, error)
	// MLKEM768 returns a decapsulation key.
	MLKEM768() (*mlkem768.DecapsulationKey, error)
}

// FreshKeys makes each key when it is asked for, from the system's random source.
type FreshKeys struct{}

// X25519 makes an ephemeral key pair.
func (FreshKeys) X25519() (*x25519.KeyPair, error) { return x25519.Generate(), nil }

// MLKEM768 makes a decapsulation key.
func (FreshKeys) MLKEM768() (*mlkem768.DecapsulationKey, error) { return mlkem768.Generate(), nil }

// A keySource is all that one handshake takes by chance.
type keySource interface {
	Keys
	// encapsulate returns a shared secret (32 bytes) and its ciphertext (1088 bytes).
	encapsulate(*mlkem768.EncapsulationKey) (secret, ciphertext []byte)
}

// systemRandom encapsulates with the system's random source; keys come from where Config says.
type systemRandom struct{ Keys }

func (systemRandom) encapsulate(ek *mlkem768.EncapsulationKey) (secret, ciphertext []byte) {
	return ek.Encapsulate()
}

// prologue ties the version in the headers to the handshake: 13 bytes, docs/spec/protocol.md, section 2.
func prologue(version byte) []byte { return append([]byte("shared-altsd"), version) }

// newNoise returns the Noise state of Noise_XXpsk3_25519_AESGCM_SHA256 with the psk still to be set, and the DH
// function that holds its ephemeral key.
func newNoise(version byte, initiator bool, static *certbind.Attestation, source Keys) (*noise.HandshakeState,
	*dh25519, error) {
	dh := &dh25519{DHFunc: noise.DH25519, source: source, static: static}
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           noise.NewCipherSuite(dh, noise.CipherAESGCM, noise.HashSHA256),
		Pattern:               noise.HandshakeXX,
		Initiator:             initiator,
		Prologue:              prologue(version),
		PresharedKeyPlacement: 3,
		StaticKeypair:         dh.staticKeypair(),
	})
	return hs, dh, err
}

// splitKeys returns k1 || k2, the key data of docs/spec/protocol.md, section 7.3. The states never encrypt anything.
func splitKeys(initiatorToResponder, responderToInitiator *noise.CipherState) (keyData [64]byte) {
	k1, k2 := initiatorToResponder.UnsafeKey(), responderToInitiator.UnsafeKey()
	copy(keyData[:32], k1[:])
	copy(keyData[32:], k2[:])
	clear(k1[:])
	clear(k2[:])
	return keyData
}

// wipe overwrites the static private key's bytes, lets go of the ephemeral one, which Go cannot wipe, and drops everything
// that could be used to go on with the handshake.
func (h *Handshake) wipe() {
	if h.dh != nil {
		if h.dh.ephemeral != nil {
			h.dh.ephemeral.Wipe()
		}
		h.dh.ephemeral = nil
	}
	if h.static != nil {
		h.static.Wipe()
	}
	h.noise, h.dh, h.static, h.decapsulation = nil, nil, nil, nil
	h.reader, h.pending, h.offer = frameReader{}, nil, nil
	h.unresolved, h.resume = nil, nil
}
