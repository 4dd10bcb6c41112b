package noiseproto

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
)

// A dnsVerification is as a verification, of machines for which DNS vouches, docs/spec/protocol.md, section 5.7.
type dnsVerification struct {
	Trust    []trustedCA `json:"trust"`
	UnderDNS []string    `json:"under_dns"`
	Lists    []hexBytes  `json:"revocation_lists"`
	Static   hexBytes    `json:"static_public"`
	Cases    []dnsCase   `json:"cases"`
}

type dnsCase struct {
	Name       string      `json:"name"`
	Identity   hexBytes    `json:"identity"`
	RequireEKU string      `json:"require_eku,omitempty"`
	TLSA       *[]hexBytes `json:"tlsa,omitempty"` // nil: it cannot be found out
	Code       string      `json:"code"`
}

// compute returns each case the code that certbind has for it.
func (f *dnsVerification) compute(t *testing.T) {
	t.Helper()
	for n := range f.Cases {
		c := &f.Cases[n]
		cfg := certbind.TrustConfig{CAs: []certbind.CA{{Names: f.UnderDNS, DANE: true, Source: "DNS"}}}
		for _, ca := range f.Trust {
			cfg.CAs = append(cfg.CAs, certbind.CA{Names: ca.Names, PEM: certPEM(ca.Certificate), Source: "vectors"})
		}
		for _, l := range f.Lists {
			cfg.CRLs = append(cfg.CRLs, certbind.CRLFile{Data: l, Source: "vectors"})
		}
		if c.RequireEKU != "" {
			cfg.RequireEKU = oid(t, c.RequireEKU)
		}
		trust, err := certbind.NewTrust(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := vectorVerifier(t, trust)
		peer, err := m.Verify(c.Identity, [32]byte(f.Static))
		if u, ok := err.(*certbind.Unresolved); ok && c.TLSA != nil {
			answer := certbind.Answer{Machine: u.Claimed.Machine, Until: vectorTime}
			for _, rdata := range *c.TLSA {
				r, err := certbind.ParseTLSA(rdata)
				if err != nil {
					t.Fatal(err)
				}
				answer.Records = append(answer.Records, r)
			}
			peer, err = m.VerifyAnswered(c.Identity, [32]byte(f.Static), &answer)
		}
		c.Code = reason.Of(err).String()
		good := strings.HasPrefix(c.Name, "good: ")
		if good != (err == nil) || good && (peer.Machine == "" || peer.Account == "") {
			t.Fatalf("%s: %v, %v", c.Name, peer, err)
		}
	}
}

// newDNSVerification makes CAs, and an identity and records for each case.
func newDNSVerification(t *testing.T) *dnsVerification {
	past, future := vectorTime.AddDate(0, -1, 0), vectorTime.AddDate(0, 2, 0)
	newCA := func(name string) *testca.CA {
		return testca.MustCA(t, testca.Options{Name: name, NotBefore: vectorTime.AddDate(-1, 0, 0), NotAfter: vectorTime.AddDate(20, 0, 0)})
	}
	issue := func(ca *testca.CA, l testca.Leaf) *testca.Issued {
		if l.NotBefore.IsZero() {
			l.NotBefore, l.NotAfter = past, future
		}
		return testca.MustIssue(t, ca, l)
	}
	self := func(l testca.Leaf) *testca.Issued { l.SelfSigned = true; return issue(new(testca.CA), l) }
	const machine = "alpha.dns.example.com"
	root, within := newCA("root"), newCA("within DNS's names")
	f := &dnsVerification{Static: x25519Key(t, pattern(0x01, 32)).PublicKey().Bytes(),
		Trust:    []trustedCA{{root.Cert.Raw, []string{}}, {within.Cert.Raw, []string{"ca.dns.example.com"}}},
		UnderDNS: []string{"dns.example.com", "dns.ca.dns.example.com"}}

	record := func(leaf *testca.Issued, selector, matching byte) hexBytes {
		r, err := certbind.NewTLSA(leaf.Cert, selector, matching)
		if err != nil {
			t.Fatal(err)
		}
		return r.Marshal()
	}
	purpose := ""
	// add makes a case; nil records are those of a key that is the leaf's.
	add := func(name string, leaf *testca.Issued, records *[]hexBytes, edit func(*claim), sent ...*testca.CA) {
		t.Helper()
		c := testclaim.New(leaf, sent...)
		c.StaticKey = [32]byte(f.Static)
		if c.Machine == "" {
			c.Machine = machine
		}
		c.NotBefore, c.NotAfter = vectorTime.Add(-5*time.Minute), vectorTime.Add(6*time.Hour)
		if edit != nil {
			edit(c)
		}
		f.Cases = append(f.Cases, dnsCase{Name: name, Identity: c.Identity(), RequireEKU: purpose, TLSA: records})
	}
	known := func(leaf *testca.Issued) *[]hexBytes { return &[]hexBytes{record(leaf, 1, 1)} }
	only := func(records ...hexBytes) *[]hexBytes { records = append([]hexBytes{}, records...); return &records }
	matching := func(name string, leaf *testca.Issued, edit func(*claim)) { add(name, leaf, known(leaf), edit) }
	hosts := []string{machine}
	cn := func(names ...string) testca.Leaf {
		var l testca.Leaf
		for _, n := range names {
			l.Subject.ExtraNames = append(l.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: n})
		}
		return l
	}

	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048, testca.RSA4096} {
		matching("good: "+kind+", self-signed", self(testca.Leaf{Hosts: hosts, KeyType: kind}), nil)
	}
	ancestor := cn(machine)
	ancestor.KeyType, ancestor.IsCA, ancestor.NoKeyUsage, ancestor.NoEKU = testca.RSA4096, true, true, true
	old := self(ancestor)
	add("good: a common name alone, a CA, no key usage, 3 0 1", old, only(record(old, 0, 1)), nil)

	// Which machines are under DNS.
	good := self(testca.Leaf{Hosts: hosts})
	chained := issue(root, testca.Leaf{Hosts: hosts})
	under := func(name, host string, ca *testca.CA, records bool) {
		l := testca.Leaf{Hosts: []string{host}}
		leaf := self(l)
		if ca != nil {
			leaf = issue(ca, l)
		}
		r := only()
		if records {
			r = known(leaf)
		}
		add(name, leaf, r, nil)
	}
	under("good: the name that is given to DNS", "dns.example.com", nil, true)
	under("good: far below", "a.b.c.dns.example.com", nil, true)
	under("scope: DNS knows it, and the name is a CA's", "alpha.example.com", nil, true)
	under("scope: DNS knows it, and the name only ends as one of DNS's", "alphadns.example.com", nil, true)
	under("good: beside DNS's names, by a CA", "alphadns.example.com", root, false)
	under("scope: DNS knows it, and a longer name is a CA's", "alpha.ca.dns.example.com", nil, true)
	under("good: by the CA of a longer name", "alpha.ca.dns.example.com", within, false)
	under("good: under a longer name of a CA's, by another CA", "ca.dns.example.com", root, false)
	under("good: a still longer name is DNS's", "alpha.dns.ca.dns.example.com", nil, true)
	under("scope: a CA vouches, and the name is DNS's", machine, root, false)
	under("scope: the CA of the longer name vouches, and a still longer one is DNS's", "dns.ca.dns.example.com", within, false)
	add("scope: a CA vouches, and DNS cannot be asked", chained, nil, nil)
	matching("good: a CA has issued it, and DNS knows it", chained, nil)
	add("good: with the CA's certificate behind it", chained, known(chained), nil, root)

	// What DNS says.
	for _, selector := range []byte{0, 1} {
		for _, how := range []byte{0, 1, 2} {
			r := record(good, selector, how)
			add("good: 3 "+string('0'+rune(selector))+" "+string('0'+rune(how)), good, only(r), nil)
			short := r[:len(r)-1]
			add("records: a byte short, 3 "+string('0'+rune(selector))+" "+string('0'+rune(how)), good, only(short), nil)
			wrong := bytes.Clone(r)
			wrong[len(wrong)-1] ^= 1
			add("records: last bit, 3 "+string('0'+rune(selector))+" "+string('0'+rune(how)), good, only(wrong), nil)
		}
	}
	unusable := []hexBytes{}
	for n, name := range []string{"usage 0", "usage 1", "usage 2", "usage 255", "selector 2", "matching type 3", "SHA-512 of 32 bytes", "SHA-256 of 64 bytes"} {
		r := record(good, 1, 1)
		switch n {
		case 0, 1, 2:
			r[0] = byte(n)
		case 3:
			r[0] = 255
		case 4:
			r[1] = 2
		case 5:
			r[2] = 3
		case 6:
			r[2] = 2
		case 7:
			r = record(good, 1, 2)
			r[2] = 1
		}
		unusable = append(unusable, r)
		add("records: "+name, good, only(r), nil)
	}
	other := self(testca.Leaf{Hosts: hosts})
	add("records: selectors exchanged", good, only(append([]byte{3, 0, 1}, record(good, 1, 1)[3:]...)), nil)
	add("records: none", good, only(), nil)
	add("records: cannot be found out", good, nil, nil)
	add("records: another's", good, only(record(other, 0, 0), record(other, 1, 1), record(other, 0, 2)), nil)
	add("records: none that is usable", good, &unusable, nil)
	among := append(append([]hexBytes{record(other, 1, 1)}, unusable...), record(good, 0, 2))
	add("good: one that matches, behind others", good, &among, nil)
	renewed := self(testca.Leaf{Hosts: hosts, Key: old.Key})
	add("good: another certificate of a key that is known", renewed, only(record(old, 0, 1), record(old, 1, 1)), nil)
	add("records: another certificate, the old one is known", renewed, only(record(old, 0, 1)), nil)

	// What the verifier does not look at.
	dates := func(from, to time.Time) *testca.Issued {
		return self(testca.Leaf{Hosts: hosts, NotBefore: from, NotAfter: to})
	}
	matching("good: expired", dates(past, past.AddDate(0, 0, 1)), nil)
	matching("good: not yet valid", dates(future, future.AddDate(0, 1, 0)), nil)
	matching("good: the statement outlives it", dates(past, vectorTime.Add(time.Minute)), nil)
	matching("good: a CA", self(testca.Leaf{Hosts: hosts, IsCA: true, KeyUsage: x509.KeyUsageCertSign}), nil)
	matching("good: for e-mail", self(testca.Leaf{Hosts: hosts, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}), nil)
	matching("good: an unknown critical extension", self(testca.Leaf{Hosts: hosts, ExtraExtensions: []pkix.Extension{
		{Id: oid(t, "1.3.6.1.4.1.32473.2"), Critical: true, Value: []byte{5, 0}}}}), nil)
	matching("good: issued by nobody who is known", issue(newCA("unknown"), testca.Leaf{Hosts: hosts}), nil)
	purpose = vectorEKU
	matching("good: without the purpose that is demanded", good, nil)
	purpose = ""
	revoked := issue(root, testca.Leaf{Hosts: hosts})
	f.Lists = append(f.Lists, testca.MustCRL(t, root, []*big.Int{revoked.Cert.SerialNumber}, testca.CRLOptions{ThisUpdate: past, NextUpdate: future}))
	matching("good: on its CA's list", revoked, nil)

	// Names.
	matching("good: a common name in capitals", self(cn("Alpha.DNS.Example.com")), nil)
	matching("good: SAN in capitals", self(testca.Leaf{Hosts: []string{"ALPHA.dns.example.com"}}), func(c *claim) { c.Machine = machine })
	named := func(name string, l testca.Leaf) { matching(name, self(l), func(c *claim) { c.Machine = machine }) }
	beside := cn(machine)
	beside.Hosts = []string{"beta.dns.example.com"}
	named("machine: a common name beside another SAN", beside)
	beside.Hosts, beside.IPs = nil, []net.IP{{192, 0, 2, 1}}
	named("machine: a common name beside an address", beside)
	named("machine: two common names", cn(machine, machine))
	named("machine: another common name", cn("beta.dns.example.com"))
	named("machine: no name", testca.Leaf{})
	named("machine: matches a wildcard", testca.Leaf{Hosts: []string{"*.dns.example.com"}})
	named("machine: a common name that is a wildcard", cn("*.dns.example.com"))
	named("machine: a common name with a dot behind", cn(machine+"."))
	byCA := cn("alpha.example.com")
	add("machine: a common name alone, under a CA", issue(root, byCA), only(), func(c *claim) { c.Machine = "alpha.example.com" })
	matching("machine: in capitals", good, func(c *claim) { c.Machine = "Alpha.dns.example.com" })
	matching("machine: not valid", self(testca.Leaf{Hosts: []string{"a_b.dns.example.com"}}), nil)
	matching("account: in capitals", good, func(c *claim) { c.Account = "Alice" })
	matching("attributes: name user", good, func(c *claim) { c.Attributes = [][2]string{{"user", "root"}} })

	// What is judged as ever, and in which order.
	matching("binding: another static key", good, func(c *claim) { c.StaticKey[0] ^= 1 })
	matching("binding: another leaf", good, func(c *claim) { c.Leaf[0] ^= 1 })
	window := func(name string, from, to time.Duration) {
		matching(name, good, func(c *claim) { c.NotBefore, c.NotAfter = vectorTime.Add(from), vectorTime.Add(to) })
	}
	window("good: window of 24 hours", -time.Hour, 23*time.Hour)
	window("window: begins in a second", time.Second, time.Hour)
	window("window: ended a second ago", -time.Hour, -time.Second)
	window("window: a second over 24 hours", -time.Hour, 23*time.Hour+time.Second)
	matching("key: P-521", self(testca.Leaf{Hosts: hosts, KeyType: testca.P521}), nil)
	matching("key: RSA of 8192 bits", self(testca.Leaf{Hosts: hosts, KeyType: testca.RSA8192}), nil)
	matching("leaf: with the key of a trusted CA", self(testca.Leaf{Hosts: hosts, Key: root.Key}), nil)
	add("certificate: an unneeded one does not parse", good, known(good), func(c *claim) {
		c.Signed = func(id *testclaim.Identity) { id.Certificates = append(id.Certificates, []byte{0x30, 0}) }
	})
	flip := func(c *claim) { c.Signed = func(id *testclaim.Identity) { id.Signature[len(id.Signature)-1] ^= 1 } }
	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048} {
		matching("signature: last bit, "+kind, self(testca.Leaf{Hosts: hosts, KeyType: kind}), flip)
	}
	matching("signature: by another certificate's key", good, func(c *claim) { c.Key = other.Key })
	add("order: signature before DNS", good, nil, flip)
	add("order: a trusted CA's key before the signature", self(testca.Leaf{Hosts: hosts, Key: root.Key}), nil, flip)
	add("order: account before a trusted CA's key", self(testca.Leaf{Hosts: hosts, Key: root.Key}), nil, func(c *claim) { c.Account = "Root" })
	add("order: window before machine", good, nil, func(c *claim) {
		c.Machine, c.NotAfter = "beta.dns.example.com", vectorTime.Add(-time.Second)
	})
	return f
}
