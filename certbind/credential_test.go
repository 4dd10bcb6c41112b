package certbind

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/devca"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestCredentialOrder(t *testing.T) {
	root := newCA(t, testca.Options{Name: "root"})
	one := intermediate(t, root, testca.Options{Name: "one"})
	two := intermediate(t, one, testca.Options{Name: "two"})
	i := issue(t, two, testca.Leaf{Hosts: []string{alpha}})
	parts := [][]byte{i.KeyPEM, devca.CertPEM(i.Cert), two.PEM(), one.PEM(), root.PEM()}
	want := [][]byte{i.Cert.Raw, two.Cert.Raw, one.Cert.Raw}
	// Every order of the five blocks.
	var permute func(k int)
	var tried int
	permute = func(k int) {
		if k == len(parts) {
			c, err := ParseCredential(bytes.Join(parts, []byte("a comment\n")), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(c.Chain, want, bytes.Equal) || !c.Leaf.Equal(i.Cert) || len(c.Certificates) != 3 {
				t.Fatalf("the chain has %d certificates, out of order", len(c.Chain))
			}
			tried++
			return
		}
		for n := k; n < len(parts); n++ {
			parts[k], parts[n] = parts[n], parts[k]
			permute(k + 1)
			parts[k], parts[n] = parts[n], parts[k]
		}
	}
	permute(0)
	if tried != 120 {
		t.Fatalf("%d orders", tried)
	}
	// The key apart, certificates twice.
	if _, err := ParseCredential(append(i.CertPEM, i.CertPEM...), i.KeyPEM); err != nil {
		t.Fatal(err)
	}
}

func TestCredentialKeyFormats(t *testing.T) {
	ca := newCA(t, testca.Options{})
	block := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048, testca.RSA4096} {
		i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: kind})
		forms := [][]byte{i.KeyPEM}
		switch k := i.Key.(type) {
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(k)
			sec1 := block("EC PRIVATE KEY", der, err)
			forms = append(forms, sec1, append(block("EC PARAMETERS", []byte{6, 0}, nil), sec1...))
		case *rsa.PrivateKey:
			forms = append(forms, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil))
		}
		for _, f := range forms {
			c, err := ParseCredential(i.CertPEM, f)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			if err := c.Prove(t.Context()); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
}

