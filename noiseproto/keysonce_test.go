package noiseproto

import (
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
)

// No ephemeral key, encapsulation key or ciphertext comes twice, though the peer sends the same again and again.
func TestRule04KeysServeOnce(t *testing.T) {
	alpha, beta := sides(t)
	seen := map[string]string{}
	once := func(what string, b []byte) {
		if before, twice := seen[string(b)]; twice {
			t.Errorf("%s is the %s of an earlier handshake", what, before)
		}
		seen[string(b)] = what
	}
	first := alpha.start(t, true).first(t)
	for range 16 {
		m1 := alpha.start(t, true).first(t)
		once("initiator's ephemeral key", m1[headerSize:headerSize+keySize])
		once("encrypted encapsulation key", m1[headerSize+keySize:])
		m2 := beta.start(t, false).ok(t, first)
		once("responder's ephemeral key", m2[headerSize:headerSize+keySize])
	}
	// The encapsulation keys themselves, which message 1 shows only encrypted.
	for range 16 {
		dk, err := FreshKeys{}.MLKEM768()
		if err != nil {
			t.Fatal(err)
		}
		once("encapsulation key", dk.EncapsulationKey())
		ek, err := mlkem768.NewEncapsulationKey(dk.EncapsulationKey())
		if err != nil {
			t.Fatal(err)
		}
		secret, ciphertext := systemRandom{}.encapsulate(ek)
		again, other := systemRandom{}.encapsulate(ek)
		once("shared secret", secret)
		once("shared secret", again)
		once("ciphertext", ciphertext)
		once("ciphertext", other)
	}
}
