package certbind

import (
	"crypto"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A slowSigner takes a while for each signature, as a key in hardware does.
type slowSigner struct {
	crypto.Signer
	takes time.Duration
}

func (s *slowSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	time.Sleep(s.takes)
	return s.Signer.Sign(r, digest, o)
}

// BenchmarkReloads has 500 accounts shake hands, each with two sets of attributes in turn, while something is replaced and
// after it, with a key that takes 5 ms for a signature: a hundredth of what slow hardware takes. One operation is the
// replacement and the thousand attestations. waits/op is how many of them took longer than half a signature.
func BenchmarkReloads(b *testing.B) {
	const accounts, takes = 500, 5 * time.Millisecond
	ca := newCA(b, testca.Options{})
	slow := func() *Credential {
		c := credential(b, issue(b, ca, testca.Leaf{Hosts: []string{alpha}}))
		c.Signer = SignerOf(&slowSigner{keyOf(c), takes})
		return c
	}
	trust := func() *Trust { return newTrust(b, trusting(ca)) }
	attributes := [][]Attribute{{{"uid", "1"}}, {{"socket", "blue"}, {"uid", "1"}}}
	for _, bc := range []struct {
		what    string
		replace func(*Machine) error
	}{
		{"nothing", func(*Machine) error { return nil }},
		{"list", func(m *Machine) error { return m.Reload(m.Credential(), trust()) }},
		{"certificate", func(m *Machine) error { return m.Reload(slow(), trust()) }},
		{"static", (*Machine).RotateStatic},
	} {
		b.Run(bc.what, func(b *testing.B) {
			m := newMachine(b, MachineConfig{Credential: slow(), Name: alpha, Trust: trust()})
			var waits, attests int
			var worst, spent, replacing time.Duration
			all := func() {
				for n := range 2 * accounts {
					began := time.Now()
					attest(b, m, "user"+strconv.Itoa(n/2), attributes[n%2]...).Wipe()
					took := time.Since(began)
					if attests++; took > takes/2 {
						waits++
					}
					worst, spent = max(worst, took), spent+took
				}
			}
			all()
			waits, attests, worst, spent = 0, 0, 0, 0
			before := m.Stats().Signatures
			for b.Loop() {
				replaced := make(chan error, 1)
				go func() {
					began := time.Now()
					err := bc.replace(m)
					replacing += time.Since(began)
					replaced <- err
				}()
				all()
				if err := <-replaced; err != nil {
					b.Fatal(err)
				}
				all()
			}
			ops := float64(b.N)
			b.ReportMetric(float64(waits)/ops, "waits/op")
			b.ReportMetric(float64(worst.Microseconds())/1e3, "worst-ms")
			b.ReportMetric(float64(spent.Microseconds())/float64(attests), "us/attest")
			b.ReportMetric(float64(replacing.Microseconds())/1e3/ops, "replace-ms/op")
			b.ReportMetric(float64(m.Stats().Signatures-before)/ops, "signatures/op")
		})
	}
}
