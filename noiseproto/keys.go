package noiseproto

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"io"

	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Keys makes the key pairs of handshakes, for callers at the same time. A pair that was given out is never given out again:
// whoever keeps pairs that were made before takes them out for good.
type Keys interface {
	// X25519 returns an ephemeral key pair.
	X25519() (*ecdh.PrivateKey, error)
	// MLKEM768 returns a decapsulation key.
	MLKEM768() (*mlkem.DecapsulationKey768, error)
}

// FreshKeys makes each key when it is asked for, from the system's random source.
type FreshKeys struct{}

// X25519 makes an ephemeral key pair.
func (FreshKeys) X25519() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) }

// MLKEM768 makes a decapsulation key.
func (FreshKeys) MLKEM768() (*mlkem.DecapsulationKey768, error) { return mlkem.GenerateKey768() }

// A keySource is all that one handshake takes by chance.
type keySource interface {
	Keys
	// encapsulate returns a shared secret (32 bytes) and its ciphertext (1088 bytes).
	encapsulate(*mlkem.EncapsulationKey768) (secret, ciphertext []byte)
}

// systemRandom encapsulates with the system's random source; keys come from where Config says.
type systemRandom struct{ Keys }

func (systemRandom) encapsulate(ek *mlkem.EncapsulationKey768) (secret, ciphertext []byte) {
	return ek.Encapsulate()
}

// dh25519 is Noise's DH function "25519" for one handshake, on crypto/ecdh. It keeps the two keys as
// *ecdh.PrivateKey, because making one from 32 bytes costs a scalar multiplication, which the library's own function
// spends at every DH.
type dh25519 struct {
	noise.DHFunc // for DHLen and DHName
	source       Keys
	key          *ecdh.PrivateKey
	private      []byte // what key's private bytes were given out as
	static       *certbind.Attestation
}

// GenerateKeypair takes an ephemeral key pair from the source; the reader, which the library names, is not used.
func (d *dh25519) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	key, err := d.source.X25519()
	if err != nil {
		return noise.DHKey{}, err
	}
	d.key, d.private = key, key.Bytes()
	return noise.DHKey{Private: d.private, Public: key.PublicKey().Bytes()}, nil
}

// DH refuses a result of all zero bytes, which every point of low order gives: crypto/ecdh checks that.
func (d *dh25519) DH(private, public []byte) ([]byte, error) {
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	var key *ecdh.PrivateKey
	switch { // by the very slices, so no secret is compared
	case d.key != nil && &private[0] == &d.private[0]:
		key = d.key
	case d.static != nil && &private[0] == &d.static.Private[0]:
		key = d.static.Key
	}
	if key == nil {
		if key, err = ecdh.X25519().NewPrivateKey(private); err != nil {
			return nil, err
		}
	}
	secret, err := key.ECDH(peer)
	if err != nil {
		return nil, reason.Errorf(reason.DecryptionFailed,
			"an X25519 key of the peer's has low order; its daemon is at fault: %w", err)
	}
	return secret, nil
}

// prologue ties the version in the headers to the handshake: 13 bytes, docs/protocol.md, section 2.
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
		StaticKeypair:         noise.DHKey{Private: static.Private[:], Public: static.Public[:]},
	})
	return hs, dh, err
}

// splitKeys returns k1 || k2, the key data of docs/protocol.md, section 7.3. The states never encrypt anything.
func splitKeys(initiatorToResponder, responderToInitiator *noise.CipherState) (keyData [64]byte) {
	k1, k2 := initiatorToResponder.UnsafeKey(), responderToInitiator.UnsafeKey()
	copy(keyData[:32], k1[:])
	copy(keyData[32:], k2[:])
	clear(k1[:])
	clear(k2[:])
	return keyData
}

// wipe overwrites the private keys of the handshake and drops everything that could be used to go on with it.
func (h *Handshake) wipe() {
	if h.dh != nil {
		clear(h.dh.private)
		h.dh.key = nil
	}
	if h.static != nil {
		h.static.Wipe()
	}
	h.noise, h.dh, h.static, h.decapsulation = nil, nil, nil, nil
	h.reader, h.pending, h.offer = frameReader{}, nil, nil
}
