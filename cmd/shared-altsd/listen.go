package main

import (
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/listen"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/policy"
)

var listenCommand = newListenCommand()

const (
	listenPeers         = "Peers:"
	listenConfiguration = "Configuration:"
)

func newListenCommand() *cli.Command {
	command := &cli.Command{
		Name:    "listen",
		Args:    cli.Args{Text: "[-- COMMAND [ARGUMENT]...]"},
		Summary: "let proved peers in to a program of this machine, whatever it speaks",
		About: `
Takes connections of 'shared-altsd connect', has this machine's daemon prove who is at the other end, and carries the
bytes of those whom --allow names to one backend: a socket of the account that --target-account names, or COMMAND, which
is started for each connection with the connection as its standard input and output and the peer in its environment
(ALTSD_PEER and others). Nobody else is connected to anything. Run it as the account that peers are to see.

  shared-altsd listen --listen :6432 --allow '*@alpha.example.com' \
      --target 127.0.0.1:5432 --target-account postgres
  shared-altsd listen --listen :2222 --target unix:/run/app/socket --allow '=@.example.com'
  shared-altsd listen --listen :8730 --allow 'backup@vault.example.com' -- rsync --server --daemon .

SIGHUP reads the file of --config again: allow, target and limits are in force for connections to come, and connections
that stand of peers that are allowed no longer are ended. A file with a mistake in it changes nothing. SIGTERM takes no
more connections and lets those that stand end, for as long as --drain says; a second one does not.`,
		Verbatim: true,
		Config: &cli.ConfigFile{
			Group:   listenConfiguration,
			Help:    "Read flags from FILE as well: lines 'name = value', '#' comments. The command line wins.",
			Options: func() []cli.Option { return new(listenConfig).options() },
			Read:    daemon.ReadConfigFile,
		},
	}
	command.Setup = func() ([]cli.Option, func([]string) error) {
		c := new(listenConfig)
		return c.options(), func(args []string) error {
			return c.run(args, func() (*listen.Config, error) {
				again := new(listenConfig)
				rest, err := command.Parse(again.options(), os.Args[2:])
				return again.config(rest), err
			})
		}
	}
	return command
}

// listenConfig is what the flags of listen say.
type listenConfig struct {
	listen.Config
	daemonFlags
	forwardFlags
	check bool
}

func (c *listenConfig) run(args []string, again func() (*listen.Config, error)) error {
	if c.check {
		return listen.Check(c.config(args))
	}
	return listen.Run(c.config(args), again)
}

// config returns c with the words of the flags understood: the options admit no others.
func (c *listenConfig) config(args []string) *listen.Config {
	c.Command, c.Hold, c.LogLevel = args, c.hold(), c.level(slog.LevelInfo)
	c.Socket, c.DaemonUID = localsock.Path(c.daemonFlags.socket), uint32(c.daemonFlags.uid)
	return &c.Config
}

func (c *listenConfig) options() []cli.Option {
	const backend = "The backend:"
	options := []cli.Option{
		{Name: "listen", Group: listenPeers, Repeat: true, Value: cli.Func("[HOST]:PORT|systemd:NAME", c.addListen),
			Help: "Take connections of peers here, or at what the service manager passes under NAME (FileDescriptorName=)."},
		{Name: "allow", Group: listenPeers, Repeat: true, Value: cli.Func("USER@MACHINE", c.addAllow),
			Help: "Let these peers in: an account, *, %GROUP that the peer's machine publishes, or = for the account of the same name as " +
				"this one; at a machine, .DOMAIN or *. Nobody is let in by default."},
		{Name: "service", Group: listenPeers, Value: cli.Func("NAME", c.setService),
			Help: "What 'connect --service' calls this, so that nobody on the way can lead a peer to another service of the account: 1 to 52 " +
				"of a-z, 0-9, '.', '_', '-'. Without it the port."},
		{Name: "target", Group: backend, Value: cli.Func("unix:PATH|HOST:PORT", c.setTarget),
			Help: "Carry bytes to this socket, or to this address of loopback."},
		{Name: "target-account", Group: backend, Value: cli.String(&c.TargetAccount, "ACCOUNT"),
			Help: "Name or uid of the account that the backend runs as; needed with HOST:PORT, which any account may take while the " +
				"backend is down. Its sockets and root's are taken for the backend's, and nobody else's is sent a byte. With " +
				"unix:PATH this account without it."},
		{Name: "ident", Group: backend, Value: cli.Func("ADDRESS", c.setIdent),
			Help: "Connect to the backend from this address of loopback, such as 127.77.0.1, and tell it by ident (RFC 1413) who the " +
				"peer is. No other program may use the address. Port 113 there is for root, CAP_NET_BIND_SERVICE, or a socket unit " +
				"with FileDescriptorName=ident."},
		{Name: "http", Group: backend, Value: cli.Switch(&c.HTTP),
			Help: "Peers speak HTTP/1.1 or HTTP/2, gRPC among it: the backend is told in headers who calls (Altsd-Peer)."},
		{Name: "unsafe-header", Group: backend, Value: cli.Switch(&c.UnsafeHeader),
			Help: "With --http: every account of this machine that reaches the backend may forge these headers, and that does not matter."},
		c.ends(backend, "a backend"),
	}
	options = append(options, c.daemonFlags.options()...)
	options = append(options, c.limits(&c.Limits, &c.Metrics, ", of which no peer has more than half and no machine more than three quarters",
		"")...)
	return append(options,
		cli.Option{Name: "drain", Default: "30s", Group: forwardLimits, Value: cli.Duration(&c.Limits.Drain, 0, 24*time.Hour),
			Help: "How long a stop waits for connections to end by themselves."},
		cli.Option{Name: "check", Group: listenConfiguration, Value: cli.Switch(&c.check),
			Help: "Say what is wrong with flags and file, and end. systemd's reload does that first."},
	)
}

func (c *listenConfig) addListen(v string) error {
	c.Listen = append(c.Listen, v)
	return listen.CheckListen(v)
}

func (c *listenConfig) addAllow(v string) error {
	p, err := policy.ParsePeer(v)
	c.Allow = append(c.Allow, p)
	return err
}

func (c *listenConfig) setService(v string) error {
	c.Service = v
	_, err := altscreds.ServiceProtocol(v)
	return err
}

func (c *listenConfig) setTarget(v string) (err error) {
	c.Target, err = listen.ParseTarget(v)
	return err
}

func (c *listenConfig) setIdent(v string) (err error) {
	c.Ident, err = netip.ParseAddr(v)
	return err
}
