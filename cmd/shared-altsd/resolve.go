package main

import (
	"log/slog"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
)

var resolveCommand = &cli.Command{
	Name:    "resolve",
	Args:    cli.Args{Text: "[MACHINE]"},
	Summary: "ask DNS about machines, for the daemon, which has no network",
	About: `
Answers a daemon that trusts machines by DNS ('serve --ca NAMES=dane') what the TLSA records at _shared-alts.MACHINE are,
and whether they are verified. It verifies nothing itself: it asks a resolver of this machine that does, and believes its
AD bit. So the resolver has to be named, by --resolver, or by a resolv.conf with 'options trust-ad'; it has to be at an
address of loopback, and at a port that only root can take. Run it as an account of its own: that account can say what it
likes of every machine that is trusted by DNS. The packages have a unit for it, shared-altsd-resolve.socket.

  shared-altsd resolve --client shared-altsd --resolver 127.0.0.1 --socket /run/altsd-resolve/socket

With MACHINE it asks once, and prints what a daemon would hear. Exit status 0 if there are records and they are verified,
else 1:

  shared-altsd resolve --resolver 127.0.0.1 alpha.example.com`,
	Config: &cli.ConfigFile{
		Group:   "Configuration:",
		Help:    "Read flags from FILE as well: lines 'name = value', '#' comments. The command line wins.",
		Options: func() []cli.Option { return new(resolveConfig).options() },
		Read:    daemon.ReadConfigFile,
	},
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(resolveConfig)
		return c.options(), c.run
	},
}

// resolveConfig is what the flags of resolve say.
type resolveConfig struct {
	resolve.Config
	logLevel string
}

func (c *resolveConfig) options() []cli.Option {
	const (
		whom = "The resolver:"
		who  = "Who asks:"
		logs = "Logs:"
	)
	setResolver := func(v string) (err error) {
		c.Resolver, err = resolve.ParseResolver(v)
		return err
	}
	setSocket := func(v string) error {
		c.Socket = v
		return localsock.CheckPath(v)
	}
	addClient := func(v string) error {
		c.Clients = append(c.Clients, v)
		return nil
	}
	return []cli.Option{
		{Name: "resolver", Group: whom, Value: cli.Func("IP[:PORT]", setResolver),
			Help: "Resolver that validates, at an address of loopback and a port that only root may take: 127.0.0.1, [::1]:53. Without " +
				"it that of --resolv-conf."},
		{Name: "resolv-conf", Default: "/etc/resolv.conf", Group: whom, Value: cli.File(&c.ResolvConf),
			Help: "Where the resolver stands, if it says 'options trust-ad'. It is read at the start."},
		{Name: "client", Group: who, Repeat: true, Value: cli.Func("ACCOUNT", addClient),
			Help: "Name or uid of an account that may ask, besides root and this one: the daemon's."},
		{Name: "socket", Group: who, Value: cli.Func("PATH", setSocket).CompleteFiles(),
			Help: "Where to be asked, if the service manager passes no socket."},
		{Name: "log-level", Default: "info", Group: logs, Value: cli.Choice(&c.logLevel, "LEVEL", "debug", "info", "warn", "error"),
			Help: "At debug each question and what came of it."},
	}
}

func (c *resolveConfig) run(args []string) error {
	if err := c.LogLevel.UnmarshalText([]byte(c.logLevel)); err != nil {
		c.LogLevel = slog.LevelInfo
	}
	switch len(args) {
	case 0:
		return resolve.Run(&c.Config)
	case 1:
		secure, err := resolve.Ask(&c.Config, args[0], os.Stdout)
		if err == nil && !secure {
			err = cli.ExitStatus(1)
		}
		return err
	}
	return cli.Usagef("more than one MACHINE: give one, or none to serve a daemon")
}
