package certbind

import (
	"strconv"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func BenchmarkVerify(b *testing.B) {
	for _, k := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048, testca.RSA4096} {
		m, _, _ := pair(b, k, nil)
		a := attest(b, m, "alice")
		trust, now := m.Trust(), m.now()
		b.Run("full/"+k, func(b *testing.B) {
			for b.Loop() {
				if _, err := trust.verify(a.Identity, a.Public, nil, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	m, _, _ := pair(b, "", nil)
	a := attest(b, m, "alice")
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Verify(a.Identity, a.Public); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAttest(b *testing.B) {
	for _, k := range []string{testca.P256, testca.Ed25519, testca.RSA2048, testca.RSA4096} {
		m, _, _ := pair(b, k, nil)
		b.Run("signing/"+k, func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				attest(b, m, "user"+strconv.Itoa(n))
			}
		})
	}
	m, _, _ := pair(b, "", nil)
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			attest(b, m, "alice", Attribute{"uid", "1000"})
		}
	})
}
