package certbind

import (
	"bytes"
	"crypto"
	"crypto/x509/pkix"
	"errors"
	"reflect"
	"slices"
	"strings"
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

// Whatever comes, an identity is refused with a code, and what parses is encoded to the same bytes.
func FuzzIdentity(f *testing.F) {
	ca := newCA(f, testca.Options{})
	sub := intermediate(f, ca, testca.Options{})
	i := issue(f, sub, testca.Leaf{Hosts: []string{alpha}})
	trust := newTrust(f, trusting(ca))
	c := newClaim(i, sub)
	good := c.sign(f, i)
	sample, err := sampleIdentity().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:100])
	f.Add(sample)
	f.Add([]byte{4, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := trust.verify(b, c.used, c.now)
		var refusal *reason.Error
		switch {
		case err == nil && !bytes.Equal(b, good) && (o.peer.Machine != alpha || o.peer.Account != "alice"):
			t.Fatalf("%x was accepted", b)
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

// What parses keeps the bounds, has its key, and is found again from its own parts.
func FuzzCredential(f *testing.F) {
	ca := newCA(f, testca.Options{})
	sub := intermediate(f, ca, testca.Options{})
	i := issue(f, sub, testca.Leaf{Hosts: []string{alpha}})
	f.Add(i.PEM(), []byte(nil))
	f.Add(i.CertPEM, i.KeyPEM)
	f.Add(append(ca.PEM(), i.PEM()...), []byte(nil))
	f.Add(i.KeyPEM, i.CertPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte{})
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), []byte(nil))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n"), []byte(nil))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		c, err := ParseCredential(cert, key)
		if err != nil {
			return
		}
		if n := len(c.Chain); n < 1 || n > maxCertificates || n != len(c.Certificates) || !bytes.Equal(c.Chain[0], c.Leaf.Raw) {
			t.Fatalf("a chain of %d", n)
		}
		if pub, ok := c.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(c.Signer.Public()) {
			t.Fatal("the leaf is not the key's")
		}
		_, _ = c.MachineName("", alpha)
		Check(c, "", nil, time.Unix(1, 0))
	})
}

func FuzzCRL(f *testing.F) {
	ca := newCA(f, testca.Options{})
	leaf := issue(f, ca, testca.Leaf{Hosts: []string{alpha}})
	good := crlOf(f, ca, testca.CRLOptions{}, leaf.Cert).Data
	f.Add(good)
	f.Add(crlPEM(good))
	f.Add(good[:50])
	for _, ext := range [][]byte{testca.DeltaIndicator.Value, testca.IssuingDistributionPoint.Value} {
		f.Add(ext)
	}
	cfg := trusting(ca)
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := parseCRLs(CRLFile{Data: b, Source: "x"})
		if err != nil {
			if lists != nil {
				t.Fatal("lists and an error")
			}
			return
		}
		for _, l := range lists {
			if l.list.NextUpdate.IsZero() || slices.ContainsFunc(l.list.Extensions, critical) {
				t.Fatal("a list that cannot be relied on was taken")
			}
			// Nobody but the CA makes a list that counts.
			if l.signedBy(ca.Cert) && !l.revokes(leaf.Cert) {
				t.Fatal("a list was changed and is still signed")
			}
		}
		c := cfg
		c.CRLs = []CRLFile{{Data: b, Source: "x"}}
		_, _ = NewTrust(c)
	})
}

func critical(e pkix.Extension) bool { return e.Critical }

func FuzzCAFlag(f *testing.F) {
	for _, s := range []string{"ca.pem", "example.com=ca.pem", "A.b,c.d=/x=y", "system", "a=system", "/a=b", "=", ",=", "*.a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		names, file, err := ParseCAFlag(v)
		if err != nil {
			if names != nil || file != "" {
				t.Fatalf("%q: results %v, %q beside %v", v, names, file, err)
			}
			return
		}
		if file == "" || file == "system" && len(names) == 0 || len(file) > len(v) {
			t.Fatalf("%q gave the file %q", v, file)
		}
		for _, n := range names {
			if err := ValidMachineName(n); err != nil {
				t.Fatalf("%q gave the name %q: %v", v, n, err)
			}
		}
		// What was parsed, written out, is parsed to the same.
		if len(names) > 0 {
			again, file2, err := ParseCAFlag(strings.Join(names, ",") + "=" + file)
			if err != nil || file2 != file || !reflect.DeepEqual(again, names) {
				t.Fatalf("%q: %v, %q, %v", v, again, file2, err)
			}
		}
	})
}
