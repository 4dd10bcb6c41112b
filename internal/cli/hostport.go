package cli

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// HostPort splits HOST:PORT. Of an IPv6 address without brackets, in which nobody can tell the port from the address, its
// error says how to write it.
func HostPort(v string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(v); err == nil {
		return host, port, nil
	}
	if i := strings.LastIndexByte(v, ':'); i >= 0 && strings.Trim(v[i+1:], "0123456789") == "" {
		if a, err := netip.ParseAddr(v[:i]); err == nil && a.Is6() {
			return "", "", fmt.Errorf("%q is not HOST:PORT: an IPv6 address stands in brackets: write [%s]:%s", v, v[:i], v[i+1:])
		}
	}
	if a, err := netip.ParseAddr(v); err == nil && a.Is6() {
		return "", "", fmt.Errorf("%q is not HOST:PORT: an IPv6 address stands in brackets, and a port behind it: write [%s]:PORT",
			v, v)
	}
	return "", "", fmt.Errorf("%q is not HOST:PORT", v)
}
