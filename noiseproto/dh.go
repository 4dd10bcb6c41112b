package noiseproto

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/x25519"
)

// What github.com/flynn/noise is given in the place of a private key: which of the handshake's two it is. The library keeps
// the bytes and hands them to DH, and does nothing else with them. So no private key is in its state, where nobody could wipe
// it.
const (
	ephemeralKey byte = iota + 1
	staticKey
)

// dh25519 is Noise's DH function "25519" for one handshake, by package x25519.
type dh25519 struct {
	noise.DHFunc // for DHLen and DHName
	source       Keys
	ephemeral    *x25519.KeyPair
	static       *certbind.Attestation
}

// staticKeypair returns the static key pair as the library is to know it.
func (d *dh25519) staticKeypair() noise.DHKey {
	return noise.DHKey{Private: []byte{staticKey}, Public: d.static.Public[:]}
}

// GenerateKeypair takes an ephemeral key pair from the source; the reader, which the library names, is not used.
func (d *dh25519) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	key, err := d.source.X25519()
	if err != nil {
		return noise.DHKey{}, err
	}
	d.ephemeral = key
	return noise.DHKey{Private: []byte{ephemeralKey}, Public: bytes.Clone(key.Public[:])}, nil
}

// DH refuses a result of all zero bytes, which every point of low order gives: package x25519 checks that.
func (d *dh25519) DH(which, public []byte) ([]byte, error) {
	if len(public) != x25519.Size {
		return nil, fmt.Errorf("an X25519 public key has %d bytes", len(public))
	}
	key, err := d.private(which)
	if err != nil {
		return nil, err
	}
	secret, err := x25519.Shared(key, (*[x25519.Size]byte)(public))
	if err != nil {
		return nil, reason.Errorf(reason.DecryptionFailed,
			"an X25519 key of the peer's has low order; its daemon is at fault: %w", err)
	}
	return secret[:], nil
}

func (d *dh25519) private(which []byte) (*[x25519.Size]byte, error) {
	switch {
	case len(which) == 1 && which[0] == ephemeralKey && d.ephemeral != nil:
		return &d.ephemeral.Private, nil
	case len(which) == 1 && which[0] == staticKey:
		return &d.static.Private, nil
	}
	return nil, errors.New("the Noise library asks for a key that the handshake does not have")
}
