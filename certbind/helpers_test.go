package certbind

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
)

const alpha = "alpha.example.com"

// Where the CA fails the test ends.
var newCA, intermediate, issue = testca.MustCA, testca.MustIntermediate, testca.MustIssue

func crlOf(t testing.TB, ca *testca.CA, o testca.CRLOptions, revoked ...*x509.Certificate) CRLFile {
	t.Helper()
	var serials []*big.Int
	for _, c := range revoked {
		serials = append(serials, c.SerialNumber)
	}
	return CRLFile{Data: testca.MustCRL(t, ca, serials, o), Source: "test.crl"}
}

func trusting(cas ...*testca.CA) TrustConfig {
	var cfg TrustConfig
	for _, ca := range cas {
		cfg.CAs = append(cfg.CAs, CA{PEM: ca.PEM(), Source: "ca.pem"})
	}
	return cfg
}

func newTrust(t testing.TB, cfg TrustConfig) *Trust {
	t.Helper()
	trust, err := NewTrust(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func credential(t testing.TB, i *testca.Issued) *Credential {
	t.Helper()
	c, err := ParseCredential(i.PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A claim is what a peer may send, and when.
type claim struct {
	*testclaim.Claim
	now  time.Time
	used [32]byte // the static key that Noise authenticated
}

// newClaim makes a good claim of alice at the leaf's first DNS name. intermediates are sent after the leaf.
func newClaim(i *testca.Issued, intermediates ...*testca.CA) *claim {
	c := testclaim.New(i, intermediates...)
	return &claim{c, c.NotBefore.Add(5 * time.Minute), c.StaticKey}
}

// sign returns the identity, signed with the issued key.
func (c *claim) sign(i *testca.Issued) []byte {
	c.Key = i.Key
	return c.Identity()
}

// signWith makes the signature of a statement by a key.
func signWith(key crypto.Signer, statement []byte) ([]byte, error) {
	return SignerOf(key).(*keySigner).sign(statement)
}

// keyOf returns the key of a credential that has it in memory.
func keyOf(c *Credential) crypto.Signer { return c.Signer.(*keySigner).key }

func wantCode(t testing.TB, err error, want reason.Code) {
	t.Helper()
	if got := reason.Of(err); got != want {
		t.Fatalf("got code %v (%v), want %v", got, err, want)
	}
	var e *reason.Error
	if want != reason.Accepted && (!errors.As(err, &e) || e.Detail == "") {
		t.Fatalf("the error %v has no detail", err)
	}
}

// testClock is a clock that tests set.
type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

func newMachine(t testing.TB, cfg MachineConfig) *Machine {
	t.Helper()
	m, err := NewMachine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pair makes a machine that trusts its own CA, so that it can attest and verify.
func pair(t testing.TB, keyType string, clock *testClock) (*Machine, *testca.CA, *testca.Issued) {
	t.Helper()
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: keyType})
	cfg := MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca))}
	if clock != nil {
		cfg.Now = clock.now
	}
	return newMachine(t, cfg), ca, i
}

func attest(t testing.TB, m *Machine, account string, attrs ...Attribute) *Attestation {
	t.Helper()
	a, err := m.Attest(context.Background(), account, attrs)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func crlPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// withoutNextUpdate takes the nextUpdate field out of a revocation list; its signature is then wrong.
func withoutNextUpdate(t testing.TB, der []byte) []byte {
	t.Helper()
	var outer struct {
		TBS struct {
			Version    int
			Algorithm  asn1.RawValue
			Issuer     asn1.RawValue
			ThisUpdate asn1.RawValue
			NextUpdate asn1.RawValue
			Revoked    asn1.RawValue `asn1:"optional"`
			Extensions asn1.RawValue `asn1:"optional,explicit,tag:0"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	type shortTBS struct {
		Version    int
		Algorithm  asn1.RawValue
		Issuer     asn1.RawValue
		ThisUpdate asn1.RawValue
	}
	out, err := asn1.Marshal(struct {
		TBS       shortTBS
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{shortTBS{outer.TBS.Version, outer.TBS.Algorithm, outer.TBS.Issuer, outer.TBS.ThisUpdate}, outer.Algorithm,
		outer.Signature})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
