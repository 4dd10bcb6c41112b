// Package mlkem768 is ML-KEM-768 (FIPS 203), by github.com/cloudflare/circl, which takes less time than crypto/mlkem
// (docs/spec/audit.md).
package mlkem768

import (
	"crypto/rand"
	"fmt"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

// Sizes, in bytes.
const (
	SeedSize             = mlkem768.KeySeedSize           // 64, d || z of algorithm 16
	RandomnessSize       = mlkem768.EncapsulationSeedSize // 32, m of algorithm 17
	EncapsulationKeySize = mlkem768.PublicKeySize         // 1184
	CiphertextSize       = mlkem768.CiphertextSize        // 1088
	SecretSize           = mlkem768.SharedKeySize         // 32
)

// A DecapsulationKey is a private key, with its public one. It is safe for concurrent use. Nothing can wipe it.
type DecapsulationKey struct {
	private       mlkem768.PrivateKey
	encapsulation [EncapsulationKeySize]byte
}

// Generate makes a key by the system's random source.
func Generate() *DecapsulationKey {
	var seed [SeedSize]byte
	rand.Read(seed[:]) // it never fails
	defer clear(seed[:])
	return FromSeed(&seed)
}

// FromSeed makes the key of a seed.
func FromSeed(seed *[SeedSize]byte) *DecapsulationKey {
	defer leaveVectors()
	public, private := mlkem768.NewKeyFromSeed(seed[:])
	k := &DecapsulationKey{private: *private}
	public.Pack(k.encapsulation[:])
	return k
}

// EncapsulationKey returns the public key, which is not to be changed.
func (k *DecapsulationKey) EncapsulationKey() []byte { return k.encapsulation[:] }

// Decapsulate returns the secret (SecretSize bytes) that a ciphertext holds. If that was not made for this key, it is another secret, which
// nobody else can compute, and takes the same time. An error is the ciphertext's size.
func (k *DecapsulationKey) Decapsulate(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) != CiphertextSize {
		return nil, fmt.Errorf("an ML-KEM-768 ciphertext has %d bytes, not %d", CiphertextSize, len(ciphertext))
	}
	defer leaveVectors()
	secret := make([]byte, SecretSize)
	k.private.DecapsulateTo(secret, ciphertext)
	return secret, nil
}

// An EncapsulationKey is a public key.
type EncapsulationKey struct{ public mlkem768.PublicKey }

// NewEncapsulationKey reads a public key. An error is its size, or a coefficient that is not reduced (FIPS 203, section 7.2).
func NewEncapsulationKey(b []byte) (*EncapsulationKey, error) {
	defer leaveVectors()
	k := new(EncapsulationKey)
	if err := k.public.Unpack(b); err != nil {
		return nil, err
	}
	return k, nil
}

// Encapsulate returns a new secret (SecretSize bytes), and the ciphertext (CiphertextSize) that holds it.
func (k *EncapsulationKey) Encapsulate() (secret, ciphertext []byte) {
	var m [RandomnessSize]byte
	rand.Read(m[:]) // it never fails
	defer clear(m[:])
	return k.EncapsulateWith(&m)
}

// EncapsulateWith is Encapsulate by randomness that is given, as in test vectors.
func (k *EncapsulationKey) EncapsulateWith(m *[RandomnessSize]byte) (secret, ciphertext []byte) {
	defer leaveVectors()
	secret, ciphertext = make([]byte, SecretSize), make([]byte, CiphertextSize)
	k.public.EncapsulateTo(ciphertext, secret, m[:])
	return secret, ciphertext
}
