package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/ping"
)

var pongCommand = &cli.Command{
	Name:    "pong",
	Args:    cli.Args{Text: "ADDR"},
	Summary: "answer the pings of other machines and say who they are",
	About: `
Listens on ADDR, such as :7400, does a handshake with each caller by way of this machine's daemon, sends its message
back, and prints a line for each: who it was, or why it was refused. Ends with SIGINT, or after --count callers.

  shared-altsd pong :7400`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, p := new(daemonFlags), new(ping.Ponger)
		options := append(d.options(),
			cli.Option{Name: "count", Default: "0", Group: "Callers:", Value: cli.Int(&p.Count, "N", 0, 1<<31-1),
				Help: "End after N callers, with exit status 1 if one of them failed; 0 for no end."},
			cli.Option{Name: "timeout", Default: "10s", Group: "Callers:",
				Value: cli.Duration(&p.Timeout, 100*time.Millisecond, 5*time.Minute),
				Help:  "How long one caller may take."},
			jsonOption(&p.JSON))
		return options, func(args []string) error {
			if len(args) != 1 {
				return cli.Usagef("give one ADDR: shared-altsd pong ADDR, such as :7400")
			}
			if _, _, err := cli.HostPort(args[0]); err != nil {
				return cli.Usagef("%v; HOST may be left out, as in :7400", err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			p.Daemon = d.ping()
			return p.Run(ctx, os.Stdout, args[0])
		}
	},
}
