// Package x25519 is X25519 (RFC 7748), by github.com/cloudflare/circl: with keys that can be wiped, which those of crypto/ecdh
// cannot, and in less time (docs/spec/audit.md).
package x25519

import (
	"crypto/rand"
	"errors"

	"github.com/cloudflare/circl/dh/x25519"
)

// Size is that of a private key, a public key and a shared secret, in bytes.
const Size = x25519.Size

// A KeyPair is a private key and its public key.
type KeyPair struct{ Private, Public [Size]byte }

// Generate makes a key pair by the system's random source.
func Generate() *KeyPair {
	k := new(KeyPair)
	rand.Read(k.Private[:]) // it never fails
	x25519.KeyGen((*x25519.Key)(&k.Public), (*x25519.Key)(&k.Private))
	return k
}

// Wipe zeroes the private key.
func (k *KeyPair) Wipe() { clear(k.Private[:]) }

// ErrLowOrder says that a public key is a point of low order, with which everybody would know the secret: it would be zero.
var ErrLowOrder = errors.New("the X25519 public key has low order")

// Shared returns the secret that the owner of a private key shares with that of a public one. It takes the same time for all
// private keys.
func Shared(private, public *[Size]byte) (secret [Size]byte, err error) {
	if !x25519.Shared((*x25519.Key)(&secret), (*x25519.Key)(private), (*x25519.Key)(public)) {
		return [Size]byte{}, ErrLowOrder
	}
	return secret, nil
}
