package certbind

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// What parses is encoded to the same bytes: there is one encoding, so that no two byte strings mean the same.
func FuzzStatement(f *testing.F) {
	good, err := sampleStatement().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), 0))
	f.Add([]byte{0, 1, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStatement(b)
		if err != nil {
			if s != nil || reason.Of(err) != reason.StatementInvalid {
				t.Fatalf("got %v, %v", s, err)
			}
			return
		}
		back, err := s.Marshal()
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x came back as %x, %v", b, back, err)
		}
	})
}

// fuzzNow is within the validity of everything in testdata: a CA, a host certificate by way of an intermediate, alice's
// identity there with the static key 01 02 03 00..., and a revocation list. They are files, with Ed25519 keys, because
// each process of a fuzzing run must see the same certificates and the same path through the code.
var fuzzNow = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testdata(f *testing.F, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// Whatever comes, an identity is refused with a code or is the one that was signed, and what parses is encoded to the
// same bytes.
func FuzzIdentity(f *testing.F) {
	good := testdata(f, "identity.bin")
	trust := newTrust(f, TrustConfig{CAs: []CA{{PEM: testdata(f, "ca.pem")}}})
	static := [32]byte{1, 2, 3}
	if _, err := trust.verify(good, static, nil, fuzzNow); err != nil {
		f.Fatal(err)
	}
	sample, err := sampleIdentity().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	byDNS := newTrust(f, TrustConfig{CAs: []CA{{Names: []string{"example.com"}, DANE: true}}})
	f.Add(good)
	f.Add(good[:100])
	f.Add(sample)
	f.Add([]byte{4, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := byDNS.verify(b, static, nil, fuzzNow)
		if u, asks := err.(*Unresolved); err == nil || asks && u.Claimed.String() != "alice@"+alpha {
			t.Fatalf("DNS was not asked, or about %v: %v", u, err)
		}
		o, err := trust.verify(b, static, nil, fuzzNow)
		var refusal *reason.Error
		switch {
		case err == nil && o.peer.String() != "alice@"+alpha:
			t.Fatalf("%x was accepted as %v", b, &o.peer)
		case err != nil && (!errors.As(err, &refusal) || refusal.Code == reason.Internal):
			t.Fatalf("got %v", err)
		}
		id, err := ParseIdentity(b)
		if err != nil {
			return
		}
		back, err := id.Marshal()
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x came back as %x, %v", b, back, err)
		}
	})
}

// What parses keeps the bounds and has its key.
func FuzzCredential(f *testing.F) {
	host, ca := testdata(f, "host.pem"), testdata(f, "ca.pem")
	block, rest := pem.Decode(host)
	key := pem.EncodeToMemory(block)
	if _, err := ParseCredential(rest, key); err != nil {
		f.Fatal(err)
	}
	f.Add(host, []byte(nil))
	f.Add(rest, key)
	f.Add(key, rest)
	f.Add(slices.Concat(ca, host), []byte(nil))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte{})
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), []byte(nil))
	f.Add(rest, []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		c, err := ParseCredential(cert, key)
		if err != nil {
			return
		}
		if n := len(c.Chain); n < 1 || n > maxCertificates || n != len(c.Certificates) {
			t.Fatalf("a chain of %d certificates, %d of them parsed", n, len(c.Certificates))
		}
		pub, ok := c.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !pub.Equal(c.Signer.Public()) || !bytes.Equal(c.Chain[0], c.Leaf.Raw) {
			t.Fatal("the leaf is not the key's")
		}
		if name, err := c.MachineName(nil, "", alpha); err == nil && !hasName(c.Leaf, name) {
			t.Fatalf("the machine name %q is not in the certificate", name)
		}
	})
}

