// Package listen is `shared-altsd listen`: it takes the connections of peers that are let in to one backend of this machine.
//
// No peer is connected to anything before its handshake is done and --allow lets it in, and no byte is sent to a backend
// before the kernel has said that it is the account's that was named.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
	"github.com/shared-altsd/shared-altsd/service"
)

// A Config is what the flags or the file say.
type Config struct {
	Listen        []string // [HOST]:PORT or systemd:NAME
	Allow         []policy.PeerPattern
	Service       string // "": the port
	Target        Target
	TargetAccount string // a name or a uid, "" for none
	Command       []string
	Hold          bool // --unclean hold
	Ident         netip.Addr
	HTTP          bool
	UnsafeHeader  bool
	Limits        forward.Limits
	Metrics       string
	LogLevel      slog.Level
	Socket        string // of the daemon
	DaemonUID     uint32
}

// A Target is where a backend listens: a UNIX socket or a TCP address of this machine.
type Target struct {
	path string
	addr netip.AddrPort
}

// String returns the target as --target has it, "" for none.
func (t Target) String() string {
	switch {
	case t.path != "":
		return "unix:" + t.path
	case t.addr.IsValid():
		return t.addr.String()
	}
	return ""
}

// ParseTarget reads unix:PATH or HOST:PORT.
func ParseTarget(v string) (Target, error) {
	if path, ok := strings.CutPrefix(v, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return Target{}, fmt.Errorf("%q is not an absolute path: it begins with a slash, as in unix:/run/app/socket", path)
		}
		return Target{path: path}, nil
	}
	host, port, err := cli.HostPort(v)
	if err != nil {
		return Target{}, fmt.Errorf("%w; give unix:PATH or an address of loopback such as 127.0.0.1:5432", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Target{}, fmt.Errorf("%q is not a port from 1 to 65535", port)
	}
	if host == "localhost" {
		host = "127.0.0.1" // never what a resolver makes of it
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Target{}, fmt.Errorf("%q is not an address: give 127.0.0.1:%s or unix:PATH, since a name may lead elsewhere tomorrow",
			host, port)
	}
	if ip = ip.Unmap(); !sockowner.OnLoopback(ip) {
		return Target{}, fmt.Errorf("%v is neither a loopback address nor one of the interface lo: the kernel says whose a backend is "+
			"on this machine's loopback alone. Let it listen at 127.0.0.1:%s too, or run listen on its own machine", ip, port)
	}
	return Target{addr: netip.AddrPortFrom(ip, uint16(n))}, nil
}

// CheckListen refuses what is neither [HOST]:PORT nor systemd:NAME.
func CheckListen(v string) error {
	if name, ok := strings.CutPrefix(v, "systemd:"); ok {
		if name == "" {
			return errors.New("no name: give systemd:NAME, NAME being FileDescriptorName= of the socket unit")
		}
		return nil
	}
	host, port, err := cli.HostPort(v)
	if err != nil {
		return fmt.Errorf("%w; give [HOST]:PORT such as :6432, or systemd:NAME", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", port)
	} else if n == 0 && host == "" {
		return fmt.Errorf("%q lets the kernel choose a port, which no peer would know: give one", v)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q is not an address: give one of this machine's, or none for all of them, as in :%s", host, port)
		}
	}
	return nil
}