func TestCredentialErrors(t *testing.T) {
	root := newCA(t, testca.Options{Name: "root"})
	sub := intermediate(t, root, testca.Options{Name: "sub"})
	stray := intermediate(t, root, testca.Options{Name: "stray"})
	i := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	again := issue(t, sub, testca.Leaf{Hosts: []string{alpha}, Key: i.Key})
	other := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	huge := issue(t, sub, testca.Leaf{Hosts: slices.Repeat([]string{strings.Repeat("h", 60) + ".example.com"}, 300)})
	odd := issue(t, sub, testca.Leaf{Hosts: []string{alpha}, KeyType: testca.P521})
	deep, deepest := sub, []byte(nil)
	for range 4 {
		deep = intermediate(t, deep, testca.Options{})
		deepest = append(deepest, deep.PEM()...)
	}
	deepLeaf := issue(t, deep, testca.Leaf{Hosts: []string{alpha}})
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := x509.MarshalPKCS8PrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{1},
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	for name, tc := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"empty":                {nil, nil, "empty"},
		"spaces":               {[]byte(" \n"), nil, "empty"},
		"garbage":              {[]byte("garbage"), nil, "no PEM block"},
		"DER":                  {i.Cert.Raw, nil, "openssl x509"},
		"no key":               {i.CertPEM, nil, "name its file"},
		"no key in the file":   {i.CertPEM, i.CertPEM, "no private key"},
		"empty key file":       {i.CertPEM, []byte{}, "empty"},
		"no certificate":       {i.KeyPEM, nil, "no certificate"},
		"two keys":             {i.PEM(), i.KeyPEM, "2 private keys"},
		"key of another":       {i.CertPEM, other.KeyPEM, "belongs to none"},
		"encrypted":            {i.CertPEM, block("ENCRYPTED PRIVATE KEY", []byte{1}), "openssl pkey"},
		"encrypted, old":       {i.CertPEM, legacy, "openssl pkey"},
		"key of garbage":       {i.CertPEM, block("PRIVATE KEY", []byte("garbage")), "does not parse"},
		"RSA key of garbage":   {i.CertPEM, block("RSA PRIVATE KEY", []byte("garbage")), "does not parse"},
		"EC key of garbage":    {i.CertPEM, block("EC PRIVATE KEY", []byte("garbage")), "does not parse"},
		"OpenSSH key":          {i.CertPEM, block("OPENSSH PRIVATE KEY", []byte("garbage")), "PKCS #8"},
		"X25519":               {i.CertPEM, block("PRIVATE KEY", agreement), "cannot sign"},
		"P-521":                {odd.CertPEM, odd.KeyPEM, "do not accept"},
		"certificate of zeros": {append(block("CERTIFICATE", make([]byte, 9)), i.KeyPEM...), nil, "does not parse"},
		"a request":            {append(i.PEM(), block("CERTIFICATE REQUEST", []byte{1})...), nil, "CERTIFICATE REQUEST"},
		"damaged block":        {append(i.PEM(), "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n"...), nil, "damaged"},
		"two of the key":       {append(i.PEM(), again.CertPEM...), nil, "2 certificates are of the private key"},
		"too large":            {huge.PEM(), nil, "300 names"},
		"joined":               {append(bytes.TrimSpace(i.KeyPEM), i.CertPEM...), nil, "END line"},
		"one line":             {bytes.ReplaceAll(i.PEM(), []byte("\n"), []byte(" ")), nil, "line breaks are missing"},
		"written breaks":       {bytes.ReplaceAll(i.PEM(), []byte("\n"), []byte(`\n`)), nil, "printf"},
		"UTF-16":               {utf16(i.PEM()), nil, "iconv"},
		"UTF-16, no mark":      {utf16(i.PEM())[2:], nil, "iconv"},
		"a list":               {append(i.PEM(), block("X509 CRL", []byte{1})...), nil, "revocation list"},
		"PKCS #7":              {append(i.KeyPEM, block("PKCS7", []byte{1})...), nil, "openssl pkcs7"},
		"a key in DER":         {i.CertPEM, keyDER(i.KeyPEM), "openssl pkey -inform DER"},
	} {
		_, err := ParseCredential(tc.cert, tc.key)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got the error %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "garbage") {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
	// What issued nobody, and what is too much, does not travel, with a warning.
	for name, tc := range map[string]struct {
		pem  []byte
		sent int
		want string // part of the only warning, "" for none
	}{
		"all of it":            {i.PEM(), 2, ""},
		"a stray intermediate": {append(i.PEM(), stray.PEM()...), 2, "stray"},
		"gap in the chain":     {append(append(deepLeaf.KeyPEM, devca.CertPEM(deepLeaf.Cert)...), sub.PEM()...), 1, "issued none"},
		"too many":             {append(deepLeaf.PEM(), deepest...), 4, "the last 2"},
		"nearly too large":     {issue(t, sub, testca.Leaf{Hosts: slices.Repeat([]string{strings.Repeat("h", 60) + ".example.com"}, 216)}).PEM(), 1, "216 names"},
	} {
		c, err := ParseCredential(tc.pem, nil)
		if err != nil || len(c.Chain) != tc.sent || len(c.Warnings) > 1 || !strings.Contains(strings.Join(c.Warnings, ""), tc.want) ||
			tc.want == "" && len(c.Warnings) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Marks of Windows' editors do no harm, wherever they stand.
	if _, err := ParseCredential(slices.Concat([]byte("\ufeff"), i.KeyPEM, []byte("\ufeff"), i.CertPEM), nil); err != nil {
		t.Error(err)
	}
	// Unrelated roots, as in a bundle, do no harm.
	if _, err := ParseCredential(append(i.PEM(), newCA(t, testca.Options{}).PEM()...), nil); err != nil {
		t.Error(err)
	}
	// Nor does the root itself where it is signed with SHA-1, which peers would refuse in a chain.
	rsaRoot := newCA(t, testca.Options{KeyType: testca.RSA2048})
	// The OID of sha256WithRSAEncryption becomes that of sha1WithRSAEncryption, of the same length.
	old := bytes.ReplaceAll(rsaRoot.Cert.Raw,
		[]byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"))
	c, err := ParseCredential(append(issue(t, rsaRoot, testca.Leaf{Hosts: []string{alpha}}).PEM(),
		block("CERTIFICATE", old)...), nil)
	if err != nil || len(c.Chain) != 1 {
		t.Errorf("a root with SHA-1: %v", err)
	}
	// A self-signed certificate is still the leaf if the key is its own.
	self := issue(t, root, testca.Leaf{Hosts: []string{alpha}, SelfSigned: true})
	if c := credential(t, self); len(c.Chain) != 1 {
		t.Errorf("%d certificates", len(c.Chain))
	}
}

// utf16 writes ASCII as Windows does.
func utf16(text []byte) []byte {
	out := []byte("\xff\xfe")
	for _, c := range text {
		out = append(out, c, 0)
	}
	return out
}

func keyDER(keyPEM []byte) []byte {
	b, _ := pem.Decode(keyPEM)
	return b.Bytes
}

// Both certificates of a CA that two roots have signed travel, in whatever order they stand, and peers of either root
// accept the machine: so a CA is changed.
func TestCrossSigned(t *testing.T) {
	first, second := newCA(t, testca.Options{Name: "first"}), newCA(t, testca.Options{Name: "second"})
	sub := intermediate(t, first, testca.Options{Name: "sub"})
	cross, err := second.CrossSign(sub)
	if err != nil {
		t.Fatal(err)
	}
	i := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	leaf := append(slices.Clone(i.KeyPEM), devca.CertPEM(i.Cert)...)
	for _, pems := range [][][]byte{{leaf, sub.PEM(), cross.PEM()}, {cross.PEM(), first.PEM(), second.PEM(), sub.PEM(), leaf}} {
		c, err := ParseCredential(slices.Concat(pems...), nil)
		if err != nil || len(c.Chain) != 3 || len(c.Warnings) > 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		for _, root := range []*testca.CA{first, second} {
			if faults := Check(c, alpha, newTrust(t, trusting(root)), i.Cert.NotBefore); len(faults) > 0 {
				t.Errorf("a peer of %s: %v", root.Cert.Subject, faults)
			}
		}
	}
}

func TestRule19MachineName(t *testing.T) {
	ca := newCA(t, testca.Options{})
	for name, tc := range map[string]struct {
		sans           []string
		override, fqdn string
		want           string // or, if it has a space, part of the error
	}{
		"the only one":             {[]string{alpha}, "", "other", alpha},
		"capitals":                 {[]string{"ALPHA.example.com"}, "", "", alpha},
		"the only one that can":    {[]string{"*.example.com", "localhost", "10.1.2.3", alpha}, "", "", alpha},
		"twice":                    {[]string{alpha, "Alpha.Example.Com"}, "", "", alpha},
		"the host's of several":    {[]string{"a.example.com", alpha}, "", "ALPHA.example.com.", alpha},
		"several, none the host's": {[]string{"a.example.com", alpha}, "", "b.example.com", "none of them; choose one"},
		"very many":                {slices.Collect(manyNames(12)), "", "", "and 4 more"},
		"override":                 {[]string{"a.example.com", alpha}, alpha, "a.example.com", alpha},
		"override not a SAN":       {[]string{alpha}, "b.example.com", "", `does not have the name "b.example.com"`},
		"override by wildcard":     {[]string{"*.example.com"}, alpha, "", "none that can name"},
		"override not a name":      {[]string{alpha}, "Alpha.example.com", "", "lower-case ASCII"},
		"wildcards only":           {[]string{"*.example.com"}, "", "", "only wildcard DNS names"},
		"no names":                 {nil, "", alpha, "no DNS name"},
		"an underscore":            {[]string{"a_b.example.com"}, "", "", `"a_b.example.com" (a machine name may hold only`},
		"a dot at the end":         {[]string{alpha + "."}, "", "", "no dot at its end"},
		"a label of 64":            {[]string{strings.Repeat("a", 64) + ".example.com"}, "", "", "label of 64 bytes"},
		"very many that cannot":    {slices.Repeat([]string{"a_b.example.com"}, 12), "", "", "4 more"},
		"only localhost":           {[]string{"localhost"}, "", "localhost", "no DNS name"},
	} {
		c := credential(t, issue(t, ca, testca.Leaf{Hosts: tc.sans}))
		got, err := c.MachineName(nil, tc.override, tc.fqdn)
		if strings.Contains(tc.want, " ") {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %q, error %v", name, got, err)
			}
		} else if err != nil || got != tc.want {
			t.Errorf("%s: got %q, error %v", name, got, err)
		}
	}
}

func manyNames(n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield("h" + string(rune('a'+i)) + ".example.com") {
				return
			}
		}
	}
}
