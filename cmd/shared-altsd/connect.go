package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/connect"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/standin"
)

var connectCommand = &cli.Command{
	Name:    "connect",
	Args:    cli.Args{Text: "ACCOUNT@MACHINE:PORT [-- COMMAND [ARGUMENT]...]"},
	Summary: "connect any program here to a proved account on another machine",
	Divided: true,
	About: `
Connects to MACHINE:PORT, where 'shared-altsd listen' is, proves this account there, has it proved that ACCOUNT@MACHINE is
the other end, and carries bytes, encrypted, with an end that nobody on the way can feign.

Without --listen it joins standard input and output, and ends with exit status 0 only after the other end has said that
it is whole. With --listen it serves local programs: those of this account and of no other, which the kernel is asked
about each connection. With COMMAND it serves that one, in a private directory (%d), and ends with it and its exit
status, or 125 if connect failed, 126 if COMMAND cannot be run, 127 if it is not found.

  ssh -o ProxyCommand='shared-altsd connect root@%h:2222' b.example.com
  shared-altsd connect --listen unix:.s.PGSQL.5432 --setenv PGHOST=%d postgres@b.example.com:6432 -- psql
  shared-altsd connect --listen 127.0.0.1:6432 postgres@b.example.com:6432`,
	Config: &cli.ConfigFile{
		Group:   connectLocal,
		Help:    "Read flags from FILE as well: lines 'name = value', '#' comments; peer = ACCOUNT@MACHINE:PORT. The command line wins.",
		Options: func() []cli.Option { return new(connectConfig).options() },
		Read:    daemon.ReadConfigFile,
	},
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(connectConfig)
		return c.options(), c.run
	},
}

const connectLocal = "Programs here:"

// connectConfig is what the flags of connect say.
type connectConfig struct {
	connect.Config
	daemonFlags
	forwardFlags
	peer string
}

func (c *connectConfig) options() []cli.Option {
	const peer = "The other end:"
	options := []cli.Option{
		{Name: "peer", Group: peer, Value: cli.Func("ACCOUNT@MACHINE:PORT", c.setPeer),
			Help: "Whom to connect to, in the place of the argument: for the config file."},
		{Name: "dial", Group: peer, Value: cli.Func("HOST:PORT", c.setDial),
			Help: "Connect to this address, where it is not MACHINE:PORT. Who is there is proved all the same."},
		{Name: "service", Group: peer, Value: cli.Func("NAME", c.setService),
			Help: "Which of ACCOUNT's services is meant, as its 'listen' has it: 1 to 52 of a-z, 0-9, '.', '_', '-'. Without it PORT."},
		{Name: "grpc", Group: peer, Value: cli.Switch(&c.GRPC),
			Help: "The program here speaks gRPC, and the other end is any gRPC server with ALTS, or 'listen --http'."},
		{Name: "http", Group: peer, Value: cli.Switch(&c.HTTP),
			Help: "The programs here speak HTTP, and 'listen --http' is the other end: requests at a TCP port are passed on only if their " +
				"Host is its address or localhost, which that of a browser that was led here by another name is not."},
		{Name: "listen", Group: connectLocal, Repeat: true, Value: cli.Func("unix:PATH|HOST:PORT|systemd:NAME", c.addPlace),
			Help: "Serve programs at this socket: a path in a directory of this account's own, or with COMMAND a name in its private " +
				"directory; an address of loopback; or what the service manager passes under NAME (FileDescriptorName=)."},
		{Name: "for", Group: connectLocal, Value: cli.List(&[]string{}, "ACCOUNTS", c.addAccount),
			Help: "Accounts of this machine, separated by commas, that are served as well, and are this account to the other end. " +
				"UNIX sockets then have mode 0666: the directory says who comes near."},
		{Name: "setenv", Group: connectLocal, Repeat: true, Value: cli.Func("NAME=VALUE", c.addSetting),
			Help: "Set a variable for COMMAND. In VALUE %d is the private directory, %p the port of the first TCP listener, %% a " +
				"percent sign."},
		c.ends(connectLocal, "a program"),
	}
	options = append(options, c.daemonFlags.options()...)
	return append(options, c.limits(&c.Limits, &c.Metrics, "", ", and warn beside a COMMAND")...)
}

func (c *connectConfig) setPeer(v string) (err error) {
	c.peer = v
	c.Target, err = connect.ParseTarget(v)
	return err
}

func (c *connectConfig) setDial(v string) error {
	c.Dial = v
	_, _, err := cli.HostPort(v)
	return err
}

func (c *connectConfig) setService(v string) error {
	c.Service = v
	return connect.CheckService(v)
}

func (c *connectConfig) addPlace(v string) error {
	p, err := connect.ParsePlace(v)
	c.Listen = append(c.Listen, p)
	return err
}

func (c *connectConfig) addAccount(v string) error {
	uid, err := connect.LookupAccount(v)
	c.For = append(c.For, uid)
	return err
}

func (c *connectConfig) addSetting(v string) error {
	s, err := connect.ParseSetting(v)
	c.Setenv = append(c.Setenv, s)
	return err
}

// run runs what flags and arguments say.
func (c *connectConfig) run(args []string) error {
	var command []string
	for i, arg := range args {
		if arg == "--" {
			args, command = args[:i], args[i+1:]
			if len(command) == 0 {
				return cli.Usagef("no command behind the --: shared-altsd connect ACCOUNT@MACHINE:PORT -- COMMAND [ARGUMENT]...")
			}
			break
		}
	}
	switch {
	case len(args) > 1:
		return cli.Usagef("unknown argument %q: one peer alone is named; a command stands behind --", args[1])
	case len(args) == 1: // wins over one of the config file
		if err := c.setPeer(args[0]); err != nil {
			return cli.Usagef("%v", err)
		}
	case c.peer == "":
		return cli.Usagef("no peer given: shared-altsd connect ACCOUNT@MACHINE:PORT; the other end is always named")
	}
	c.Socket, c.DaemonUID, c.Hold = localsock.Path(c.socket), uint32(c.uid), c.hold()
	if err := c.Check(command); err != nil {
		return cli.Usagef("%v", err)
	}
	if c.LogLevel = c.level(slog.LevelInfo); command != nil {
		c.LogLevel = c.level(slog.LevelWarn)
	}
	switch {
	case command != nil:
		status, err := c.Run(command)
		if err != nil {
			return connectFailed(err)
		}
		return cli.ExitStatus(status)
	case len(c.Listen) > 0:
		return c.Serve()
	}
	return c.Join()
}

// connectFailed writes one line to standard error, which connect shares with COMMAND, and returns the exit status.
func connectFailed(err error) error {
	status := cli.ExitStatus(standin.StatusFailed)
	if e, ok := errors.AsType[*standin.Error](err); ok {
		status = cli.ExitStatus(e.Status())
	}
	fmt.Fprintf(os.Stderr, "shared-altsd connect: %s\n", cli.OneLine(err.Error()))
	return status
}