// check refuses what does not go together. The words are those of a command line and of a file.
func (c *Config) check() error {
	isTCP := c.Target.addr.IsValid()
	switch {
	case len(c.Listen) == 0:
		return cli.Usagef("no --listen: say where peers connect, such as --listen :6432")
	case len(c.Allow) == 0:
		return cli.Usagef("no --allow: say who is let in, such as --allow 'alice@alpha.example.com' or '*@.example.com'; " +
			"without it nobody would be")
	case c.Target == Target{} && len(c.Command) == 0:
		return cli.Usagef("no backend: give --target unix:PATH, --target 127.0.0.1:PORT with --target-account, or -- COMMAND")
	case c.Target != Target{} && len(c.Command) > 0:
		return cli.Usagef("both --target and a COMMAND: give one of them")
	case isTCP && c.TargetAccount == "":
		return cli.Usagef("--target %v without --target-account: while the backend is down, any account of this machine may take its "+
			"port; say whose it is, such as --target-account postgres", c.Target)
	case c.TargetAccount != "" && len(c.Command) > 0:
		return cli.Usagef("--target-account with a COMMAND, which runs as this account: leave it out")
	case c.Ident.IsValid() && !isTCP:
		return cli.Usagef("--ident answers for TCP connections: give --target HOST:PORT")
	case c.Ident.IsValid() && !(c.Target.addr.Addr().Is4() && c.Target.addr.Addr().IsLoopback()):
		return cli.Usagef("--ident with --target %v: it is for a server at a loopback address of IPv4, such as 127.0.0.1:%d", c.Target,
			c.Target.addr.Port())
	case c.HTTP && isTCP && !c.UnsafeHeader:
		return cli.Usagef("--http with --target %v: every account of this machine can connect there and say to be anybody; give a UNIX "+
			"socket, --target unix:PATH, or --unsafe-header if that does not matter", c.Target)
	case c.HTTP && c.Target == Target{}:
		return cli.Usagef("--http without --target: give the server's address")
	case c.HTTP && c.Ident.IsValid():
		return cli.Usagef("--ident with --http: a connection to the backend carries requests of several peers; take one of them")
	case c.UnsafeHeader && !c.HTTP:
		return cli.Usagef("--unsafe-header without --http: it says that a header may be forged; leave it out")
	case c.Hold && (c.Target.path == "" || c.HTTP):
		return cli.Usagef("--unclean hold without --target unix:PATH: it is for UNIX sockets, and TCP gets a reset; leave it out")
	}
	return nil
}

// accountUID returns the uid of --target-account, by the user database as it is now.
func (c *Config) accountUID(ctx context.Context) (uint32, error) {
	v := c.TargetAccount
	if n, err := strconv.ParseUint(v, 10, 32); err == nil {
		if localsock.Overflow(uint32(n)) {
			return 0, fmt.Errorf("--target-account: uid %s stands for every account unknown here: name one that is somebody's", v)
		}
		return uint32(n), nil
	}
	acct, err := service.AccountNamed(ctx, v, service.AccountOptions{AllowDomainAccounts: true})
	if err != nil {
		return 0, fmt.Errorf("--target-account: %w: give the name or the uid of the account that the backend runs as", err)
	}
	return acct.UID, nil
}

// service returns what the peers name, by default the port at which they connect.
func (c *Config) service(listeners []net.Listener) (string, error) {
	if c.Service != "" {
		return c.Service, nil
	}
	name := ""
	for _, l := range listeners {
		a, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return "", cli.Usagef("no --service, and %v has no port to be called by: give one, which connect is to be given as well",
				l.Addr())
		}
		port := strconv.Itoa(a.Port)
		if name != "" && name != port {
			return "", cli.Usagef("no --service, and ports %s and %s: give one, which connect is to be given as well", name, port)
		}
		name = port
	}
	return name, nil
}

// restart returns the first setting in which other differs that a reload cannot change, "" for none.
func (c *Config) restart(other *Config) string {
	for _, s := range []struct {
		name string
		same bool
	}{
		{"listen", strings.Join(c.Listen, " ") == strings.Join(other.Listen, " ")},
		{"ident", c.Ident == other.Ident},
		{"http", c.HTTP == other.HTTP},
		{"metrics", c.Metrics == other.Metrics},
		{"log-level", c.LogLevel == other.LogLevel},
		{"target-account with ident", !c.Ident.IsValid() || c.TargetAccount == other.TargetAccount},
		{"max-conns with ident", !c.Ident.IsValid() || c.Limits.Conns == other.Limits.Conns},
	} {
		if !s.same {
			return s.name
		}
	}
	return ""
}
