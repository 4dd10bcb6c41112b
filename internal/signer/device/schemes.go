package device

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"
)

// SaltLength is the salt of signatures by RSA in bytes (docs/spec/protocol.md, section 5.1).
const SaltLength = 32

// VerifyPSS reports whether a signature by RSA is one with SHA-256 and exactly 32 bytes of salt.
func VerifyPSS(key *rsa.PublicKey, digest, signature []byte) bool {
	return rsa.VerifyPSS(key, crypto.SHA256, digest, signature, &rsa.PSSOptions{SaltLength: SaltLength, Hash: crypto.SHA256}) == nil
}

// PadPSS returns the number, in the key's length, that raw RSA makes a signature of: EMSA-PSS of RFC 8017, section 9.1.1,
// with SHA-256, MGF1 of SHA-256, and 32 bytes of random salt.
func PadPSS(key *rsa.PublicKey, digest []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, errors.New("what is to be signed is no digest of SHA-256")
	}
	salt := make([]byte, SaltLength)
	rand.Read(salt) // never fails
	return padPSS(key.N.BitLen(), digest, salt)
}

func padPSS(modulusBits int, digest, salt []byte) ([]byte, error) {
	bits := modulusBits - 1
	length := (bits + 7) / 8
	if length < sha256.Size+len(salt)+2 {
		return nil, errors.New("the modulus is too short")
	}
	h := sha256.New()
	h.Write(make([]byte, 8))
	h.Write(digest)
	h.Write(salt)
	hash := h.Sum(nil)

	padded := make([]byte, (modulusBits+7)/8)
	encoded := padded[len(padded)-length:]
	block := encoded[:length-sha256.Size-1]
	block[len(block)-len(salt)-1] = 1
	copy(block[len(block)-len(salt):], salt)
	for i, counter := 0, uint32(0); i < len(block); counter++ {
		mask := sha256.Sum256(binary.BigEndian.AppendUint32(append([]byte{}, hash...), counter))
		for j := 0; j < len(mask) && i < len(block); i, j = i+1, j+1 {
			block[i] ^= mask[j]
		}
	}
	block[0] &= 0xff >> (8*length - bits)
	copy(encoded[len(block):], hash)
	encoded[length-1] = 0xbc
	return padded, nil
}

// ECDSA returns the signature of the numbers r and s, as X.509 has it.
func ECDSA(r, s []byte) ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
}
