package resolve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	dnsPort = 53
	// maxConf bounds what is read of a resolv.conf.
	maxConf = 64 << 10
)

// ParseResolver reads the address of a resolver, IP[:PORT], as an administrator writes it.
func ParseResolver(v string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(v)
	if err != nil {
		bare := v
		if strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]") {
			bare = v[1 : len(v)-1]
		}
		ip, ipErr := netip.ParseAddr(bare)
		if ipErr != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is no IP[:PORT]: write 127.0.0.1, 127.0.0.1:53 or [::1]:53", v)
		}
		addr = netip.AddrPortFrom(ip, dnsPort)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

// Choose returns whom to ask: the address that was given, or, if that is none, the one that a resolv.conf vouches for. It is at
// loopback, at a port that only root may take.
func Choose(given netip.AddrPort, resolvConf string) (netip.AddrPort, error) {
	addr := given
	if !addr.IsValid() {
		f, err := os.Open(resolvConf)
		if err != nil {
			return addr, fmt.Errorf("no resolver: %w: name one by --resolver", err)
		}
		defer f.Close()
		// Its owner may be the resolver's account, as systemd-resolved's is.
		if info, err := f.Stat(); err != nil || info.Mode()&0o022 != 0 {
			return addr, fmt.Errorf("%s may be written by others, who could name a resolver: 'chmod go-w %[1]s'", resolvConf)
		}
		if addr, err = readConf(f); err != nil {
			return addr, fmt.Errorf("%s: %w", resolvConf, err)
		}
	}
	return addr, checkAddress(addr)
}

// readConf returns the first resolver of a resolv.conf, if an administrator, or whoever else writes it, says that it may be
// trusted to validate.
func readConf(r io.Reader) (netip.AddrPort, error) {
	const cure = "run a resolver that validates on this machine (unbound, knot-resolver, systemd-resolved with DNSSEC=yes) and name it by " +
		"--resolver"
	var first string
	trusted := false
	s := bufio.NewScanner(io.LimitReader(r, maxConf))
	for s.Scan() {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver" && first == "":
			first = fields[1]
		case fields[0] == "options": // the last such line counts for other options, but none takes this one back
			trusted = trusted || slices.Contains(fields[1:], "trust-ad")
		}
	}
	if err := s.Err(); err != nil {
		return netip.AddrPort{}, err
	}
	ip, err := netip.ParseAddr(first)
	switch {
	case first == "":
		return netip.AddrPort{}, errors.New("it names no resolver: " + cure)
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("its nameserver %q is no address: %s", first, cure)
	case !ip.IsLoopback(): // no word of anybody's makes it one that can be believed
		return netip.AddrPortFrom(ip, dnsPort), nil
	case !trusted:
		return netip.AddrPort{}, fmt.Errorf("it does not say that its nameserver %s validates (options trust-ad): if that one does, name it by "+
			"--resolver, else %s", ip, cure)
	}
	return netip.AddrPortFrom(ip.Unmap(), dnsPort), nil
}

// portStart is where the kernel says which ports every account may take.
var portStart = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// passing are addresses of loopback at which a well known server passes on the AD bit of whoever it asks. Docker writes trust-ad of
// its own beside the first.
var passing = []string{"127.0.0.11", "127.0.0.54"}

// checkAddress returns why whoever answers at an address cannot be believed.
func checkAddress(addr netip.AddrPort) error {
	switch {
	case !addr.Addr().IsLoopback() || addr.Addr().Zone() != "":
		return fmt.Errorf("the resolver %v is not at an address of loopback, so that anybody on the way can answer: run one that validates on "+
			"this machine, and name it by --resolver", addr)
	case slices.Contains(passing, addr.Addr().String()):
		return fmt.Errorf("at %v is docker's (127.0.0.11) or systemd-resolved's (127.0.0.54) server that validates nothing and passes on what "+
			"others say: name one that validates; systemd-resolved's is 127.0.0.53", addr)
	case addr.Port() == 0:
		return fmt.Errorf("the resolver %v has no port: leave it out for %d", addr, dnsPort)
	}
	text, err := os.ReadFile(portStart)
	if err != nil {
		return fmt.Errorf("which ports every account may take: %w", err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", portStart, err)
	}
	if int(addr.Port()) >= first {
		return fmt.Errorf("every account of this machine may take port %d, at which the resolver is (%s says %d): use a port below it, 53, or "+
			"'sysctl net.ipv4.ip_unprivileged_port_start=1024'", addr.Port(), portStart, first)
	}
	return nil
}
