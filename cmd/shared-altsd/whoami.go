package main

import (
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

var whoamiCommand = &cli.Command{
	Name:    "whoami",
	Summary: "say who a peer would see: account@machine and its attributes",
	About: `
Does a handshake of this account with itself by way of the daemon, and prints the identity that came out: what any peer
that trusts this machine's CA would see.

  shared-altsd whoami
  sudo -u alice shared-altsd whoami --json`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, asJSON := new(daemonFlags), false
		return append(d.options(), jsonOption(&asJSON)), func([]string) error {
			return d.ping().WhoAmI(os.Stdout, asJSON)
		}
	},
}
