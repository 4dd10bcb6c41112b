package certbind

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestCheck(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{Name: "root"})
	old := newCA(t, testca.Options{Name: "old", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	young := newCA(t, testca.Options{Name: "young", NotBefore: now.Add(time.Hour)})
	hosts := []string{alpha}
	leaf := func(l testca.Leaf) *Credential {
		if l.Hosts == nil {
			l.Hosts = hosts
		}
		return credential(t, issue(t, root, l))
	}
	good := leaf(testca.Leaf{})
	cfg := trusting(root)
	withCRL := func(o testca.CRLOptions, staleOK bool, revoked ...*x509.Certificate) TrustConfig {
		c := trusting(root)
		c.CRLs, c.CRLStaleOK = []CRLFile{crlOf(t, root, o, revoked...)}, staleOK
		return c
	}
	limited := trusting(root)
	limited.CAs[0].Names = []string{"example.org"}
	stale := testca.CRLOptions{ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(-time.Minute)}
	subEnding := intermediate(t, root, testca.Options{Name: "ending", NotAfter: now.Add(time.Hour),
		NotBefore: now.Add(-time.Hour * 100)})
	subOld := intermediate(t, root, testca.Options{Name: "over", NotAfter: now.Add(-time.Minute)})
	constrained := intermediate(t, root, testca.Options{PermittedDNS: []string{"example.org"}})
	mismatched := leaf(testca.Leaf{})
	mismatched.Signer = good.Signer
	p521 := leaf(testca.Leaf{})
	p521Cert := issue(t, root, testca.Leaf{Hosts: hosts, KeyType: testca.P521})
	p521.Chain, p521.Leaf = [][]byte{p521Cert.Cert.Raw}, p521Cert.Cert
	for name, tc := range map[string]struct {
		c       *Credential
		machine string
		cfg     *TrustConfig
		want    []string // parts of the faults, in order; a '~' before one that is a warning
	}{
		"good":                {good, "", &cfg, nil},
		"good, named":         {good, alpha, &cfg, nil},
		"no trust":            {good, alpha, nil, nil},
		"another name":        {good, "beta.example.com", &cfg, []string{"does not have the machine's name"}},
		"not a name":          {good, "BETA", &cfg, []string{"lower-case"}},
		"wildcard":            {leaf(testca.Leaf{Hosts: []string{"*.example.com"}}), "", &cfg, []string{"wildcard"}},
		"no name":             {credential(t, issue(t, root, testca.Leaf{})), "", &cfg, []string{"no DNS name"}},
		"several names":       {leaf(testca.Leaf{Hosts: []string{"a.b", "c.d"}}), "", &cfg, []string{"several"}},
		"no digitalSignature": {leaf(testca.Leaf{KeyUsage: x509.KeyUsageKeyAgreement}), "", &cfg, []string{"digitalSignature"}},
		"CA as leaf":          {leaf(testca.Leaf{IsCA: true}), "", &cfg, []string{"is a CA"}},
		"wrong EKU":           {leaf(testca.Leaf{EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}), "", &cfg, []string{"extended key usage"}},
		"expired":             {leaf(testca.Leaf{NotAfter: now.Add(-time.Minute)}), "", &cfg, []string{"has expired"}},
		"not yet":             {leaf(testca.Leaf{NotBefore: now.Add(time.Minute)}), "", &cfg, []string{"valid only from"}},
		// What is still good is none of peers' business.
		"expires soon":       {leaf(testca.Leaf{NotAfter: now.Add(time.Minute)}), "", &cfg, nil},
		"intermediate soon":  {credential(t, issue(t, subEnding, testca.Leaf{Hosts: hosts})), "", &cfg, nil},
		"intermediate over":  {credential(t, issue(t, subOld, testca.Leaf{Hosts: hosts})), "", &cfg, []string{"a CA of the chain has expired"}},
		"name constraint":    {credential(t, issue(t, constrained, testca.Leaf{Hosts: hosts})), "", &cfg, []string{"name constraint"}},
		"unknown CA":         {credential(t, issue(t, young, testca.Leaf{Hosts: hosts})), "", &cfg, []string{"does not lead to a CA"}},
		"CA for other names": {good, "", &limited, []string{"limits it"}},
		"revoked":            {good, "", ptr(withCRL(testca.CRLOptions{}, false, good.Leaf)), []string{"revoked"}},
		"stale list":         {good, "", ptr(withCRL(stale, false)), []string{"due to be replaced"}},
		"stale list allowed": {good, "", ptr(withCRL(stale, true)), []string{"~due to be replaced"}},
		"list of the future": {good, "", ptr(withCRL(testca.CRLOptions{ThisUpdate: now.Add(time.Hour)}, false)), []string{"~future"}},
		"CAs out of time":    {good, "", ptr(trusting(root, old, young)), []string{"~has expired", "~valid only from"}},
		"another key":        {mismatched, "", &cfg, []string{"does not sign for"}},
		"key not acceptable": {p521, "", &cfg, []string{"does not sign for", "P-256 and P-384"}},
		"leaf of a bad name": {leaf(testca.Leaf{Hosts: []string{"localhost"}, IsCA: true}), "", &cfg, []string{"no DNS name", "is a CA"}},
	} {
		t.Run(name, func(t *testing.T) {
			var trust *Trust
			if tc.cfg != nil {
				trust = newTrust(t, *tc.cfg)
			}
			faults := Check(tc.c, tc.machine, trust, now)
			if len(faults) != len(tc.want) {
				t.Fatalf("got %v, want %d faults", faults, len(tc.want))
			}
			for n, f := range faults {
				text, warning := strings.CutPrefix(tc.want[n], "~")
				if !strings.Contains(f.What, text) || f.Warning != warning || f.Cure == "" ||
					!strings.HasSuffix(f.String(), f.Cure) {
					t.Errorf("got %+v, want %q", f, tc.want[n])
				}
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestNewTrustRefuses(t *testing.T) {
	ca := newCA(t, testca.Options{})
	leaf := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	for name, tc := range map[string]struct {
		pem  []byte
		want string
	}{
		"empty":          {nil, "empty"},
		"garbage":        {[]byte("garbage"), "no PEM block"},
		"a leaf":         {leaf.CertPEM, "not a CA"},
		"key":            {append(ca.PEM(), leaf.KeyPEM...), "PRIVATE KEY"},
		"damaged":        {append(ca.PEM(), "-----BEGIN CERTIFICATE-----\n"...), "damaged"},
		"zeros":          {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "does not parse"},
		"P-521":          {newCA(t, testca.Options{KeyType: testca.P521}).PEM(), "P-256"},
		"without use":    {newCA(t, testca.Options{KeyUsage: x509.KeyUsageCRLSign}).PEM(), "certSign"},
		"good and a bad": {append(ca.PEM(), leaf.CertPEM...), "certificate 2"},
	} {
		_, err := NewTrust(TrustConfig{CAs: []CA{{PEM: tc.pem, Source: "here.pem"}}})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "here.pem") {
			t.Errorf("%s: got the error %v", name, err)
		}
	}
	if _, err := NewTrust(TrustConfig{}); err == nil || !strings.Contains(err.Error(), "no CA is trusted") {
		t.Errorf("no CA: %v", err)
	}
	if _, err := NewTrust(TrustConfig{CAs: []CA{{PEM: ca.PEM(), Names: []string{"*.example.com"}}}}); err == nil {
		t.Error("a limit by wildcard was taken")
	}
}
