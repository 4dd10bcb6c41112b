package main

import (
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

var statusCommand = &cli.Command{
	Name:    "status",
	Summary: "say what the daemon of this machine is doing",
	About: `
Asks the daemon: is it up, as whom does it speak, what does it know of its certificate, CAs and revocation lists, how
many handshakes came out how. Root and the daemon's own account are told the last failures as well. Exit status 1 if
there is no daemon, or if peers would refuse this machine.

  shared-altsd status
  sudo shared-altsd status --json`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, asJSON := new(daemonFlags), false
		return append(d.options(), jsonOption(&asJSON)), func([]string) error {
			return d.admin().PrintStatus(os.Stdout, asJSON)
		}
	},
}
