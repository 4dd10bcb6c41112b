package certbind

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/pem"
	"math/big"
	"strings"
)

// Wipe zeroes the private key as far as Go allows, once it signs nothing any more. Who held on to the credential signs
// nothing with it from then on: a Machine turns to the one in force. A key outside this process is let go of. A signature
// that is being made is not waited for: the key is wiped right after it.
func (c *Credential) Wipe() {
	c.wiped.Store(true)
	if k, ok := c.Signer.(*keySigner); ok {
		k.wipe()
	}
}

// wipeKey zeroes the secret numbers of a key. What the standard library derived from them for its own use, it keeps in
// values that cannot be reached, and that are freed with the key.
func wipeKey(key crypto.Signer) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 there is no other way to the number's memory
		wipeNumber(k.D)
	case ed25519.PrivateKey:
		clear(k)
	case *rsa.PrivateKey:
		wipeNumber(k.D)
		for _, p := range k.Primes {
			wipeNumber(p)
		}
		for _, n := range []*big.Int{k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv} {
			wipeNumber(n)
		}
	}
}

// wipeKeyBlocks zeroes the private keys among PEM blocks, of which the parsers of keys keep no part. Those of certificates
// do.
func wipeKeyBlocks(blocks []*pem.Block) {
	for _, b := range blocks {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			clear(b.Bytes)
		}
	}
}

func wipeNumber(n *big.Int) {
	if n != nil {
		words := n.Bits()
		clear(words[:cap(words)])
		n.SetInt64(0)
	}
}
