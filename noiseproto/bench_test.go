package noiseproto

import (
	"testing"

	"github.com/flynn/noise"
)

// The benchmarks are read as ratios: both sides of a handshake against Noise XX and ML-KEM alone.

func BenchmarkHandshake(b *testing.B) {
	alpha, beta := sides(b)
	b.ReportAllocs()
	for b.Loop() {
		i, err := New(alpha.config(true))
		if err != nil {
			b.Fatal(err)
		}
		r, err := New(beta.config(false))
		if err != nil {
			b.Fatal(err)
		}
		m2 := r.ok(b, i.first(b))
		i.ok(b, r.ok(b, i.ok(b, m2)))
		if i.Result().KeyData != r.Result().KeyData {
			b.Fatal("keys differ")
		}
		i.Close()
		r.Close()
	}
}

// benchNoise runs the three messages without payloads, with the library's own DH function or with this package's.
func benchNoise(b *testing.B, ownDH bool, psk []byte) {
	alpha, beta := sides(b)
	state := func(initiator bool, s *side) *noise.HandshakeState {
		a := s.attest()
		var d noise.DHFunc = noise.DH25519
		static := noise.DHKey{Private: a.Private[:], Public: a.Public[:]}
		if ownDH {
			own := &dh25519{DHFunc: noise.DH25519, source: FreshKeys{}, static: a}
			d, static = own, own.staticKeypair()
		}
		placement := 0
		if psk != nil {
			placement = 3
		}
		hs, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: noise.NewCipherSuite(d, noise.CipherAESGCM, noise.HashSHA256), Pattern: noise.HandshakeXX,
			Initiator: initiator, Prologue: prologue(1), PresharedKey: psk, PresharedKeyPlacement: placement,
			StaticKeypair: static,
		})
		if err != nil {
			b.Fatal(err)
		}
		return hs
	}
	b.ReportAllocs()
	for b.Loop() {
		w, r := state(true, alpha), state(false, beta)
		for range 3 {
			m, _, _, err := w.WriteMessage(nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			if _, _, _, err = r.ReadMessage(nil, m); err != nil {
				b.Fatal(err)
			}
			w, r = r, w
		}
	}
}

func BenchmarkNoiseXX(b *testing.B)          { benchNoise(b, false, nil) }
func BenchmarkNoiseXXpsk3(b *testing.B)      { benchNoise(b, false, make([]byte, 32)) }
func BenchmarkNoiseXXpsk3OwnDH(b *testing.B) { benchNoise(b, true, make([]byte, 32)) }
