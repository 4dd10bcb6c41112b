package signer

import (
	"context"
	"crypto"
)

// A Key is the machine's private key, wherever it is: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits.
type Key interface {
	// Public returns the public key, which never changes.
	Public() crypto.PublicKey
	// Sign signs as a crypto.Signer does: a digest of opts.HashFunc(); for Ed25519 the message, where that is 0; for RSA by
	// PSS, opts being a *rsa.PSSOptions with SHA-256 and 32 bytes of salt. It may be slow, is called several times at once,
	// and ends soon after ctx. Where it fails it says why and what to do; the next call tries again, with the device opened
	// anew where that is what it takes.
	Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
	// Close lets go of the device; no Sign is under way then, and none follows.
	Close() error
}
