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

With --textfile it writes the metrics into a file for the textfile collector of Prometheus' node_exporter, where no port
is wanted for them, and says nothing else. If there is no daemon the file says so, and the exit status is 1.

  shared-altsd status
  sudo shared-altsd status --json
  shared-altsd status --textfile /var/lib/node_exporter/shared-altsd.prom`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, asJSON, textfile := new(daemonFlags), false, ""
		options := append(d.options(), jsonOption(&asJSON), cli.Option{Name: "textfile", Value: cli.File(&textfile),
			Help: "Write metrics there, for the textfile collector of Prometheus' node_exporter, and print nothing."})
		return options, func([]string) error {
			switch {
			case textfile != "" && asJSON:
				return cli.Usagef("--textfile and --json are two things to do: give one")
			case textfile != "":
				return d.admin().WriteTextfile(textfile)
			}
			return d.admin().PrintStatus(os.Stdout, asJSON)
		}
	},
}
