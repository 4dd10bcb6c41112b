package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/demo"
)

var demoCommand = &cli.Command{
	Name:    "demo",
	Summary: "show two machines, their daemons and a call between them, with no set-up at all",
	About: `
Makes a throwaway CA and the machines alpha.demo and beta.demo, runs a daemon for each, and a gRPC greeter between
them over TCP. Shows the handshake's size and time, who each side says the other is, and two refusals: a client that
asked for another account, and a third machine whose CA is unknown. Needs no privileges. Exit status 0 only if all of
it came out so.`,
	Setup: func() ([]cli.Option, func([]string) error) {
		return nil, func([]string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			return demo.Run(ctx, os.Stdout)
		}
	},
}
