package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// SecureNaming says what a client that names no target identities is assured of.
type SecureNaming int

const (
	// Strict demands that the peer's certificate be valid for the host that was dialled, by DNS or IP subject
	// alternative name.
	Strict SecureNaming = iota
	// DNS checks host names, and the names and addresses of this machine itself, but lets other bare IP addresses through.
	DNS
	// Off never checks the host.
	Off
)

// ParseSecureNaming reads strict, dns or off.
func ParseSecureNaming(s string) (SecureNaming, error) {
	i := slices.Index([]string{"strict", "dns", "off"}, s)
	if i < 0 {
		return 0, fmt.Errorf("secure naming is %q; it must be strict, dns or off", s)
	}
	return SecureNaming(i), nil
}

const (
	maxTargetName  = 4096 // bytes
	maxTargetHosts = 64   // entries of a target name that is a list
	maxTargets     = 256  // target identities
)

// same, as the only entry of Config.ServerAccounts, stands for the caller's own account name.
const same = "same"

// A target is whom a client is content with. A set of target identities switches the check of the host off, since it
// says more: a host name proves the machine, not the account.
type target struct {
	accounts, machines []string // target identities
	identities         bool
	hosts              []host   // the host that was dialled; one of them must do, each alternative of a list
	serverAccounts     []string // nil: any
	naming             SecureNaming
	ownMachine         string
}

// A host is one dialled name: a DNS name or an address, self if it stands for this machine.
type host struct {
	name string
	addr netip.Addr
	self bool
}

// newTarget reads what a start request says of the peer that it wants.
func (s *Server) newTarget(req *altspb.StartClientHandshakeReq, me *identity) (*target, error) {
	t := &target{naming: s.cfg.SecureNaming, ownMachine: me.machine, identities: len(req.GetTargetIdentities()) > 0}
	if n := len(req.GetTargetIdentities()); n > maxTargets {
		return nil, badRequest("the start request names %d target identities; at most %d are taken", n, maxTargets)
	}
	for _, id := range req.GetTargetIdentities() {
		if err := t.addIdentity(id, s.cfg.AllowDomainAccounts); err != nil {
			return nil, err
		}
	}
	name := req.GetTargetName()
	if len(name) > maxTargetName {
		return nil, badRequest("the target name has %d bytes; at most %d are taken", len(name), maxTargetName)
	}
	if t.identities {
		return t, nil
	}
	t.serverAccounts = s.cfg.ServerAccounts
	if slices.Equal(t.serverAccounts, []string{same}) {
		t.serverAccounts = []string{me.account.Name}
	}
	if t.naming == Off {
		return t, nil
	}
	if name == "" {
		return nil, reason.Errorf(reason.TargetMismatch, "the application names neither a target account nor a host, "+
			"so any server would do; set target service accounts in its ALTS options")
	}
	var err error
	t.hosts, err = parseTargetName(name)
	return t, err
}

// addIdentity takes one target identity. One that nobody could ever be is an error, never skipped.
func (t *target) addIdentity(id *altspb.Identity, domains bool) error {
	if len(id.GetAttributes()) > 0 {
		return badRequest(
			"a target identity has attributes, which cannot be asked for; name only the account or the host")
	}
	switch v := id.GetIdentityOneof().(type) {
	case *altspb.Identity_ServiceAccount:
		account, err := parseServiceAccount(v.ServiceAccount, domains)
		if err != nil {
			return badRequest(
				"the target account %.100q cannot be anybody: %v; write it as account@machine", v.ServiceAccount, err)
		}
		t.accounts = append(t.accounts, account)
	case *altspb.Identity_Hostname:
		machine := names.Machine(v.Hostname)
		if err := certbind.ValidMachineName(machine); err != nil {
			return badRequest("the target machine %.100q cannot be any machine: %v", v.Hostname, err)
		}
		t.machines = append(t.machines, machine)
	default:
		return badRequest("a target identity is empty or of a kind that is not known here; " +
			"it must have a service_account (account@machine) or a hostname")
	}
	return nil
}

// parseServiceAccount checks account@machine and returns it in lower case.
func parseServiceAccount(s string, domains bool) (string, error) {
	account, user, machine, err := names.Account(s)
	if err != nil {
		return "", err
	}
	if err := certbind.ValidAccount(user, domains); err != nil {
		return "", err
	}
	return account, certbind.ValidMachineName(machine)
}

