package main

import (
	"os"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/ping"
)

var pingCommand = &cli.Command{
	Name:    "ping",
	Args:    cli.Args{Text: "HOST:PORT"},
	Summary: "do a full handshake with another machine and say how it went",
	About: `
Connects to HOST:PORT, where 'shared-altsd pong' or any gRPC server with ALTS listens, does a handshake by way of this
machine's daemon, and prints who the peer is and what each step took. With pong it sends a message over the secured
connection and back as well, and shows who this account is over there. If it fails it says at which step, and what that
means.

  shared-altsd pong :7400                            # on one machine
  shared-altsd ping b.example.com:7400               # on the other
  shared-altsd ping --target-account alice@b.example.com b.example.com:7400`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, p := new(daemonFlags), new(ping.Pinger)
		const group = "The peer:"
		options := append(d.options(),
			cli.Option{Name: "target-account", Group: group, Repeat: true, Value: cli.Strings(&p.Accounts, "USER@MACHINE"),
				Help: "Accept only this account as the peer. Without it the peer's certificate has to be valid for HOST."},
			cli.Option{Name: "target-machine", Group: group, Repeat: true, Value: cli.Strings(&p.Machines, "MACHINE"),
				Help: "Accept any account of this machine as the peer."},
			cli.Option{Name: "timeout", Default: "10s", Group: group,
				Value: cli.Duration(&p.Timeout, 100*time.Millisecond, 5*time.Minute),
				Help:  "How long it may take in all."},
			jsonOption(&p.JSON))
		return options, func(args []string) error {
			if len(args) != 1 {
				return cli.Usagef("give one HOST:PORT: shared-altsd ping HOST:PORT")
			}
			if _, _, err := cli.HostPort(args[0]); err != nil {
				return cli.Usagef("%v; PORT is the one on which 'shared-altsd pong' or the server listens", err)
			}
			p.Daemon = d.ping()
			return p.Run(os.Stdout, args[0])
		}
	},
}
