package certbind

import (
	"net"
	"net/netip"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// Rule 13: a CA that is limited to names vouches for no other name of a certificate either, and for no address: else it
// could issue one of its machines a certificate that is also good for a bank's name.
func TestRule13LimitsHoldForHosts(t *testing.T) {
	ca, other := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	ip := netip.MustParseAddr("192.0.2.1")
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha, "www.example.com", "bank.example.net"},
		IPs: []net.IP{ip.AsSlice()}})
	for name, tc := range map[string]struct {
		cas                []CA
		www, bank, address bool
	}{
		"not limited":            {[]CA{{PEM: ca.PEM()}}, true, true, true},
		"limited":                {[]CA{{PEM: ca.PEM(), Names: []string{"example.com"}}}, true, false, false},
		"to the machine":         {[]CA{{PEM: ca.PEM(), Names: []string{alpha}}}, false, false, false},
		"to both":                {[]CA{{PEM: ca.PEM(), Names: []string{"example.com", "example.net"}}}, true, true, false},
		"twice, once for others": {[]CA{{PEM: ca.PEM(), Names: []string{alpha}}, {PEM: ca.PEM(), Names: []string{"example.net"}}}, false, false, false},
		"once without limits":    {[]CA{{PEM: ca.PEM(), Names: []string{alpha}}, {PEM: ca.PEM()}}, true, true, true},
		"beside another without": {[]CA{{PEM: ca.PEM(), Names: []string{alpha}}, {PEM: other.PEM()}}, false, false, false},
	} {
		c := newClaim(i)
		o, err := newTrust(t, TrustConfig{CAs: tc.cas}).verify(c.sign(i), c.used, nil, c.now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := o.peer
		if !p.ValidForHost(alpha) || p.ValidForHost("beta.example.com") {
			t.Errorf("%s: the machine's own name, or one that it does not have", name)
		}
		if p.ValidForHost("www.example.com") != tc.www || p.ValidForHost("bank.example.net") != tc.bank ||
			p.ValidForAddress(ip) != tc.address {
			t.Errorf("%s: www %v, bank %v, address %v, want %v, %v, %v", name, p.ValidForHost("www.example.com"),
				p.ValidForHost("bank.example.net"), p.ValidForAddress(ip), tc.www, tc.bank, tc.address)
		}
	}
	if (&Peer{}).ValidForHost(alpha) || (&Peer{}).ValidForAddress(ip) {
		t.Error("a peer without a certificate is valid for a host")
	}
}
