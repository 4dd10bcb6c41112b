package certbind

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func certificate(t testing.TB, file string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// The records of testdata/ca.pem with the digests of "openssl dgst".
var caRecords = []string{
	"3 0 1 1137df8d46ca082f01c03b21a2fbde5ec6ebaade3156e8ffdec29ae3e4308660",
	"3 0 2 6169e721882b9799f9acc5d3356cb06a2c0f92028c78b857c40da78b47e1adbcf86e790d" +
		"17b429d3b5a1c71766e1a88fee648f5b8ab5664160da860cc06cb786",
	"3 1 0 302a300506032b65700321003c36743bfd1c19e184a5589d9edbe11f7ce1d06568a7101eb03f07fba7b1fbed",
	"3 1 1 e74cb8a4bab580ac8d6a4df371533199281cde97457f3db338827ca3a0f7e1db",
	"3 1 2 281885001ad35150bc2f57cece23083ba80897b1777fefafd81d644944f2ae514fcb59a0" +
		"c1fe55a66630a51ee81326a381ca4c70665d39e9171b6cb0e4c55de0",
}

func TestTLSAOfACertificate(t *testing.T) {
	cert := certificate(t, "testdata/ca.pem")
	other := issue(t, newCA(t, testca.Options{}), testca.Leaf{Hosts: []string{alpha}}).Cert
	all := append([]string{"3 0 0 " + hex.EncodeToString(cert.Raw)}, caRecords...)
	for i, want := range all {
		r, err := NewTLSA(cert, byte(i/3), byte(i%3))
		if err != nil {
			t.Fatal(err)
		}
		if r.String() != want {
			t.Errorf("%d: got %v, want %s", i, r, want)
		}
		if !r.Usable() || !r.Matches(cert) || r.Matches(other) {
			t.Errorf("%v: usable %v, matches %v, another one %v", r, r.Usable(), r.Matches(cert), r.Matches(other))
		}
		back, err := ParseTLSA(r.Marshal())
		if err != nil || back.String() != want {
			t.Errorf("%v came back as %v, %v", r, back, err)
		}
	}
	for _, n := range [][2]byte{{2, 1}, {0, 3}, {255, 255}} {
		if r, err := NewTLSA(cert, n[0], n[1]); err == nil {
			t.Errorf("selector %d, matching %d: %v", n[0], n[1], r)
		}
	}
}

// The same key in another certificate is matched by its key alone: so a certificate is renewed without a change of DNS.
func TestTLSAOfARenewedCertificate(t *testing.T) {
	ca := newCA(t, testca.Options{})
	first := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	second := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, Key: first.Key})
	for selector, want := range []bool{false, true} {
		for matching := range byte(3) {
			r, err := NewTLSA(first.Cert, byte(selector), matching)
			if err != nil {
				t.Fatal(err)
			}
			if r.Matches(second.Cert) != want {
				t.Errorf("selector %d, matching %d: %v", selector, matching, !want)
			}
		}
	}
}

// What is right but for one thing vouches for nobody, not even for whom its data is of.
func TestTLSAUnusable(t *testing.T) {
	cert := certificate(t, "testdata/ca.pem")
	sum, full := caRecords[3][6:], hex.EncodeToString(cert.RawSubjectPublicKeyInfo)
	for _, tc := range []struct{ what, rdata string }{
		{"usage 0", "000101" + sum},
		{"usage 1", "010101" + sum},
		{"usage 2", "020101" + sum},
		{"usage 4", "040101" + sum},
		{"usage 255", "ff0101" + sum},
		{"selector 2", "030201" + sum},
		{"matching 3", "030103" + sum},
		{"a short digest", "030101" + sum[2:]},
		{"a long digest", "030101" + sum + "00"},
		{"SHA-256 as SHA-512", "030102" + sum},
		{"SHA-256 in full", "030100" + sum},
		{"less than all", "030100" + full[:len(full)-2]},
		{"more than all", "030100" + full + "00"},
	} {
		b, err := hex.DecodeString(tc.rdata)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseTLSA(b)
		if err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		if r.Matches(cert) {
			t.Errorf("%s vouches", tc.what)
		}
		if full := r.Matching == MatchingFull; r.Usable() != full {
			t.Errorf("%s: usable is %v", tc.what, r.Usable())
		}
	}
	if (TLSA{Usage: UsageDANEEE}).Usable() {
		t.Error("a record without data is usable")
	}
}

func TestParseTLSABounds(t *testing.T) {
	for n, good := range map[int]bool{0: false, 3: false, 4: true, 3 + maxTLSAData: true, 4 + maxTLSAData: false} {
		if _, err := ParseTLSA(bytes.Repeat([]byte{3}, n)); (err == nil) != good {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// What parses is encoded to the same bytes, does not change with the buffer it came in, and vouches for the certificate only
// as one of those that were made of it.
func FuzzTLSA(f *testing.F) {
	block, _ := pem.Decode(testdata(f, "ca.pem"))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range caRecords {
		b, err := hex.DecodeString("03" + "0" + text[2:3] + "0" + text[4:5] + text[6:])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte{3, 0, 0})
	f.Add(append([]byte{3, 0, 0}, cert.Raw...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseTLSA(b)
		if err != nil {
			return
		}
		sent := bytes.Clone(b)
		clear(b)
		if !bytes.Equal(r.Marshal(), sent) {
			t.Fatalf("%x came back as %x", sent, r.Marshal())
		}
		if made := "3 0 0 " + hex.EncodeToString(cert.Raw); r.Matches(cert) != (r.String() == made ||
			strings.Contains(strings.Join(caRecords, "\n")+"\n", r.String()+"\n")) {
			t.Fatalf("%v vouches: %v", r, r.Matches(cert))
		}
	})
}

// What is published of a PEM has a key, and of a private key nothing but its public one is kept.
func FuzzPublished(f *testing.F) {
	host, ca := testdata(f, "host.pem"), testdata(f, "ca.pem")
	f.Add(host)
	f.Add(append(bytes.Clone(ca), host...))
	f.Add(host[:bytes.Index(host, []byte("-----BEGIN CERT"))])
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cert, err := ParsePublished(b)
		if err != nil {
			return
		}
		if _, err := NewTLSA(cert, SelectorSPKI, MatchingSHA256); err != nil || len(cert.RawSubjectPublicKeyInfo) == 0 {
			t.Fatalf("%v of %q", err, b)
		}
	})
}
