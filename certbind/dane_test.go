package certbind

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// ancestor is what existing zones vouch for: a self-signed RSA-4096 certificate with a common name alone, a CA, without key usage.
func ancestor(t testing.TB, cn string) *testca.Issued {
	return bySelf(t, testca.Leaf{Subject: pkix.Name{CommonName: cn}, KeyType: testca.RSA4096, IsCA: true,
		NoKeyUsage: true, NoEKU: true})
}

func bySelf(t testing.TB, l testca.Leaf) *testca.Issued {
	l.SelfSigned = true
	return issue(t, new(testca.CA), l)
}

// dnsTrust has DNS vouch for machines under the names, and the CAs for all others.
func dnsTrust(t testing.TB, names string, cas ...*testca.CA) *Trust {
	cfg := trusting(cas...)
	cfg.CAs = append(cfg.CAs, CA{Names: strings.Fields(names), DANE: true, Source: "dane"})
	return newTrust(t, cfg)
}

func answerOf(machine string, until time.Time, records ...TLSA) *Answer {
	return &Answer{Machine: machine, Records: records, Until: until}
}

func tlsa(t testing.TB, cert *x509.Certificate, selector, matching byte) TLSA {
	r, err := NewTLSA(cert, selector, matching)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Rule 57: the longest of all names that a machine is under decides whether a CA or DNS vouches for it, and then nothing else
// does.
func TestRule57Scope(t *testing.T) {
	ca, other := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	cas := []CA{{PEM: ca.PEM(), Source: "ca.pem"}, {Names: []string{"example.com", "example.org"}, DANE: true, Source: "dane"},
		{Names: []string{"ca.example.com", "example.net"}, PEM: other.PEM(), Source: "other.pem"},
		{Names: []string{"dns.ca.example.com", "sub.example.net"}, DANE: true, Source: "dane"}}
	slices.Reverse(cas)
	for range 2 {
		slices.Reverse(cas) // the order says nothing
		trust := newTrust(t, TrustConfig{CAs: cas})
		for _, c := range []struct {
			machine string
			dns     bool
		}{
			{"example.com", true}, {"a.example.com", true}, {"a.b.example.com", true}, {"a.example.org", true},
			{"ca.example.com", false}, {"a.ca.example.com", false}, {"dns.ca.example.com", true}, {"a.dns.ca.example.com", true},
			{"a.example.net", false}, {"a.sub.example.net", true}, {"elsewhere.test", false}, {"notexample.com", false},
			{"xca.example.com", true},
		} {
			if got := trust.UnderDNS(c.machine); got != c.dns {
				t.Errorf("%s: under DNS %v, want %v", c.machine, got, c.dns)
			}
			for _, issuer := range []*testca.CA{ca, other} {
				i := issue(t, issuer, testca.Leaf{Hosts: []string{c.machine}})
				claim := newClaim(i)
				records := answerOf(c.machine, claim.now.Add(time.Hour), tlsa(t, i.Cert, 0, 1))
				// By a chain alone.
				o, err := trust.verify(claim.sign(i), claim.used, nil, claim.now)
				var u *Unresolved
				byCA := issuer == ca || strings.HasSuffix(c.machine, "ca.example.com") && c.machine != "xca.example.com" || strings.HasSuffix(c.machine, "example.net")
				switch {
				case c.dns && (!errors.As(err, &u) || u.Claimed.Machine != c.machine || reason.Of(err) != reason.DNSUnknown):
					t.Errorf("%s: a CA vouches for a name that is DNS's: %v", c.machine, err)
				case !c.dns && byCA && (err != nil || o.peer.CA == nil || o.peer.DNS):
					t.Errorf("%s: its CA does not vouch: %v", c.machine, err)
				}
				// And by an answer.
				o, err = trust.verify(claim.sign(i), claim.used, records, claim.now)
				if c.dns && (err != nil || !o.peer.DNS || o.peer.CA != nil) {
					t.Errorf("%s: DNS does not vouch: %v", c.machine, err)
				}
				// Where it is a CA's, DNS does not help a certificate of another's.
				own := bySelf(t, testca.Leaf{Hosts: []string{c.machine}})
				byItself := newClaim(own)
				_, err = trust.verify(byItself.sign(own), byItself.used, answerOf(c.machine, claim.now.Add(time.Hour), tlsa(t, own.Cert, 1, 1)), byItself.now)
				if want := map[bool]reason.Code{true: reason.Accepted, false: reason.UnknownCA}[c.dns]; reason.Of(err) != want {
					t.Errorf("%s: self-signed, and DNS says so: %v, want %v", c.machine, err, want)
				}
			}
		}
	}
}

func TestRule57Names(t *testing.T) {
	ca := newCA(t, testca.Options{})
	for _, c := range []struct {
		name string
		cas  []CA
		want string
	}{
		{"no names", []CA{{DANE: true, Source: "dane"}}, "every signed domain of the world"},
		{"a public suffix", []CA{{DANE: true, Names: []string{"example.com", "co.uk"}, Source: "dane"}}, "a public suffix"},
		{"a top-level domain", []CA{{DANE: true, Names: []string{"com"}, Source: "dane"}}, "a public suffix"},
		{"one that is not listed", []CA{{DANE: true, Names: []string{"internal"}, Source: "dane"}}, "a public suffix"},
		{"somebody's who sells names", []CA{{DANE: true, Names: []string{"github.io"}, Source: "dane"}}, "a public suffix"},
		{"above public suffixes", []CA{{DANE: true, Names: []string{"kawasaki.jp"}, Source: "dane"}}, "are public suffixes"},
		{"in capitals", []CA{{DANE: true, Names: []string{"Example.com"}, Source: "dane"}}, "lower-case"},
		{"with a CA", []CA{{DANE: true, Names: []string{"example.com"}, PEM: ca.PEM(), Source: "dane"}}, "not both"},
		{"with the system's", []CA{{DANE: true, Names: []string{"example.com"}, System: true, Source: "dane"}}, "not both"},
		{"a CA's too", []CA{{PEM: ca.PEM(), Names: []string{"a.test", "example.com"}, Source: "ca.pem"},
			{DANE: true, Names: []string{"example.com"}, Source: "dane"}}, `"example.com" are given to ca.pem and to dane`},
		{"the system's too", []CA{{DANE: true, Names: []string{"example.com"}, Source: "dane"},
			{System: true, Names: []string{"example.com"}, Source: "system"}}, `given to dane and to system`},
	} {
		if _, err := NewTrust(TrustConfig{CAs: c.cas}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	trust := dnsTrust(t, "example.com example.com hpc.test")
	if got := trust.DNSNames(); !slices.Equal(got, []string{"example.com", "example.com", "hpc.test"}) {
		t.Errorf("names %v", got)
	}
}

// Rule 57: what DNS vouches for is taken for what it is, and what it cannot say is judged as ever.
func TestRule57Verify(t *testing.T) {
	trusted := newCA(t, testca.Options{})
	trust := dnsTrust(t, "example.com", trusted)
	cn := func(names ...string) pkix.Name {
		var n pkix.Name
		for _, s := range names {
			n.ExtraNames = append(n.ExtraNames, pkix.AttributeTypeAndValue{Type: oidCommonName, Value: s})
		}
		return n
	}
	self := func(l testca.Leaf) *testca.Issued { return bySelf(t, l) }
	ended := time.Now().AddDate(-1, 0, 0)
	good := self(testca.Leaf{Hosts: []string{alpha}})
	type edit = func(*claim)
	machine := func(name string) edit { return func(c *claim) { c.Machine = name } }
	for _, c := range []struct {
		name string
		leaf *testca.Issued
		edit edit
		want reason.Code
	}{
		{"self-signed", good, nil, reason.Accepted},
		{"as existing zones have it", ancestor(t, alpha), machine(alpha), reason.Accepted},
		{"a common name in capitals", self(testca.Leaf{Subject: cn("Alpha.Example.COM")}), machine(alpha), reason.Accepted},
		{"of a CA that nobody knows", issue(t, newCA(t, testca.Options{}), testca.Leaf{Hosts: []string{alpha}}), nil, reason.Accepted},
		{"a CA", self(testca.Leaf{Hosts: []string{alpha}, IsCA: true}), nil, reason.Accepted},
		{"expired", self(testca.Leaf{Hosts: []string{alpha}, NotBefore: ended.AddDate(-1, 0, 0), NotAfter: ended}), func(c *claim) {
			c.now = time.Now().Truncate(time.Second)
			c.NotBefore, c.NotAfter = c.now.Add(-time.Minute), c.now.Add(time.Hour)
		}, reason.Accepted},
		{"for e-mail alone", self(testca.Leaf{Hosts: []string{alpha}, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}), nil, reason.Accepted},
		{"for certificates alone", self(testca.Leaf{Hosts: []string{alpha}, KeyUsage: x509.KeyUsageCertSign}), nil, reason.Accepted},
		{"an unknown critical extension", self(testca.Leaf{Hosts: []string{alpha}, ExtraExtensions: []pkix.Extension{
			{Id: []int{1, 3, 6, 1, 4, 1, 32473, 2}, Critical: true, Value: []byte{5, 0}}}}), nil, reason.Accepted},

		{"a trusted CA's key", self(testca.Leaf{Hosts: []string{alpha}, Key: trusted.Key}), nil, reason.CertificateUnacceptable},
		{"P-521", self(testca.Leaf{Hosts: []string{alpha}, KeyType: testca.P521}), nil, reason.CertificateUnacceptable},
		{"another name", self(testca.Leaf{Hosts: []string{"beta.example.com"}}), machine(alpha), reason.MachineNameMismatch},
		{"a common name beside others", self(testca.Leaf{Hosts: []string{"beta.example.com"}, Subject: cn(alpha)}), machine(alpha), reason.MachineNameMismatch},
		{"a common name beside an address", self(testca.Leaf{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, Subject: cn(alpha)}), machine(alpha), reason.MachineNameMismatch},
		{"two common names", self(testca.Leaf{Subject: cn(alpha, alpha)}), machine(alpha), reason.MachineNameMismatch},
		{"another common name", self(testca.Leaf{Subject: cn("beta.example.com")}), machine(alpha), reason.MachineNameMismatch},
		{"no name", self(testca.Leaf{}), machine(alpha), reason.MachineNameMismatch},
		{"a wildcard", self(testca.Leaf{Hosts: []string{"*.example.com"}}), machine(alpha), reason.MachineNameMismatch},
		{"a name that is none", self(testca.Leaf{Hosts: []string{"a_b.example.com"}}), machine("a_b.example.com"), reason.MachineNameMismatch},
		{"a common name under a CA", self(testca.Leaf{Subject: cn("a.test")}), machine("a.test"), reason.MachineNameMismatch},
		{"account", good, func(c *claim) { c.Account = "Root" }, reason.AccountUnacceptable},
		{"static key", good, func(c *claim) { c.used[0] ^= 1 }, reason.StatementInvalid},
		{"leaf", good, func(c *claim) { c.Leaf[0] ^= 1 }, reason.StatementInvalid},
		{"ended", good, func(c *claim) { c.now = c.NotAfter.Add(time.Second) }, reason.StatementExpired},
		{"not begun", good, func(c *claim) { c.now = c.NotBefore.Add(-time.Second) }, reason.StatementExpired},
		{"too long", good, func(c *claim) { c.NotAfter = c.NotBefore.Add(maxWindow + time.Second) }, reason.StatementExpired},
	} {
		cl := newClaim(c.leaf)
		if c.edit != nil {
			c.edit(cl)
		}
		id := cl.sign(c.leaf)
		o, err := trust.verify(id, cl.used, answerOf(cl.Machine, cl.now.Add(time.Hour), tlsa(t, c.leaf.Cert, 1, 1)), cl.now)
		wantText(t, c.name, err, c.want)
		if err == nil && (o.peer.Machine != alpha || !o.peer.DNS || !o.peer.NotAfter.Equal(earlier(cl.NotAfter, cl.now.Add(time.Hour)))) {
			t.Errorf("%s: %+v", c.name, o.peer)
		}
		// Whatever is wrong with it is found before anybody is asked.
		_, err = trust.verify(id, cl.used, nil, cl.now)
		var u *Unresolved
		if asks := errors.As(err, &u); asks != (c.want == reason.Accepted) {
			t.Errorf("%s, without an answer: %v", c.name, err)
		}
		if u != nil && (u.Claimed.String() != "alice@"+alpha || u.Claimed.Leaf == nil || !u.Claimed.DNS) {
			t.Errorf("%s: claimed is %+v", c.name, u.Claimed)
		}
	}
	// The signature of the statement comes before DNS: what nobody has signed asks nothing.
	cl := newClaim(good)
	id := cl.sign(good)
	id[len(id)-1] ^= 1
	_, err := trust.verify(id, cl.used, nil, cl.now)
	wantText(t, "signature", err, reason.StatementInvalid)
	// The purpose that is demanded of a CA's certificates is not asked of DNS.
	cfg := TrustConfig{CAs: []CA{{Names: []string{"example.com"}, DANE: true}}, RequireEKU: []int{1, 3, 6, 1, 4, 1, 32473, 1}}
	cl = newClaim(good)
	if _, err := newTrust(t, cfg).verify(cl.sign(good), cl.used, answerOf(alpha, cl.now, tlsa(t, good.Cert, 0, 2)), cl.now); err != nil {
		t.Error(err)
	}
}

func wantText(t testing.TB, name string, err error, want reason.Code) {
	t.Helper()
	if got := reason.Of(err); got != want || err != nil && len(err.Error()) < 20 {
		t.Errorf("%s: %v (%v), want %v", name, got, err, want)
	}
}

// Rule 57: any record that is of the certificate or its key will do, whatever stands beside it, and without one none does.
func TestRule57Records(t *testing.T) {
	trust := dnsTrust(t, "example.com")
	i := ancestor(t, alpha)
	next := bySelf(t, testca.Leaf{Hosts: []string{alpha}, Key: i.Key})
	other := bySelf(t, testca.Leaf{Hosts: []string{alpha}})
	c := newClaim(i)
	c.Machine = alpha
	id := c.sign(i)
	unusable := []TLSA{{0, 0, 1, make([]byte, 32)}, {1, 1, 1, tlsa(t, i.Cert, 1, 1).Data}, {2, 0, 1, tlsa(t, i.Cert, 0, 1).Data},
		{3, 2, 1, tlsa(t, i.Cert, 1, 1).Data}, {3, 1, 3, tlsa(t, i.Cert, 1, 1).Data}, {3, 1, 1, tlsa(t, i.Cert, 1, 2).Data}, {3, 1, 1, nil},
		{255, 0, 1, tlsa(t, i.Cert, 0, 1).Data}, {3, 0, 0, nil}}
	wrong := []TLSA{tlsa(t, other.Cert, 0, 0), tlsa(t, other.Cert, 1, 1), tlsa(t, other.Cert, 0, 2)}
	var good []TLSA
	for _, selector := range []byte{0, 1} {
		for _, matching := range []byte{0, 1, 2} {
			good = append(good, tlsa(t, i.Cert, selector, matching))
		}
	}
	prints := Path{Machine: alpha, DNS: NewPrints(i.Cert)}
	check := func(name string, want reason.Code, text string, records ...TLSA) {
		t.Helper()
		a := answerOf(alpha, c.now.Add(time.Hour), records...)
		_, err := trust.verify(id, c.used, a, c.now)
		if reason.Of(err) != want || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		// What remains when the certificate is gone comes to the same.
		if again := a.Disowned(prints); reason.Of(again) != want || err != nil && again.Error() != err.Error() {
			t.Errorf("%s, later: %v, want %v", name, again, err)
		}
	}
	for _, r := range good {
		check(r.String()[:5], reason.Accepted, "", r)
		check(r.String()[:5]+" among others", reason.Accepted, "", slices.Concat(unusable, wrong, []TLSA{r})...)
	}
	check("none", reason.UnknownCA, "no TLSA record at _shared-alts.alpha.example.com")
	check("none that is usable", reason.UnknownCA, "none of the 9 TLSA records", unusable...)
	check("none that is of it", reason.UnknownCA, "of the certificate that the machine uses", slices.Concat(unusable, wrong)...)
	// The way over: the old key's record holds for a new certificate, the old certificate's for the old one alone.
	for selector, want := range map[byte]reason.Code{0: reason.UnknownCA, 1: reason.Accepted} {
		if err := answerOf(alpha, c.now, tlsa(t, i.Cert, selector, 1)).Vouches(next.Cert); reason.Of(err) != want {
			t.Errorf("selector %d of a new certificate with the old key: %v", selector, err)
		}
	}
	// An answer about another machine, or one that is over, is none.
	for name, a := range map[string]*Answer{"another's": answerOf("beta.example.com", c.now.Add(time.Hour), good...),
		"over": answerOf(alpha, c.now.Add(-time.Nanosecond), good...), "none": nil} {
		_, err := trust.verify(id, c.used, a, c.now)
		if _, ok := err.(*Unresolved); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := answerOf("beta.example.com", c.now).Disowned(prints); err != nil {
		t.Errorf("another machine's answer disowns: %v", err)
	}
}

// Rule 57: DNS vouches for the machine's own name, and not for what else its certificate says; a CA vouches for no name that is
// DNS's, whatever certificate it has issued.
func TestRule57HostsAreTheMachines(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := dnsTrust(t, "example.com", ca)
	ip := netip.MustParseAddr("192.0.2.1")
	hosts := []string{alpha, "victim.example.com", "bank.test"}
	peer := func(l testca.Leaf, machine string) *Peer {
		t.Helper()
		l.Hosts, l.IPs = hosts, []net.IP{ip.AsSlice()}
		i := issue(t, ca, l)
		c := newClaim(i)
		c.Machine = machine
		o, err := trust.verify(c.sign(i), c.used, answerOf(machine, c.now, tlsa(t, i.Cert, 1, 1)), c.now)
		if err != nil {
			t.Fatal(err)
		}
		return &o.peer
	}
	dns, byCA := peer(testca.Leaf{SelfSigned: true}, alpha), peer(testca.Leaf{}, "bank.test")
	for host, want := range map[string][2]bool{alpha: {true, false}, "victim.example.com": {false, false}, "bank.test": {false, true}} {
		if got := [2]bool{dns.ValidForHost(host), byCA.ValidForHost(host)}; got != want {
			t.Errorf("%s: %v by DNS and by a CA, want %v", host, got, want)
		}
	}
	if dns.ValidForAddress(ip) || !byCA.ValidForAddress(ip) {
		t.Error("an address")
	}
}

// Rule 57: the outcome is kept for as long as the answer is good, and under another trust nothing is.
func TestRule57Cache(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	clock := &testClock{time.Now()}
	trust := dnsTrust(t, "example.com", ca)
	m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: trust, Now: clock.now})
	a := attest(t, m, "alice")
	unresolved := func(when string) {
		t.Helper()
		before := m.Stats()
		_, err := m.Verify(a.Identity, a.Public)
		if _, ok := err.(*Unresolved); !ok {
			t.Errorf("%s: %v", when, err)
		}
		if m.Stats().Failed != before.Failed {
			t.Errorf("%s: counted as failed", when)
		}
	}
	unresolved("at first")
	answer := answerOf(alpha, clock.t.Add(time.Minute), tlsa(t, i.Cert, 1, 1))
	p, err := m.VerifyAnswered(a.Identity, a.Public, answer)
	if err != nil || p.Cached || !p.NotAfter.Equal(answer.Until) {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err = m.Verify(a.Identity, a.Public); err != nil || !p.Cached || !p.DNS {
		t.Errorf("it is not kept: %+v, %v", p, err)
	}
	clock.t = answer.Until.Add(time.Nanosecond)
	unresolved("when the answer's time is over")
	if _, err := m.VerifyAnswered(a.Identity, a.Public, answerOf(alpha, clock.t)); reason.Of(err) != reason.UnknownCA || m.Stats().Failed != 1 {
		t.Errorf("disowned: %v, %d failed", err, m.Stats().Failed)
	}
	answer.Until = clock.t.Add(time.Minute)
	if _, err = m.VerifyAnswered(a.Identity, a.Public, answer); err != nil {
		t.Fatal(err)
	}
	if err := m.Reload(m.Credential(), dnsTrust(t, "example.com", ca)); err != nil {
		t.Fatal(err)
	}
	unresolved("after a reload")
	// By now it is a CA's, and an answer is of no use.
	if err := m.Reload(m.Credential(), newTrust(t, trusting(newCA(t, testca.Options{})))); err != nil {
		t.Fatal(err)
	}
	_, err = m.VerifyAnswered(a.Identity, a.Public, answer)
	wantCode(t, err, reason.UnknownCA)
}

// Rule 57: a machine under DNS signs its certificates itself, and however many it makes, it pushes out only its own.
func TestRule57CacheBounds(t *testing.T) {
	trust := dnsTrust(t, "example.com")
	c := newCache(DefaultCached)
	put := func(i *testca.Issued, account string) [32]byte {
		cl := newClaim(i)
		cl.Account = account
		id := cl.sign(i)
		o, err := trust.verify(id, cl.used, answerOf(cl.Machine, cl.now.Add(time.Hour), tlsa(t, i.Cert, 1, 1)), cl.now)
		if err != nil {
			t.Fatal(err)
		}
		c.put(cacheKey(id), o)
		return cacheKey(id)
	}
	other := bySelf(t, testca.Leaf{Hosts: []string{"beta.example.com"}, KeyType: testca.Ed25519})
	kept := put(other, "alice")
	key := other.Key
	for n := range maxCachedPerLeaf + 10 {
		put(bySelf(t, testca.Leaf{Hosts: []string{alpha, fmt.Sprintf("n%d.test", n)}, Key: key}), "alice")
	}
	if c.len() != maxCachedPerLeaf+1 || c.entries[kept] == nil {
		t.Errorf("%d are kept", c.len())
	}
	for _, e := range c.entries {
		o := e.Value.(*cached).outcome
		if o.peer.Path[0] != o.peer.Leaf {
			t.Fatal("an outcome has another's certificate")
		}
	}
}

// Rule 49: a connection's peer stands while DNS vouches for its machine here, and DNS itself says the rest.
func TestRule49StandsByDNS(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	dns, byCA := dnsTrust(t, "example.com", ca), newTrust(t, trusting(ca))
	path := func(trust *Trust) Path {
		c := newClaim(i)
		o, err := trust.verify(c.sign(i), c.used, answerOf(alpha, c.now, tlsa(t, i.Cert, 1, 1)), c.now)
		if err != nil {
			t.Fatal(err)
		}
		return o.peer.VerifiedPath()
	}
	byDNS, chained := path(dns), path(byCA)
	if byDNS.DNS == nil || len(byDNS.Certs) != 0 || chained.DNS != nil {
		t.Fatalf("paths %+v and %+v", byDNS, chained)
	}
	for _, c := range []struct {
		name  string
		trust *Trust
		path  Path
		want  reason.Code
	}{
		{"by DNS", dns, byDNS, reason.Accepted}, {"by a CA", byCA, chained, reason.Accepted},
		{"by DNS, and now under a CA", byCA, byDNS, reason.UnknownCA}, {"by a CA, and now under DNS", dns, chained, reason.UnknownCA},
		{"by DNS under a longer name", dnsTrust(t, alpha, ca), byDNS, reason.Accepted},
	} {
		until, err := c.trust.Stands(c.path, i.Cert.NotBefore.Add(time.Hour))
		wantText(t, c.name, err, c.want)
		if until.IsZero() != (err != nil || c.path.DNS != nil) {
			t.Errorf("%s: until %v", c.name, until)
		}
	}
}

// This machine's own credential: where DNS vouches it may have a common name alone and needs no chain; its time is judged.
func TestOwnCredentialUnderDNS(t *testing.T) {
	ca := newCA(t, testca.Options{})
	dns, byCA := dnsTrust(t, "example.com", ca), newTrust(t, trusting(ca))
	c := credential(t, ancestor(t, strings.ToUpper(alpha)))
	if name, err := c.MachineName(dns, "", ""); err != nil || name != alpha {
		t.Errorf("it goes by %q, %v", name, err)
	}
	if name, err := c.MachineName(byCA, "", ""); err == nil || !strings.Contains(err.Error(), "does not count") {
		t.Errorf("without DNS it goes by %q, %v", name, err)
	}
	for _, override := range []string{alpha, "beta.example.com"} {
		if _, err := c.MachineName(dns, override, ""); (err == nil) != (override == alpha) {
			t.Errorf("as %s: %v", override, err)
		}
	}
	now := c.Leaf.NotBefore.Add(time.Hour)
	for _, name := range []string{"", alpha} {
		if faults := Check(c, name, dns, now); len(faults) != 0 {
			t.Errorf("faults of %q: %v", name, faults)
		}
	}
	for name, faults := range map[string][]Fault{"without DNS": Check(c, "", byCA, now), "later": Check(c, alpha, dns, c.Leaf.NotAfter.Add(time.Second)),
		"another name":       Check(c, "beta.example.com", dns, now),
		"a trusted CA's key": Check(credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}, Key: ca.Key})), "", dns, now)} {
		if len(faults) == 0 || faults[0].What == "" || faults[0].Cure == "" {
			t.Errorf("%s: %v", name, faults)
		}
	}
	m := newMachine(t, MachineConfig{Credential: c, Name: alpha, Trust: dns})
	a := attest(t, m, "alice")
	if _, err := m.VerifyAnswered(a.Identity, a.Public, answerOf(alpha, time.Now().Add(time.Hour), tlsa(t, c.Leaf, 0, 1))); err != nil {
		t.Error(err)
	}
	if err := m.Reload(c, byCA); err == nil || !strings.Contains(err.Error(), "is not for") {
		t.Errorf("a reload by which the name is nobody's: %v", err)
	}
}

func TestBranch(t *testing.T) {
	limits := []string{"example.com", "hpc.example.com", "example.org"}
	for machine, want := range map[string]string{
		"a.example.com": "a.example.com", "b.a.example.com": "a.example.com", "c.b.a.example.com": "a.example.com",
		"example.com": "example.com", "hpc.example.com": "hpc.example.com", "a.hpc.example.com": "a.hpc.example.com",
		"b.a.hpc.example.com": "a.hpc.example.com", "a.elsewhere.test": "a.elsewhere.test", "notexample.org": "notexample.org",
	} {
		if got := Branch(machine, limits); got != want {
			t.Errorf("%s: got %s, want %s", machine, got, want)
		}
	}
}
