package service

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Rule 20, for a peer bob@beta.test that also answers to www.test, *.wild.test, 192.0.2.7, 127.0.0.9 and 2001:db8::7,
// seen from beta.test itself or from alpha.test.
func TestTargets(t *testing.T) {
	peer := &certbind.Peer{Machine: "beta.test", Account: "bob", Leaf: &x509.Certificate{
		DNSNames:    []string{"beta.test", "WWW.test", "*.wild.test", "short"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.7"), net.ParseIP("127.0.0.9"), net.ParseIP("2001:db8::7")},
	}}
	host := func(name string) *altspb.StartClientHandshakeReq {
		return &altspb.StartClientHandshakeReq{TargetName: name}
	}
	ids := func(ids ...*altspb.Identity) *altspb.StartClientHandshakeReq {
		return &altspb.StartClientHandshakeReq{TargetIdentities: ids, TargetName: "elsewhere.test:1"}
	}
	withAttributes := accountID("bob@beta.test")
	withAttributes.Attributes = map[string]string{"uid": "1"}
	const (
		ok  = ""
		bad = "(bad_request)"
		not = "(target_mismatch)"
	)
	for _, test := range []struct {
		req                *altspb.StartClientHandshakeReq
		strict, dns, off   string // from alpha.test
		strictOnTheMachine string // from beta.test
	}{
		// Identities: any switches the host check off.
		{ids(accountID("bob@beta.test")), ok, ok, ok, ok},
		{ids(accountID("BOB@Beta.Test")), ok, ok, ok, ok},
		{ids(accountID("bob@beta.test.")), bad, bad, bad, bad},
		{ids(accountID("alice@beta.test")), not, not, not, not},
		{ids(accountID("bob@alpha.test")), not, not, not, not},
		{ids(accountID("alice@beta.test"), accountID("bob@beta.test")), ok, ok, ok, ok},
		{ids(hostnameID("beta.test")), ok, ok, ok, ok},
		{ids(hostnameID("BETA.test")), ok, ok, ok, ok},
		{ids(hostnameID("www.test")), not, not, not, not}, // a machine is its name, not any of its SANs
		{ids(accountID("alice@alpha.test"), hostnameID("beta.test")), ok, ok, ok, ok},
		// An entry without value or of unknown kind is an error, never skipped.
		{ids(new(altspb.Identity)), bad, bad, bad, bad},
		{ids(accountID("bob@beta.test"), new(altspb.Identity)), bad, bad, bad, bad},
		{ids(accountID("")), bad, bad, bad, bad},
		{ids(accountID("bob")), bad, bad, bad, bad},
		{ids(accountID("bob@")), bad, bad, bad, bad},
		{ids(accountID("@beta.test")), bad, bad, bad, bad},
		{ids(accountID("bob@evil@beta.test")), bad, bad, bad, bad},
		{ids(hostnameID("")), bad, bad, bad, bad},
		{ids(hostnameID("localhost")), bad, bad, bad, bad},
		{ids(withAttributes), bad, bad, bad, bad},
		{ids(make([]*altspb.Identity, maxTargets+1)...), bad, bad, bad, bad},
		// No targets and no name.
		{host(""), not, not, ok, not},
		// Host names: port and one trailing dot removed, ASCII lower case.
		{host("beta.test"), ok, ok, ok, ok},
		{host("beta.test:443"), ok, ok, ok, ok},
		{host("beta.test:https"), ok, ok, ok, ok},
		{host("BETA.test.:443"), ok, ok, ok, ok},
		{host("beta.test.."), bad, bad, ok, bad},
		{host("www.test:1"), ok, ok, ok, ok},
		{host("short"), ok, ok, ok, ok},
		{host("alpha.test"), not, not, ok, not},
		{host("a.wild.test"), not, not, ok, not}, // a wildcard is for all its holders
		{host("*.wild.test"), bad, bad, ok, bad},
		{host("x.beta.test"), not, not, ok, not},
		{host("beta.test:"), bad, bad, ok, bad},
		{host(":443"), bad, bad, ok, bad},
		{host("beta.test:4 3"), bad, bad, ok, bad},
		{host("beta%2Etest"), bad, bad, ok, bad},
		{host("b\u00e9ta.test"), bad, bad, ok, bad},
		{host("\u212aeta.test"), bad, bad, ok, bad}, // a Kelvin sign has the lower case k in Unicode
		{host("bob@beta.test"), bad, bad, ok, bad},
		{host("dns:///beta.test"), bad, bad, ok, bad},
		{host(strings.Repeat("a.", 150) + "test"), bad, bad, ok, bad},
		{host(strings.Repeat("x", maxTargetName+1)), bad, bad, bad, bad},
		// Addresses: brackets and zone removed.
		{host("192.0.2.7"), ok, ok, ok, ok},
		{host("192.0.2.7:443"), ok, ok, ok, ok},
		{host("[::ffff:192.0.2.7]:443"), ok, ok, ok, ok},
		{host("192.0.2.8:443"), not, ok, ok, not},
		{host("[2001:db8::7]:443"), ok, ok, ok, ok},
		{host("[2001:db8::7]"), ok, ok, ok, ok},
		{host("2001:db8::7"), ok, ok, ok, ok},
		{host("[2001:db8::7%eth0]:443"), ok, ok, ok, ok},
		{host("[2001:db8::7%25eth0]:443"), ok, ok, ok, ok},
		{host("[2001:db8::8]:443"), not, ok, ok, not},
		{host("[2001:db8::7%]:443"), bad, bad, ok, bad},
		{host("[2001:db8::7"), bad, bad, ok, bad},
		{host("[2001:db8::7]443"), bad, bad, ok, bad},
		{host("[192.0.2.7]"), bad, bad, ok, bad},
		{host("[beta.test]:1"), bad, bad, ok, bad},
		{host("192.0.2.7%eth0"), bad, bad, ok, bad},
		{host("127.1"), bad, bad, ok, bad},
		{host("2130706433"), bad, bad, ok, bad},
		{host("0x7f000001"), bad, bad, ok, bad},
		{host("192.0.2.007"), bad, bad, ok, bad},
		// This machine.
		{host("localhost"), not, not, ok, ok},
		{host("LOCALHOST.:80"), not, not, ok, ok},
		{host("a.localhost:80"), not, not, ok, ok},
		{host("localhost.test"), not, not, ok, not},
		{host("127.0.0.1:80"), not, not, ok, ok},
		{host("127.255.0.1:80"), not, not, ok, ok},
		{host("[::1]:80"), not, not, ok, ok},
		{host("[::ffff:127.0.0.1]:80"), not, not, ok, ok},
		{host("127.0.0.9:80"), ok, ok, ok, ok}, // the peer's IP SAN holds the address
		// C-core's list: each well formed, one of them the peer.
		{host("192.0.2.8:1,192.0.2.7:1"), ok, ok, ok, ok},
		{host("192.0.2.8:1,192.0.2.9:1"), not, ok, ok, not},
		{host("alpha.test:1,beta.test:1"), ok, ok, ok, ok},
		{host("beta.test:1,"), bad, bad, ok, bad},
		{host("beta.test:1,a%b"), bad, bad, ok, bad},
		{host("a" + strings.Repeat(",a", maxTargetHosts)), bad, bad, ok, bad},
	} {
		check := func(naming SecureNaming, machine, want string) {
			t.Helper()
			s := &Server{cfg: Config{SecureNaming: naming}}
			tg, err := s.newTarget(test.req, &identity{account: Account{Name: "alice"}, machine: machine})
			if err == nil {
				err = tg.authorize(peer)
			}
			if (err == nil) != (want == ok) || err != nil && !strings.HasSuffix(err.Error(), want) {
				t.Errorf("naming %d on %s, %.80v: error %v, want %q", naming, machine, test.req, err, want)
			}
		}
		check(Strict, "alpha.test", test.strict)
		check(DNS, "alpha.test", test.dns)
		check(Off, "alpha.test", test.off)
		check(Strict, "beta.test", test.strictOnTheMachine)
	}
}

// --server-accounts narrows whom a client without targets accepts, in every mode, and leaves one with targets alone.
func TestServerAccounts(t *testing.T) {
	bob := &certbind.Peer{Machine: "beta.test", Account: "bob",
		Leaf: &x509.Certificate{DNSNames: []string{"beta.test"}}}
	for _, test := range []struct {
		accounts []string
		me       string
		ok       bool
	}{
		{nil, "alice", true},
		{[]string{"same"}, "bob", true},
		{[]string{"same"}, "alice", false},
		{[]string{"alice", "bob"}, "carol", true},
		{[]string{"alice"}, "bob", false},
	} {
		for naming := Strict; naming <= Off; naming++ {
			s := &Server{cfg: Config{SecureNaming: naming, ServerAccounts: test.accounts}}
			me := &identity{account: Account{Name: test.me}, machine: "alpha.test"}
			tg, err := s.newTarget(&altspb.StartClientHandshakeReq{TargetName: "beta.test:1"}, me)
			if err != nil {
				t.Fatal(err)
			}
			if err := tg.authorize(bob); (err == nil) != test.ok {
				t.Errorf("%v for %s: %v", test.accounts, test.me, err)
			} else if err != nil {
				wantReason(t, err, reason.TargetMismatch, "is content only with")
			}
			tg, err = s.newTarget(&altspb.StartClientHandshakeReq{TargetIdentities: []*altspb.Identity{accountID("bob@beta.test")}}, me)
			if err != nil {
				t.Fatal(err)
			}
			if err := tg.authorize(bob); err != nil {
				t.Errorf("with a target: %v", err)
			}
		}
	}
}

// With domain accounts, a service account is split at the last @.
func TestDomainAccountTargets(t *testing.T) {
	s := &Server{cfg: Config{AllowDomainAccounts: true}}
	tg, err := s.newTarget(&altspb.StartClientHandshakeReq{TargetIdentities: []*altspb.Identity{accountID(`bob@corp.test@beta.test`)}}, &identity{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tg.authorize(&certbind.Peer{Machine: "beta.test", Account: "bob@corp.test"}); err != nil {
		t.Error(err)
	}
	if err := tg.authorize(&certbind.Peer{Machine: "corp.test@beta.test", Account: "bob"}); err != nil {
		t.Log("the string is the same; certbind never lets such a machine name through")
	}
}

// A peer without a leaf proves no host.
func TestNoLeaf(t *testing.T) {
	h := host{addr: netip.MustParseAddr("192.0.2.1")}
	if h.matches(&certbind.Peer{}, "alpha.test", Strict) || (host{name: "a"}).matches(&certbind.Peer{},
		"alpha.test", Strict) {
		t.Error("a peer without certificate matches a host")
	}
}

func TestParseSecureNaming(t *testing.T) {
	for s, want := range map[string]SecureNaming{"strict": Strict, "dns": DNS, "off": Off} {
		if got, err := ParseSecureNaming(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := ParseSecureNaming("none"); err == nil {
		t.Error("no error")
	}
	if s := shortList([]string{"a", "b", "c", "d", "e", "f"}); s != `"a", "b", "c", "d" and 2 more` {
		t.Error(s)
	}
}

// Whatever name is taken must be one that a peer's certificate could hold, and a plain reading of it must be the same.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"beta.test:443", "[2001:db8::7%25eth0]:1", "localhost", "127.0.0.1:1", "a,b:1,[::1]",
		"x%41.test", "0x7f.1", "beta.test."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hosts, err := parseTargetName(s)
		if err != nil {
			return
		}
		if len(hosts) == 0 || len(hosts) > maxTargetHosts {
			t.Fatalf("%q: %d hosts", s, len(hosts))
		}
		for _, h := range hosts {
			if h.addr.IsValid() == (h.name != "") {
				t.Fatalf("%q: %+v is neither a name nor an address", s, h)
			}
			again, err := parseHost(h.String())
			if err != nil || again != h {
				t.Fatalf("%q: %+v reads again as %+v, %v", s, h, again, err)
			}
			if h.addr.IsValid() && h.self != h.addr.IsLoopback() || h.addr.Zone() != "" || h.addr.Is4In6() {
				t.Fatalf("%q: %+v", s, h)
			}
			if strings.Trim(h.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.HasSuffix(h.name, ".") {
				t.Fatalf("%q: name %q", s, h.name)
			}
		}
	})
}
