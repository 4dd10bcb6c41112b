package certbind

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// The CAs whose lists count are those that are trusted and those that they vouch for.
func TestListIssuers(t *testing.T) {
	ca, other := testca.MustCA(t, testca.Options{}), testca.MustCA(t, testca.Options{})
	below := testca.MustIntermediate(t, ca, testca.Options{})
	lowest := testca.MustIntermediate(t, below, testca.Options{})
	over := testca.MustIntermediate(t, ca, testca.Options{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)})
	strange := testca.MustIntermediate(t, other, testca.Options{})
	leaf := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	trust, err := NewTrust(TrustConfig{CAs: []CA{{PEM: ca.PEM()}}})
	if err != nil {
		t.Fatal(err)
	}
	got := trust.ListIssuers([]*x509.Certificate{lowest.Cert, below.Cert, over.Cert, strange.Cert, leaf.Cert, other.Cert, ca.Cert}, time.Now())
	if want := []*x509.Certificate{ca.Cert, lowest.Cert, below.Cert}; !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
		t.Errorf("%d issuers, want the CA and two below it", len(got))
	}
}

func TestReadList(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{})
	issuers := []*x509.Certificate{testca.MustCA(t, testca.Options{}).Cert, ca.Cert}
	now := time.Now().Truncate(time.Second)
	list := func(n int64, made time.Time) *List {
		t.Helper()
		der := testca.MustCRL(t, ca, nil, testca.CRLOptions{Number: big.NewInt(n), ThisUpdate: made})
		l, err := ReadList(der, issuers)
		if err != nil || !bytes.Equal(l.DER, der) || !bytes.Equal(l.Mark.Key, ca.Cert.RawSubjectPublicKeyInfo) {
			t.Fatalf("%+v %v", l, err)
		}
		return l
	}
	first, again := list(1, now.Add(-time.Hour)), list(1, now.Add(-time.Hour))
	later, second := list(1, now), list(2, now.Add(-2*time.Hour))
	for _, tt := range []struct {
		name string
		a, b *List
		want bool
	}{
		{"the same", first, again, false}, {"later", later, first, true}, {"earlier", first, later, false},
		{"higher", second, later, true}, {"lower", later, second, false},
	} {
		if got := tt.a.Newer(tt.b); got != tt.want {
			t.Errorf("%s: newer is %v", tt.name, got)
		}
	}
	if !first.Same(again) || first.Same(later) {
		t.Error("Same does not go by what is signed")
	}
	for after, want := range map[time.Duration]string{0: "", 48 * time.Hour: "due to be replaced", -2 * time.Hour: "from the future"} {
		if err := first.Usable(now.Add(after)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if _, err := ReadList(first.DER, issuers[:1]); err == nil || !strings.Contains(err.Error(), "none of the CAs") {
		t.Error(err)
	}
}

func TestListPlaces(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{})
	for _, tt := range []struct {
		place pkix.Extension
		want  string
	}{
		{testca.Places([]string{"http://b/", "ldap:x", "http://a/"}), "http://a/ http://b/ ldap:x"},
		{testca.Places([]string{"http://a/"}, 0x81, 1, 0x80), ""}, // of some reasons
		{testca.Places([]string{"der:30"}), ""},
		{pkix.Extension{Id: testca.Places(nil).Id, Value: []byte{0x30, 0x80}}, ""},
	} {
		leaf, err := ca.Issue(testca.Leaf{Hosts: []string{"a.test"}, ExtraExtensions: []pkix.Extension{tt.place}})
		if err != nil {
			continue // crypto/x509 itself refuses it
		}
		var got []string
		for _, p := range ListPlaces(leaf.Cert) {
			got = append(got, strings.Join(p, " "))
		}
		if strings.Join(got, "|") != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// Of a file with a key nothing but certificates comes out, however it is damaged.
func TestPublicPart(t *testing.T) {
	leaf := testca.MustIssue(t, testca.MustCA(t, testca.Options{}), testca.Leaf{Hosts: []string{"a.test"}})
	certs, err := ReadCertificates(slices.Concat(leaf.KeyPEM, []byte("comment\n"), leaf.CertPEM), true)
	if err != nil || len(certs) != 1 || !certs[0].Equal(leaf.Cert) {
		t.Errorf("%d: %v", len(certs), err)
	}
	noEnd := bytes.Replace(leaf.CertPEM, []byte("-----END CERTIFICATE-----\n"), nil, 1)
	for name, data := range map[string][]byte{
		"no end": slices.Concat(noEnd, leaf.KeyPEM), "no certificate": leaf.KeyPEM, "nothing": nil,
		"key as certificate": bytes.ReplaceAll(leaf.KeyPEM, []byte("PRIVATE KEY"), []byte("CERTIFICATE")),
	} {
		if certs, err := ReadCertificates(data, true); err == nil || len(certs) > 0 {
			t.Errorf("%s: %d certificates", name, len(certs))
		}
	}
	if _, err := ReadCertificates(leaf.PEM(), false); err == nil || !strings.Contains(err.Error(), "only certificates") {
		t.Error(err)
	}
	if certs, err := ReadCertificates(leaf.CertPEM, false); err != nil || len(certs) != 1 {
		t.Error(err)
	}
}

// What nobody has signed is not read: each two bytes of such an answer would be 72 in memory, and the process its bound's.
func TestReadListUnread(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{})
	sequence := func(content ...[]byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(content...)})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	null := []byte{5, 0}
	answer := sequence(sequence(bytes.Repeat(null, 1<<20)), null, null)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadList(answer, []*x509.Certificate{ca.Cert})
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > uint64(len(answer)) {
		t.Errorf("%d bytes made of %d: %v", used, len(answer), err)
	}
}
