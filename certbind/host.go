package certbind

import (
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
)

// ValidForHost reports whether the peer's certificate has the host name, in ASCII lower case, among its DNS SANs, and
// the CA that vouched for the peer may vouch for that name, too. A wildcard does not do: it would let every machine
// that holds it answer for every other. DNS vouches for the machine's own name and for no other in the certificate, which
// nobody else has signed, and no CA vouches for a name that is DNS's.
func (p *Peer) ValidForHost(name string) bool {
	if p.DNS {
		return name == p.Machine
	}
	return !p.trust.UnderDNS(name) && p.Leaf != nil && hasName(p.Leaf, name) &&
		(p.limits == nil || slices.ContainsFunc(p.limits, func(n string) bool { return under(name, n) }))
}

// ValidForAddress reports whether the peer's certificate has the address among its IP SANs. A CA that is limited to
// names vouches for no address, nor does DNS.
func (p *Peer) ValidForAddress(addr netip.Addr) bool {
	return p.Leaf != nil && !p.DNS && p.limits == nil && slices.ContainsFunc(p.Leaf.IPAddresses, func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && a.Unmap() == addr
	})
}

// limits returns the names that the trust anchor may vouch for, one of which is the machine's; nil for any name. One
// that is configured nowhere is of the system's pool.
func (t *Trust) limits(anchor *x509.Certificate, machine string) (names []string) {
	inSystem := true
	for i := range t.groups {
		g := &t.groups[i]
		if t.vouches(g, machine) && slices.ContainsFunc(g.certs, anchor.Equal) {
			if inSystem = false; len(g.names) == 0 {
				return nil
			}
			names = append(names, g.names...)
		}
	}
	for i := range t.groups {
		if g := &t.groups[i]; inSystem && g.system != nil && t.vouches(g, machine) {
			names = append(names, g.names...)
		}
	}
	return names
}
