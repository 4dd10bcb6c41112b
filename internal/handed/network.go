package handed

import "net/netip"

// PlacesOfNetwork is how many handshakes the peers of one network may have under way with one server.
const PlacesOfNetwork = 16

// Site returns the range in which an address's neighbours may all belong to whoever has it: a /24 of IPv4, a /48 of IPv6,
// which is what one site is given, and this machine. It is not valid if addr is not.
func Site(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 48
	switch {
	case addr.IsLoopback():
		return Network(addr)
	case addr.Is4():
		bits = 24
	}
	p, _ := addr.Prefix(bits) // of no address: no prefix
	return p
}

// Network returns whose an address is, as far as bounds go: a host of IPv4, a /64 of IPv6, and this machine, which has
// many. It is not valid if addr is not.
func Network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	switch {
	case addr.IsLoopback():
		return netip.PrefixFrom(netip.IPv6Loopback(), 128)
	case addr.Is4():
		bits = 32
	}
	p, _ := addr.Prefix(bits) // of no address: no prefix
	return p
}