// What is taken can be relied on, and a list that was changed is no longer the CA's.
func FuzzCRL(f *testing.F) {
	good := testdata(f, "list.crl")
	trust := newTrust(f, TrustConfig{CAs: []CA{{PEM: testdata(f, "ca.pem")}}, CRLs: []CRLFile{{Data: good}}})
	ca, revoked := trust.groups[0].certs[0], trust.crls[0].revoked
	f.Add(good)
	f.Add(crlPEM(good))
	f.Add(slices.Concat(crlPEM(good), crlPEM(good)))
	f.Add(good[:50])
	for _, scope := range []pkix.Extension{testca.ListFor("user"), testca.ListFor("CA", "http://ca.example.com/a", "ldap://b"),
		testca.IssuingDistributionPoint} {
		f.Add(testca.MustCRL(f, newCA(f, testca.Options{}), nil, testca.CRLOptions{Extensions: []pkix.Extension{scope}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := parseCRLs(CRLFile{Data: b})
		if err != nil && lists != nil {
			t.Fatal("lists beside an error")
		}
		for _, l := range lists {
			for _, x := range l.list.Extensions {
				point := x.Id.Equal(oidIssuingDistributionPoint)
				if x.Critical && !point {
					t.Fatal("a list with a critical extension was taken")
				}
				if scope, err := parseScope(x.Value); point && (err != nil || scope.IsAll() || !scope.equal(l.scope)) {
					t.Fatalf("a list is for %v, and its extension says %v, %v", l.scope, scope, err)
				}
			}
			if l.list.NextUpdate.IsZero() {
				t.Fatal("a list that cannot be relied on was taken")
			}
			if l.signedBy(ca) && !bytes.Equal(l.revoked.entries, revoked.entries) {
				t.Fatal("a list was changed and is still signed")
			}
			if err := trust.checkCRLIssuer(l); (err == nil) != (l.signedBy(ca) ||
				!bytes.Equal(l.list.RawIssuer, ca.RawSubject)) {
				t.Fatalf("got %v", err)
			}
		}
	})
}

// FuzzListEntries: the head of a list says the same as the whole, and its entries what crypto/x509 reads of them.
func FuzzListEntries(f *testing.F) {
	ca := testca.MustCA(f, testca.Options{})
	good := testca.MustCRL(f, ca, []*big.Int{big.NewInt(5)}, testca.CRLOptions{})
	f.Add(good)
	f.Add(testca.MustCRL(f, ca, nil, testca.CRLOptions{}))
	f.Add(good[:len(good)-1])
	since := pkix.Extension{Id: []int{2, 5, 29, 24}, Value: []byte{5, 0}}
	f.Add(testca.MustCRL(f, ca, []*big.Int{big.NewInt(0x80), big.NewInt(5), new(big.Int).Lsh(big.NewInt(1), 1100), big.NewInt(5)},
		testca.CRLOptions{EntryExtensions: []pkix.Extension{since}}))
	f.Add(testca.MustCRL(f, ca, []*big.Int{big.NewInt(1)}, testca.CRLOptions{EntryExtensions: []pkix.Extension{testca.UnknownCritical}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := x509.ParseRevocationList(data)
		if err != nil {
			return
		}
		head, entries, err := listHead(data)
		if err != nil {
			return
		}
		if !head.ThisUpdate.Equal(whole.ThisUpdate) || !bytes.Equal(head.RawIssuer, whole.RawIssuer) ||
			!bytes.Equal(head.RawTBSRevocationList, whole.RawTBSRevocationList) || !bytes.Equal(head.Signature, whole.Signature) ||
			len(head.Extensions) != len(whole.Extensions) {
			t.Fatal("the head says something else than the list")
		}
		sameEntries(t, entries, whole.RevokedCertificateEntries)
	})
}

// sameEntries compares what is read of entries with what crypto/x509 reads.
func sameEntries(t *testing.T, entries []byte, want []x509.RevocationListEntry) {
	t.Helper()
	got, err := parseEntries(entries)
	if err != nil {
		return // more is refused than there
	}
	positive := 0
	for _, e := range want {
		for _, x := range e.Extensions {
			if x.Critical {
				t.Fatal("an entry with a critical extension was taken")
			}
		}
		if e.SerialNumber.Sign() < 0 {
			continue
		}
		if positive++; !got.has(e.SerialNumber.Bytes()) {
			t.Fatalf("%x is revoked, and not found", e.SerialNumber)
		}
	}
	if len(got.at) != positive {
		t.Fatalf("%d entries, want %d", len(got.at), positive)
	}
}
