package certbind

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// secrets returns the memory of a key's secret numbers, as words or bytes that are read later.
func secrets(t *testing.T, c *Credential) (zeroed func() bool) {
	t.Helper()
	var words [][]big.Word
	number := func(ns ...*big.Int) {
		for _, n := range ns {
			words = append(words, n.Bits())
		}
	}
	var bytes []byte
	switch k := keyOf(c).(type) {
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 as in wipeKey
		number(k.D)
	case ed25519.PrivateKey:
		bytes = k
	case *rsa.PrivateKey:
		number(k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv)
	default:
		t.Fatalf("a key of type %T", k)
	}
	return func() bool {
		return !slices.ContainsFunc(bytes, func(b byte) bool { return b != 0 }) &&
			!slices.ContainsFunc(words, func(n []big.Word) bool {
				return slices.ContainsFunc(n, func(w big.Word) bool { return w != 0 })
			})
	}
}

func TestRule34Wipe(t *testing.T) {
	ca := newCA(t, testca.Options{})
	for _, kind := range []string{"p256", "p384", "ed25519", "rsa2048"} {
		c := credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: kind}))
		zeroed := secrets(t, c)
		if err := c.Prove(t.Context()); err != nil || zeroed() {
			t.Fatalf("%s: before: %v", kind, err)
		}
		c.Wipe()
		c.Wipe()
		if !zeroed() {
			t.Errorf("%s: the key is still there", kind)
		}
		if err := c.Prove(t.Context()); err == nil {
			t.Errorf("%s: it signs after it was wiped", kind)
		}
	}
	// What was read on the way goes in any case, where it is not used too.
	blocks, err := pemBlocks(issue(t, ca, testca.Leaf{Hosts: []string{alpha}}).PEM())
	if err != nil {
		t.Fatal(err)
	}
	wipeKeyBlocks(blocks)
	for _, b := range blocks {
		secret := strings.HasSuffix(b.Type, "PRIVATE KEY")
		if gone := !slices.ContainsFunc(b.Bytes, func(x byte) bool { return x != 0 }); gone != secret {
			t.Errorf("a block of type %s: wiped %v", (&pem.Block{Type: b.Type}).Type, gone)
		}
	}
}

// TestRule34HandshakesGoOn: a handshake that begins while its credential is replaced, and the old one wiped, is attested
// with one or the other, and never fails.
func TestRule34HandshakesGoOn(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	next := func() *Credential {
		return credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: "ed25519"}))
	}
	m, err := NewMachine(MachineConfig{Credential: next(), Name: alpha, Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				att, err := m.Attest(context.Background(), fmt.Sprintf("a%d-%d", g, i), nil) // a new signature each
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := m.Verify(att.Identity, att.Public); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		old := m.Credential()
		if err := m.Reload(next(), trust); err != nil {
			t.Error(err)
		}
		old.Wipe()
	}
	// One that is wiped while it is in force is an error, not a loop.
	m.Credential().Wipe()
	if _, err := m.Attest(context.Background(), "somebody", nil); err == nil {
		t.Error("attested with a key that was wiped")
	}
}
