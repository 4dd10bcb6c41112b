package noiseproto

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
)

// A verification is identities and what a verifier says of each, docs/spec/protocol.md, section 5.5. Certificates and
// signatures stay as they were made; only the codes are computed.
type verification struct {
	Trust []trustedCA `json:"trust"`
	Lists []hexBytes  `json:"revocation_lists"`
	// Complete are lists whose place does not count, by the administrator's word.
	Complete []hexBytes   `json:"complete_lists"`
	Static   hexBytes     `json:"static_public"`
	Cases    []verifyCase `json:"cases"`
}

type trustedCA struct {
	Certificate hexBytes `json:"certificate"`
	Names       []string `json:"names"`
}

type verifyCase struct {
	Name           string   `json:"name"`
	Identity       hexBytes `json:"identity"`
	RequireEKU     string   `json:"require_eku,omitempty"`
	DomainAccounts bool     `json:"domain_accounts,omitempty"`
	StaleOK        bool     `json:"stale_lists_accepted,omitempty"`
	Code           string   `json:"code"`
}

// compute returns each case the code that certbind has for it.
func (f *verification) compute(t *testing.T) {
	t.Helper()
	for n := range f.Cases {
		c := &f.Cases[n]
		cfg := certbind.TrustConfig{AllowDomainAccounts: c.DomainAccounts, CRLStaleOK: c.StaleOK}
		for _, ca := range f.Trust {
			cfg.CAs = append(cfg.CAs, certbind.CA{Names: ca.Names, PEM: certPEM(ca.Certificate), Source: "vectors"})
		}
		for _, l := range f.Lists {
			cfg.CRLs = append(cfg.CRLs, certbind.CRLFile{Data: l, Source: "vectors"})
		}
		for _, l := range f.Complete {
			cfg.CRLs = append(cfg.CRLs, certbind.CRLFile{Data: l, Source: "vectors", Complete: true})
		}
		if c.RequireEKU != "" {
			cfg.RequireEKU = oid(t, c.RequireEKU)
		}
		trust, err := certbind.NewTrust(cfg)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := vectorVerifier(t, trust).Verify(c.Identity, [32]byte(f.Static))
		c.Code = reason.Of(err).String()
		good := strings.HasPrefix(c.Name, "good: ")
		if good != (err == nil) || good && (peer.Machine == "" || peer.Account == "") {
			t.Fatalf("%s: %v, %v", c.Name, peer, err)
		}
	}
}

