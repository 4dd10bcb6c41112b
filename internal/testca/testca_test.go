package testca

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestIssue(t *testing.T) {
	root, err := NewCA(Options{Name: "root"})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := root.Intermediate(Options{MaxPathLen: 1})
	if err != nil {
		t.Fatal(err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Cert)
	intermediates.AddCert(sub.Cert)
	for _, k := range []string{"", P224, P256, P384, P521, Ed25519, RSA2048, RSA3072, RSA4096, RSA8192} {
		i, err := sub.Issue(Leaf{Hosts: []string{"a.test"}, KeyType: k})
		if err != nil {
			t.Fatalf("%q: %v", k, err)
		}
		opts := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: "a.test"}
		if _, err := i.Cert.Verify(opts); err != nil {
			t.Errorf("%q: %v", k, err)
		}
		if n := bytes.Count(i.PEM(), []byte("-----BEGIN ")); n != 3 {
			t.Errorf("%q: %d PEM blocks, want key, leaf and intermediate", k, n)
		}
		b, _ := pem.Decode(i.KeyPEM)
		if _, err := x509.ParsePKCS8PrivateKey(b.Bytes); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	if _, err := root.Issue(Leaf{KeyType: "rsa1"}); err == nil {
		t.Error("an unknown key type was accepted")
	}
}

// The embedded RSA keys have the sizes of their names and the usual exponent.
func TestRSAKeys(t *testing.T) {
	for kind, bits := range map[string]int{RSA2048: 2048, RSA3072: 3072, RSA4096: 4096, RSA8192: 8192} {
		k, err := NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		if r := k.(*rsa.PrivateKey); r.N.BitLen() != bits || r.E != 65537 {
			t.Errorf("%s has %d bits and the exponent %d", kind, r.N.BitLen(), r.E)
		}
	}
	if k := HugeRSA(100000, 3); k.N.BitLen() != 100000 || k.E != 3 {
		t.Errorf("%d bits", k.N.BitLen())
	}
}

func TestCRL(t *testing.T) {
	ca, err := NewCA(Options{KeyUsage: x509.KeyUsageCertSign})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.CRL(nil, CRLOptions{}); err == nil {
		t.Fatal("a CA without cRLSign made a list")
	}
	der, err := ca.CRL([]*big.Int{big.NewInt(7)}, CRLOptions{IgnoreKeyUsage: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil || len(l.RevokedCertificateEntries) != 1 || !l.NextUpdate.After(time.Now()) {
		t.Fatalf("got %+v, %v", l, err)
	}
}

// The RSA keys of this package are everybody's: nothing that is installed has them in it.
func TestNothingShipsIt(t *testing.T) {
	for _, program := range []string{"cmd/shared-altsd", "altscreds"} {
		const module = "github.com/shared-altsd/shared-altsd/"
		out, err := exec.Command("go", "list", "-deps", module+program).Output()
		if err != nil || !strings.Contains(string(out), module+program) {
			t.Fatalf("go list: %v", err)
		}
		for _, p := range []string{module + "internal/testca", "testing"} {
			if slices.Contains(strings.Fields(string(out)), p) {
				t.Errorf("%s has %s in it", program, p)
			}
		}
	}
}
