package certbind

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// An algorithm is that of a key, with parameters or without.
func algorithm(t *testing.T, oid asn1.ObjectIdentifier, parameters any) pkix.AlgorithmIdentifier {
	t.Helper()
	a := pkix.AlgorithmIdentifier{Algorithm: oid}
	if parameters != nil {
		a.Parameters = asn1.RawValue{FullBytes: marshal(t, parameters)}
	}
	return a
}

// Keys that cannot be used are named by their kind, as private keys and in certificates; those that could be used are not.
// (What openssl makes is tested beside check.)
func TestKeyKinds(t *testing.T) {
	long := asn1.ObjectIdentifier{1, 2}
	for range 30 {
		long = append(long, 123456)
	}
	curve := func(oid ...int) pkix.AlgorithmIdentifier { return algorithm(t, oidEC, asn1.ObjectIdentifier(oid)) }
	for _, tc := range []struct {
		alg  pkix.AlgorithmIdentifier
		want string
	}{
		{curve(1, 2, 840, 10045, 3, 1, 7), ""}, {curve(1, 3, 132, 0, 34), ""},
		{curve(1, 3, 132, 0, 10), "an EC key on the curve secp256k1"},
		{curve(1, 2, 3, 4), "an EC key on the curve 1.2.3.4"},
		{algorithm(t, oidEC, long), "an EC key on an unknown curve"},
		{algorithm(t, oidEC, struct{ Version int }{1}), "an EC key with explicit parameters in the place of a curve's name"},
		{algorithm(t, oidEC, 1), ""}, {algorithm(t, oidEC, nil), ""},
		{algorithm(t, asn1.ObjectIdentifier{1, 3, 101, 112}, nil), ""},
		{algorithm(t, asn1.ObjectIdentifier{1, 3, 101, 113}, nil), "an Ed448 key"},
		{algorithm(t, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, nil), "a DSA key"},
		{algorithm(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 17}, nil), "a key of the algorithm 2.16.840.1.101.3.4.3.17"},
		{algorithm(t, long, nil), "a key of an unknown algorithm"},
	} {
		pkcs8 := marshal(t, struct {
			Version int
			Alg     pkix.AlgorithmIdentifier
			Key     []byte
		}{0, tc.alg, []byte{1}})
		spki := marshal(t, struct {
			Alg pkix.AlgorithmIdentifier
			Key asn1.BitString
		}{tc.alg, asn1.BitString{Bytes: []byte{1}, BitLength: 8}})
		if got := privateKeyKind(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}); got != tc.want {
			t.Errorf("PKCS #8: %q, want %q", got, tc.want)
		}
		if got := publicKeyKind(spki); got != tc.want {
			t.Errorf("SubjectPublicKeyInfo: %q, want %q", got, tc.want)
		}
	}
	for _, kind := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"} {
		for _, der := range [][]byte{nil, {0x30, 0}, {0x30, 9}, marshal(t, []int{1, 2, 3}), bytes.Repeat([]byte{0x30, 0x80}, 9)} {
			privateKeyKind(&pem.Block{Type: kind, Bytes: der}) // says nothing of importance, and ends
		}
	}
	ca := newCA(t, testca.Options{})
	odd := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, PublicKey: testca.HugeRSA(2048, 3)})
	if got := certificateKeyKind(odd.Cert.Raw); !strings.Contains(got, "exponent") {
		t.Errorf("got %q", got)
	}
	if got := certificateKeyKind(ca.Cert.Raw) + certificateKeyKind(nil) + publicKeyKind(nil); got != "" {
		t.Errorf("got %q", got)
	}
	for kind, want := range map[string]string{"DSA PRIVATE KEY": "openssl", "TSS2 PRIVATE KEY": "give it to shared-altsd-signer", "OTHER PRIVATE KEY": "openssl"} {
		if _, err := parseKey(&pem.Block{Type: kind}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Files in other forms than PEM are called what they are.
func TestOtherFiles(t *testing.T) {
	ca := newCA(t, testca.Options{})
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	data := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	type info struct {
		Type asn1.ObjectIdentifier
		Data []byte
	}
	type pfx struct {
		V    int
		Info info
	}
	type oldKey struct {
		V   int
		Key []byte
	}
	type sealed struct {
		Alg  info
		Data []byte
	}
	for want, file := range map[string][]byte{
		"Java keystore":         []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"),
		"PKCS #12":              marshal(t, pfx{3, info{data, []byte{1}}}),
		"PKCS #7":               marshal(t, info{data, []byte{1}}),
		"private key in DER":    marshal(t, oldKey{1, []byte{1}}),
		"encrypted private key": marshal(t, sealed{info{data, nil}, []byte{1}}),
		"CERTIFICATE REQUEST":   request,
		"revocation list":       testca.MustCRL(t, ca, nil, testca.CRLOptions{}),
		"certificate in DER":    ca.Cert.Raw,
		"nothing else that is":  []byte("0 garbage"),
		"is nothing else":       marshal(t, []int{1}),
		"known here":            marshal(t, [][]byte{{1}, {2}, {3}}),
		"the file is empty":     []byte("\ufeff\n"),
	} {
		if _, err := pemBlocks(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, kind := range []string{"CERTIFICATE", "NEW CERTIFICATE REQUEST", "X509 CRL", "CMS", "X509 CERTIFICATE", "DH PARAMETERS"} {
		if wrongBlock(kind) == nil {
			t.Error(kind)
		}
	}
	// A list where it belongs, and what is taken for one.
	if _, err := parseCRL(request); err == nil || !strings.Contains(err.Error(), "CERTIFICATE REQUEST") {
		t.Error(err)
	}
	ca2 := testca.Leaf{Subject: pkix.Name{CommonName: "a.test"}, KeyType: testca.P256}
	c := credential(t, issue(t, ca, ca2))
	if _, err := c.MachineName(nil, "", ""); err == nil || !strings.Contains(err.Error(), `"a.test", does not count`) {
		t.Error(err)
	}
}

// An object identifier is shown only where it is short.
func TestUnknownCritical(t *testing.T) {
	long := asn1.ObjectIdentifier{1, 2}
	for range 30 {
		long = append(long, 123456)
	}
	for want, oids := range map[string][]asn1.ObjectIdentifier{
		"": {long}, ": 1.2.3 in certificate 2": {long, {1, 2, 3}, {1, 2, 4}},
	} {
		if got := unknownCritical([]*x509.Certificate{{}, {UnhandledCriticalExtensions: oids}}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