func oid(t *testing.T, dotted string) asn1.ObjectIdentifier {
	t.Helper()
	id, err := x509.ParseOID(dotted)
	if err != nil {
		t.Fatal(err)
	}
	der, err := id.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var out asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(append([]byte{6, byte(len(der))}, der...), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

type claim = testclaim.Claim

// greaterS returns a signature of P-256 with the greater of the two values of s that verify.
func greaterS(t *testing.T, der []byte) []byte {
	t.Helper()
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	order := elliptic.P256().Params().N
	if other := new(big.Int).Sub(order, sig.S); other.Cmp(sig.S) > 0 {
		sig.S = other
	}
	out, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const (
	vectorEKU  = "1.3.6.1.4.1.32473.1"
	vectorName = "alpha.example.com"
)

// newVerification makes CAs, lists, and an identity for each case.
func newVerification(t *testing.T) *verification {
	past, future := vectorTime.AddDate(0, -1, 0), vectorTime.AddDate(0, 2, 0)
	options := func(o testca.Options) testca.Options {
		if o.NotBefore.IsZero() {
			o.NotBefore = vectorTime.AddDate(-1, 0, 0)
		}
		if o.NotAfter.IsZero() {
			o.NotAfter = vectorTime.AddDate(20, 0, 0)
		}
		return o
	}
	newCA := func(o testca.Options) *testca.CA { return testca.MustCA(t, options(o)) }
	under := func(ca *testca.CA, o testca.Options) *testca.CA { return testca.MustIntermediate(t, ca, options(o)) }
	issue := func(ca *testca.CA, l testca.Leaf) *testca.Issued {
		if l.NotBefore.IsZero() {
			l.NotBefore = past
		}
		if l.NotAfter.IsZero() {
			l.NotAfter = future
		}
		if l.Hosts == nil {
			l.Hosts = []string{vectorName}
		}
		return testca.MustIssue(t, ca, l)
	}
	root, limited, outdated := newCA(testca.Options{Name: "root"}), newCA(testca.Options{Name: "limited"}),
		newCA(testca.Options{Name: "outdated"})
	expiredRoot := newCA(testca.Options{Name: "expired root", NotAfter: past})
	good := issue(root, testca.Leaf{})
	revoked, revokedCA := issue(root, testca.Leaf{}), under(root, testca.Options{Name: "revoked"})
	stale, staleRevoked := issue(outdated, testca.Leaf{}), issue(outdated, testca.Leaf{})

	f := &verification{Static: x25519Key(t, pattern(0x01, 32)).PublicKey().Bytes(), Trust: []trustedCA{
		{root.Cert.Raw, []string{}}, {limited.Cert.Raw, []string{"limited.example.com"}}, {outdated.Cert.Raw, []string{}},
		{expiredRoot.Cert.Raw, []string{}}}}
	list := func(ca *testca.CA, next time.Time, serials ...*big.Int) {
		f.Lists = append(f.Lists, testca.MustCRL(t, ca, serials, testca.CRLOptions{ThisUpdate: past, NextUpdate: next}))
	}
	list(root, future, revoked.Cert.SerialNumber, revokedCA.Cert.SerialNumber)
	list(outdated, vectorTime.Add(-time.Second), staleRevoked.Cert.SerialNumber)

	policy := verifyCase{}
	add := func(name string, leaf *testca.Issued, edit func(*claim), sent ...*testca.CA) {
		t.Helper()
		c := testclaim.New(leaf, sent...)
		c.StaticKey = [32]byte(f.Static)
		if c.Machine == "" {
			c.Machine = vectorName
		}
		c.NotBefore, c.NotAfter = vectorTime.Add(-5*time.Minute), vectorTime.Add(6*time.Hour)
		if edit != nil {
			edit(c)
		}
		out := policy
		out.Name, out.Identity = name, c.Identity()
		f.Cases = append(f.Cases, out)
	}
	statement := func(name string, edit func(*claim)) { add(name, good, edit) }
	fields := func(edit func([][]byte) [][]byte) func(*claim) {
		return func(c *claim) {
			c.Unsigned = func([]byte) []byte { return testclaim.Join(edit(c.Fields())...) }
		}
	}
	field := func(name string, n int, value []byte) {
		statement(name, fields(func(f [][]byte) [][]byte { f[n] = value; return f }))
	}
	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048, testca.RSA4096} {
		add("good: "+kind, issue(root, testca.Leaf{KeyType: kind}), nil)
	}

	// Step 1, code 2 and 10.
	raw := func(name string, edit func([]byte) []byte) { statement(name, func(c *claim) { c.Encoded = edit }) }
	raw("identity: empty", func(b []byte) []byte { return nil })
	raw("identity: no certificates", func(b []byte) []byte { b[0] = 0; return b })
	raw("identity: five certificates", func(b []byte) []byte { b[0] = 5; return b })
	raw("identity: cut by a byte", func(b []byte) []byte { return b[:len(b)-1] })
	raw("identity: a byte after", func(b []byte) []byte { return append(b, 0) })
	raw("identity: certificate longer than the rest", func(b []byte) []byte { b[1] = 0x3f; return b })
	raw("identity: 16385 bytes of certificates", func(b []byte) []byte {
		return slices.Concat([]byte{2}, opaque16(nil, make([]byte, 16384)), opaque16(nil, []byte{0}),
			opaque16(nil, []byte{0}), opaque16(nil, []byte{0}))
	})
	raw("identity: signature of 1025 bytes", func(b []byte) []byte {
		return slices.Concat([]byte{1}, opaque16(nil, []byte{0}), opaque16(nil, []byte{0}),
			opaque16(nil, make([]byte, 1025)))
	})
	raw("identity: statement empty", func(b []byte) []byte {
		return slices.Concat([]byte{1}, opaque16(nil, []byte{0}), []byte{0, 0}, opaque16(nil, []byte{0}))
	})
	names := []string{"format version", "static key", "leaf", "machine", "account", "attributes", "not before",
		"not after"}
	for n, name := range names {
		if n != 5 { // attributes may be empty
			field("statement: "+name+" empty", n, nil)
		}
		field("statement: "+name+" too long", n, make([]byte, []int{2, 33, 33, 254, 129, 3073, 9, 9}[n]))
	}
	field("statement: format version 2", 0, []byte{2})
	field("statement: not after in the year 10000", 7, binary.BigEndian.AppendUint64(nil, 253402300800))
	field("statement: not before 2^63", 6, binary.BigEndian.AppendUint64(nil, 1<<63))
	statement("statement: a field after", fields(func(f [][]byte) [][]byte { return append(f, nil) }))
	statement("statement: a field missing", fields(func(f [][]byte) [][]byte { return f[:7] }))
	attribute := func(name, value string) []byte { return opaque16(opaque8(nil, name), []byte(value)) }
	field("attributes: no name", 5, attribute("", ""))
	field("attributes: name of 33 bytes", 5, attribute(string(bytes.Repeat([]byte("a"), 33)), ""))
	field("attributes: value of 2049 bytes", 5, attribute("a", string(make([]byte, 2049))))
	field("attributes: cut", 5, []byte{1, 'a', 0})
	field("attributes: out of order", 5, append(attribute("b", ""), attribute("a", "")...))
	field("attributes: one twice", 5, append(attribute("a", ""), attribute("a", "")...))
	var seventeen []byte
	for n := range 17 {
		seventeen = append(seventeen, attribute(string(rune('a'+n)), "")...)
	}
	field("attributes: seventeen", 5, seventeen)

	// Step 2, code 9.
	add("certificate: does not parse", good, func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Certificates[0] = []byte{0x30, 0} }
	})
	add("certificate: a byte after", good, func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Certificates[0] = append(bytes.Clone(id.Certificates[0]), 0) }
	})
	add("certificate: an unneeded one does not parse", good, func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Certificates = append(id.Certificates, []byte{0x30, 0}) }
	})
	add("key: P-521", issue(root, testca.Leaf{KeyType: testca.P521}), nil)
	add("key: RSA of 8192 bits", issue(root, testca.Leaf{KeyType: testca.RSA8192}), nil)
	add("key: RSA of 2047 bits", issue(root, testca.Leaf{PublicKey: testca.HugeRSA(2047, 65537)}), nil)
	add("key: RSA of 4097 bits", issue(root, testca.Leaf{PublicKey: testca.HugeRSA(4097, 65537)}), nil)
	add("key: RSA with exponent 3", issue(root, testca.Leaf{PublicKey: testca.HugeRSA(2048, 3)}), nil)

	// Step 3, code 10.
	statement("binding: another static key", func(c *claim) { c.StaticKey[31] ^= 0x80 })
	statement("binding: another leaf", func(c *claim) { c.Leaf[0] ^= 1 })

	// Step 4, codes 11, 5, 6. Both ends of all windows are inside.
	window := func(name string, from, to time.Duration) {
		statement(name, func(c *claim) { c.NotBefore, c.NotAfter = vectorTime.Add(from), vectorTime.Add(to) })
	}
	window("good: window begins now", 0, time.Hour)
	window("good: window ends now", -time.Hour, 0)
	window("good: window of 24 hours", -time.Hour, 23*time.Hour)
	window("window: begins in a second", time.Second, time.Hour)
	window("window: ended a second ago", -time.Hour, -time.Second)
	window("window: a second over 24 hours", -time.Hour, 23*time.Hour+time.Second)
	window("window: reversed", time.Hour, -time.Hour)
	ending := issue(root, testca.Leaf{NotAfter: vectorTime})
	add("good: leaf and window end now", ending, func(c *claim) { c.NotAfter = vectorTime })
	add("window: outlives the leaf by a second", ending, func(c *claim) { c.NotAfter = vectorTime.Add(time.Second) })
	add("good: leaf begins now", issue(root, testca.Leaf{NotBefore: vectorTime}), nil)
	expired := issue(root, testca.Leaf{NotAfter: vectorTime.Add(-time.Second)})
	add("leaf: expired", expired, nil)
	add("leaf: expired, as the window is", expired, func(c *claim) { c.NotAfter = expired.Cert.NotAfter })
	add("leaf: not yet valid", issue(root, testca.Leaf{NotBefore: vectorTime.Add(time.Second)}), nil)

	// Step 5, codes 12 and 13.
	machine := func(name, san, claimed string) {
		add(name, issue(root, testca.Leaf{Hosts: []string{san}}), func(c *claim) { c.Machine = claimed })
	}
	machine("good: SAN in capitals", "ALPHA.Example.com", vectorName)
	machine("machine: not in the certificate", vectorName, "beta.example.com")
	machine("machine: in capitals", vectorName, "Alpha.example.com")
	machine("machine: matches a wildcard", "*.example.com", vectorName)
	machine("machine: a wildcard", "*.example.com", "*.example.com")
	machine("machine: localhost", "localhost", "localhost")
	machine("machine: under localhost", "a.localhost", "a.localhost")
	machine("machine: an IP address", "10.0.0.1", "10.0.0.1")
	machine("machine: last label all digits", "a.1", "a.1")
	machine("machine: trailing dot", vectorName, vectorName+".")
	account := func(name, value string) { statement(name, func(c *claim) { c.Account = value }) }
	account("good: account of 64 bytes", string(bytes.Repeat([]byte("a"), 64)))
	account("good: account with every sign", "_a.b$c+d-e")
	account("account: of 65 bytes", string(bytes.Repeat([]byte("a"), 65)))
	account("account: in capitals", "Alice")
	account("account: begins with a hyphen", "-alice")
	account("account: with a zero byte", "alice\x00")
	account("account: of a domain", "alice@corp")
	policy = verifyCase{DomainAccounts: true}
	account("good: account of a domain, where that is allowed", "corp\\alice@corp")
	account("account: begins with an at sign, where domains are allowed", "@corp")
	policy = verifyCase{}
	for _, a := range [][3]string{{"good: uid 0", "uid", "0"}, {"good: largest uid", "uid", "4294967295"},
		{"good: two groups", "groups", "adm,wheel"},
		{"good: groups with a space, a comma and beyond ASCII", "groups", "a%2Cwheel,dom%C3%A4nen-benutzer,domain%20users"},
		{"attributes: a group with a space as it is", "groups", "domain users"},
		{"attributes: a group with an escape in lower case", "groups", "a%2cb"},
		{"attributes: a group with a letter escaped", "groups", "%61"},
		{"attributes: a group with a line feed escaped", "groups", "a%0A"},
		{"good: socket", "socket", "blue-7.a"}, {"attributes: socket empty", "socket", ""},
		{"attributes: a path as the socket", "socket", "/run/blue/socket"},
		{"good: reserved name", "shell", "/bin/sh ~"},
		{"good: empty value of a reserved name", "shell", ""},
		{"attributes: uid over 32 bits", "uid", "4294967296"}, {"attributes: uid with a leading zero", "uid", "01"},
		{"attributes: uid empty", "uid", ""}, {"attributes: uid with a sign", "uid", "+1"},
		{"attributes: groups empty", "groups", ""}, {"attributes: groups out of order", "groups", "wheel,adm"},
		{"attributes: a group twice", "groups", "adm,adm"}, {"attributes: a group in capitals", "groups", "Adm"},
		{"attributes: groups end with a comma", "groups", "adm,"}, {"attributes: name user", "user", "root"},
		{"attributes: name machine", "machine", "x"}, {"attributes: name in capitals", "Shell", "x"},
		{"attributes: name begins with a digit", "1a", "x"}, {"attributes: line feed in a value", "a", "x\ny"},
		{"attributes: DEL in a value", "a", "\x7f"}, {"attributes: high byte in a value", "a", "\x80"}} {
		field(a[0], 5, attribute(a[1], a[2]))
	}

	// Step 6, codes 9, 4, 5, 6, 12, 7, 8.
	add("leaf: a CA", issue(root, testca.Leaf{
		IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}), nil)
	add("leaf: with the key of a trusted CA", issue(root, testca.Leaf{Key: limited.Key}), nil)
	add("leaf: no key usage", issue(root, testca.Leaf{NoKeyUsage: true}), nil)
	add("leaf: key usage without digitalSignature", issue(root, testca.Leaf{KeyUsage: x509.KeyUsageKeyAgreement}), nil)
	forCode, forServers := []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	forAny := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	add("leaf: extended key usage for code", issue(root, testca.Leaf{EKUs: forCode}), nil)
	add("good: no extended key usage", issue(root, testca.Leaf{NoEKU: true}), nil)
	add("good: any extended key usage", issue(root, testca.Leaf{EKUs: forAny}), nil)
	noPurpose := []pkix.Extension{testca.EmptyEKU}
	add("leaf: extended key usage without any purpose", issue(root, testca.Leaf{NoEKU: true, ExtraExtensions: noPurpose}), nil)
	demanded := []asn1.ObjectIdentifier{oid(t, vectorEKU)}
	policy = verifyCase{RequireEKU: vectorEKU}
	add("good: the demanded purpose alone", issue(root, testca.Leaf{UnknownEKUs: demanded}), nil)
	add("leaf: without the demanded purpose", good, nil)
	add("leaf: any in the place of the demanded purpose", issue(root, testca.Leaf{EKUs: forAny}), nil)
	policy = verifyCase{}
	unknown := newCA(testca.Options{Name: "unknown"})
	add("chain: unknown CA", issue(unknown, testca.Leaf{}), nil)
	add("chain: unknown CA, sent along", issue(unknown, testca.Leaf{}), nil, unknown)
	add("chain: a CA by the name of the trusted one", issue(newCA(testca.Options{Name: "root"}), testca.Leaf{}), nil)
	add("chain: self-signed", issue(root, testca.Leaf{SelfSigned: true}), nil)
	add("order: key usage before chain", issue(unknown, testca.Leaf{NoKeyUsage: true}), nil)
	within := func(name string) *testca.Issued { return issue(limited, testca.Leaf{Hosts: []string{name}}) }
	add("good: limited CA, a name under the limit", within("a.limited.example.com"), nil)
	add("good: limited CA, the limit itself", within("limited.example.com"), nil)
	add("chain: limited CA, another name", within(vectorName), nil)
	add("chain: limited CA, a name with the limit at its end", within("unlimited.example.com"), nil)
	middle := under(root, testca.Options{Name: "middle"})
	deep := under(middle, testca.Options{Name: "deep"})
	add("good: one intermediate", issue(middle, testca.Leaf{}), nil, middle)
	add("good: two intermediates", issue(deep, testca.Leaf{}), nil, deep, middle)
	add("good: two intermediates in reverse order", issue(deep, testca.Leaf{}), nil, middle, deep)
	add("good: with the root and one that no path needs", issue(middle, testca.Leaf{}), nil, middle, root, deep)
	crossed := under(root, testca.Options{Name: "crossed"})
	cross := under(unknown, testca.Options{Name: "crossed", Key: crossed.Key})
	crossedLeaf := issue(crossed, testca.Leaf{})
	add("good: both certificates of a cross-signed CA", crossedLeaf, nil, cross, crossed)
	add("good: both certificates of a cross-signed CA, in the other order", crossedLeaf, nil, crossed, cross)
	add("chain: only the certificate by another root", crossedLeaf, nil, cross)
	add("chain: intermediate missing", issue(deep, testca.Leaf{}), nil, deep)
	via := func(name string, o testca.Options) {
		o.Name = name
		ca := under(root, o)
		add(name, issue(ca, testca.Leaf{}), nil, ca)
	}
	via("chain: intermediate is no CA", testca.Options{NotCA: true})
	via("chain: intermediate may not sign certificates", testca.Options{KeyUsage: x509.KeyUsageCRLSign})
	via("chain: intermediate expired", testca.Options{NotAfter: vectorTime.Add(-time.Second)})
	via("chain: intermediate not yet valid", testca.Options{NotBefore: vectorTime.Add(time.Second)})
	via("chain: intermediate for code", testca.Options{EKUs: forCode})
	via("chain: intermediate with an extended key usage without any purpose", testca.Options{ExtraExtensions: noPurpose})
	via("good: intermediate for servers", testca.Options{EKUs: forServers})
	via("good: name constraint permits", testca.Options{PermittedDNS: []string{"example.com"}})
	via("chain: name constraint does not permit", testca.Options{PermittedDNS: []string{"example.org"}})
	via("chain: name constraint excludes", testca.Options{ExcludedDNS: []string{"alpha.example.com"}})
	narrow := under(root, testca.Options{Name: "narrow", PermittedDNS: []string{"alpha.example.com"}})
	add("chain: name constraint forbids another name of the leaf", issue(narrow, testca.Leaf{
		Hosts: []string{vectorName, "beta.example.com"}}), nil, narrow)
	organization := func(name string) pkix.Name { return pkix.Name{Organization: []string{name}} }
	for _, c := range []struct {
		name               string
		critical, excluded bool
	}{
		{"chain: directory name excluded, not critical", false, true},
		{"good: directory name permitted, not critical", false, false},
		{"chain: directory name permitted, critical", true, false},
	} {
		x, err := testca.DirectoryNames(c.critical, c.excluded, organization("Example"))
		if err != nil {
			t.Fatal(err)
		}
		limiting := under(root, testca.Options{Name: c.name, ExtraExtensions: []pkix.Extension{x}})
		add(c.name, issue(limiting, testca.Leaf{Subject: organization("Example")}), nil, limiting)
		if !c.critical && !c.excluded {
			add("chain: directory name not permitted, not critical", issue(limiting, testca.Leaf{
				Subject: organization("Other")}), nil, limiting)
		}
	}
	short := under(root, testca.Options{Name: "short", MaxPathLen: -1})
	nested := under(root, testca.Options{Name: "self-issued", MaxPathLen: -1})
	selfIssued := under(nested, testca.Options{Name: "self-issued"})
	add("chain: a self-issued CA counts for the path's length", issue(selfIssued, testca.Leaf{}), nil, selfIssued, nested)
	via("good: intermediate without a key usage", testca.Options{NoKeyUsage: true})
	strict := newCA(testca.Options{Name: "strict", MaxPathLen: -1, ExcludedDNS: []string{"beta.example.com"}})
	f.Trust = append(f.Trust, trustedCA{strict.Cert.Raw, []string{}})
	add("good: within a trust anchor's limits", issue(strict, testca.Leaf{}), nil)
	belowStrict := under(strict, testca.Options{Name: "below strict"})
	add("chain: path longer than the trust anchor allows", issue(belowStrict, testca.Leaf{}), nil, belowStrict)
	add("chain: name constraint of the trust anchor excludes", issue(strict, testca.Leaf{
		Hosts: []string{"beta.example.com"}}), func(c *claim) { c.Machine = "beta.example.com" })
	tooDeep := under(short, testca.Options{Name: "too deep"})
	add("good: path length 0", issue(short, testca.Leaf{}), nil, short)
	add("chain: path longer than allowed", issue(tooDeep, testca.Leaf{}), nil, tooDeep, short)
	critical := []pkix.Extension{{Id: oid(t, "1.3.6.1.4.1.32473.2"), Critical: true, Value: []byte{5, 0}}}
	add("chain: unknown critical extension of the leaf", issue(root, testca.Leaf{ExtraExtensions: critical}), nil)
	via("chain: unknown critical extension of an intermediate", testca.Options{ExtraExtensions: critical})
	add("chain: trust anchor expired", issue(expiredRoot, testca.Leaf{}), nil)
	policy = verifyCase{RequireEKU: vectorEKU}
	server := under(root, testca.Options{Name: "for servers", EKUs: forServers})
	anyUse := under(root, testca.Options{Name: "for any", EKUs: forAny})
	add("chain: intermediate without the demanded purpose", issue(server, testca.Leaf{UnknownEKUs: demanded}), nil, server)
	add("good: intermediate for any purpose, one demanded", issue(anyUse, testca.Leaf{UnknownEKUs: demanded}), nil, anyUse)
	policy = verifyCase{}
	add("revocation: leaf", revoked, nil)
	add("revocation: intermediate", issue(revokedCA, testca.Leaf{}), nil, revokedCA)
	add("revocation: list out of date", stale, nil)
	add("revocation: in a list out of date", staleRevoked, nil)
	policy = verifyCase{StaleOK: true}
	add("good: list out of date, where that is accepted", stale, nil)
	add("revocation: in a list out of date, where that is accepted", staleRevoked, nil)
	policy = verifyCase{}
	const place = "http://ca.example.com/crl"
	for _, ca := range []struct {
		name     string
		lists    []pkix.Extension
		complete bool
	}{
		{"lists for users and for CAs", []pkix.Extension{testca.ListFor("user"), testca.ListFor("CA")}, false},
		{"a list for users", []pkix.Extension{testca.ListFor("user")}, false},
		{"a list for CAs", []pkix.Extension{testca.ListFor("CA")}, false},
		{"a list at a place", []pkix.Extension{testca.ListFor("", place)}, false},
		{"a list said to be complete", []pkix.Extension{testca.ListFor("", place)}, true},
	} {
		own := newCA(testca.Options{Name: ca.name})
		f.Trust = append(f.Trust, trustedCA{own.Cert.Raw, []string{}})
		// The codes that follow from the list; compute holds the names against what the verifier says.
		name := func(good bool, what string) string {
			if good {
				return "good: " + what + ", " + ca.name
			}
			return "revocation: " + what + ", " + ca.name
		}
		users := ca.name != "a list for CAs" && ca.name != "a list at a place"
		cas := ca.name != "a list for users" && ca.name != "a list at a place"
		add(name(users, "leaf"), issue(own, testca.Leaf{}), nil)
		if ca.name == "a list at a place" {
			for _, p := range []struct {
				what string
				good bool
				x    pkix.Extension
			}{
				{"of the place", true, testca.Places([]string{place})},
				{"of the place among others", true, testca.Places([]string{place + "2", place})},
				{"of another place", false, testca.Places([]string{place + "2"})},
				{"of the place, for some reasons", false, testca.Places([]string{place}, 0x81, 2, 5, 0x60)},
			} {
				add(name(p.good, "leaf "+p.what), issue(own, testca.Leaf{ExtraExtensions: []pkix.Extension{p.x}}), nil)
			}
		} else {
			sub := under(own, testca.Options{Name: ca.name + ", below"})
			add(name(cas, "intermediate"), issue(sub, testca.Leaf{}), nil, sub)
		}
		var listed []*big.Int
		if ca.name == "a list for CAs" {
			odd := issue(own, testca.Leaf{})
			listed = []*big.Int{odd.Cert.SerialNumber}
			add("revocation: leaf that is on a list for CAs", odd, nil)
		}
		for _, x := range ca.lists {
			der := testca.MustCRL(t, own, listed, testca.CRLOptions{ThisUpdate: past, NextUpdate: future,
				Extensions: []pkix.Extension{x}})
			if ca.complete {
				f.Complete = append(f.Complete, der)
			} else {
				f.Lists = append(f.Lists, der)
			}
		}
	}

	// Step 7, code 10; and the order of the steps.
	statement("good: ECDSA signature with the greater s", func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Signature = greaterS(t, id.Signature) }
	})
	flip := func(c *claim) { c.Signed = func(id *testclaim.Identity) { id.Signature[len(id.Signature)-1] ^= 1 } }
	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048} {
		add("signature: last bit, "+kind, issue(root, testca.Leaf{KeyType: kind}), flip)
	}
	statement("signature: by another certificate's key", func(c *claim) { c.Key = revoked.Key })
	statement("signature: a byte after", func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Signature = append(id.Signature, 0) }
	})
	statement("signature: statement changed after", func(c *claim) {
		c.Signed = func(id *testclaim.Identity) {
			id.Statement = bytes.Replace(id.Statement, []byte("alice"), []byte("adder"), 1)
		}
	})
	add("order: chain before signature", issue(unknown, testca.Leaf{}), flip)
	add("order: account before chain", issue(unknown, testca.Leaf{}), func(c *claim) { c.Account = "Root" })
	add("order: machine before account", good, func(c *claim) { c.Machine, c.Account = "beta.example.com", "Root" })
	add("order: window before machine", good, func(c *claim) {
		c.Machine, c.NotAfter = "beta.example.com", vectorTime.Add(-time.Second)
	})
	add("order: static key before the leaf's end", expired, func(c *claim) { c.StaticKey[0] ^= 1 })
	add("order: certificates before static key", issue(root, testca.Leaf{KeyType: testca.P521}), func(c *claim) {
		c.StaticKey[0] ^= 1
	})
	add("order: statement before certificates", issue(root, testca.Leaf{KeyType: testca.P521}),
		fields(func(f [][]byte) [][]byte { f[0] = []byte{2}; return f }))
	return f
}