// authorize is the check of an initiator, made before the peer learns who called.
func (t *target) authorize(p *certbind.Peer) error {
	if t.identities {
		if slices.Contains(t.accounts, p.String()) || slices.Contains(t.machines, p.Machine) {
			return nil
		}
		want := slices.Concat(t.accounts, t.machines)
		return reason.Errorf(reason.TargetMismatch,
			"the server is %s, not the target that the application named: %s", p, shortList(want))
	}
	if t.serverAccounts != nil && !slices.Contains(t.serverAccounts, p.Account) {
		return reason.Errorf(reason.TargetMismatch,
			"the server is %s, and by this machine's administrator a client that names no target account is content only "+
				"with %s; name the target account in the application", p, shortList(t.serverAccounts))
	}
	if t.naming == Off {
		return nil
	}
	for _, h := range t.hosts {
		if h.matches(p, t.ownMachine, t.naming) {
			return nil
		}
	}
	var names []string
	for _, h := range t.hosts {
		names = append(names, h.String())
	}
	return reason.Errorf(reason.TargetMismatch,
		"the server is %s, whose certificate is not for the host that was dialled: %s; "+
			"dial a name that is in its certificate, or name the target account in the application", p, shortList(names))
}

func (h host) matches(p *certbind.Peer, ownMachine string, naming SecureNaming) bool {
	if h.self && p.Machine == ownMachine {
		return true
	}
	if h.addr.IsValid() {
		return naming == DNS && !h.self || p.ValidForAddress(h.addr)
	}
	return !h.self && p.ValidForHost(h.name)
}

func (h host) String() string {
	if h.addr.IsValid() {
		return h.addr.String()
	}
	return h.name
}

// parseTargetName reads the name that was dialled: host, host:port, [address]:port, an address, or a comma list of
// them, which C-core gives if the target resolved to several addresses. Each entry of a list must be well formed; the
// peer must be one of them, because which of them was connected to is not told.
func parseTargetName(s string) ([]host, error) {
	parts := strings.Split(s, ",")
	if len(parts) > maxTargetHosts {
		return nil, badRequest("the target name lists %d hosts; at most %d are taken", len(parts), maxTargetHosts)
	}
	hosts := make([]host, 0, len(parts))
	for _, part := range parts {
		h, err := parseHost(part)
		if err != nil {
			return nil, badRequest(
				"the target name %.100q is not a host: %v; dial a host name or address, or name the target "+
					"account in the application", s, err)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func parseHost(s string) (host, error) {
	name, port, literal := s, "", false
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return host{}, fmt.Errorf("a bracket is not closed")
		}
		name, port, literal = s[1:end], s[end+1:], true
	case strings.Count(s, ":") == 1:
		i := strings.IndexByte(s, ':')
		name, port = s[:i], s[i:]
	default:
		literal = strings.Contains(s, ":") // an IPv6 address without brackets
	}
	if port != "" && (port[0] != ':' || !validPort(port[1:])) {
		return host{}, fmt.Errorf("the port is not a number or a service's name")
	}
	if literal {
		bare, zone, hasZone := strings.Cut(name, "%")
		addr, err := netip.ParseAddr(bare)
		if err != nil || !addr.Is6() || hasZone && zone == "" {
			return host{}, fmt.Errorf("it is no IPv6 address")
		}
		return newHostAddr(addr), nil
	}
	if strings.Contains(name, "%") {
		return host{}, fmt.Errorf("it has a percent sign")
	}
	name = ascii.Lower(strings.TrimSuffix(name, "."))
	if addr, err := netip.ParseAddr(name); err == nil {
		return newHostAddr(addr), nil
	}
	if err := validHost(name); err != nil {
		return host{}, err
	}
	return host{name: name, self: name == "localhost" || strings.HasSuffix(name, ".localhost")}, nil
}

func newHostAddr(a netip.Addr) host {
	a = a.Unmap()
	return host{addr: a, self: a.IsLoopback()}
}

func validPort(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s,
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

// validHost takes what can stand in a DNS SAN: ASCII letters, digits, hyphens and underscores in labels. A last label
// that is a number would be an address to some resolvers (127.1, 0x7f000001), so that it is refused.
func validHost(s string) error {
	if s == "" || len(s) > 253 {
		return fmt.Errorf("it is empty or longer than 253 bytes")
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("a label of it is empty, longer than 63 bytes, or has other characters " +
				"than ASCII letters, digits, - and _")
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" ||
		strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return fmt.Errorf("it ends with a number but is no address")
	}
	return nil
}

// shortList quotes the first few entries of a list.
func shortList(list []string) string {
	const shown = 4
	var b strings.Builder
	for i, s := range list[:min(len(list), shown)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.120q", s)
	}
	if n := len(list) - shown; n > 0 {
		fmt.Fprintf(&b, " and %d more", n)
	}
	return b.String()
}
