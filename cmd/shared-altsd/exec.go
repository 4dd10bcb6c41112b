package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/execns"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/standin"
)

var execCommand = &cli.Command{
	Name:     "exec",
	Args:     cli.Args{Text: "-- COMMAND [ARGUMENT]..."},
	Summary:  "run a program whose gRPC looks for ALTS where Google's cloud has it (Python, Java, Go)",
	Verbatim: true,
	About: `
Runs COMMAND so that an unchanged gRPC library finds this machine's daemon: in a mount namespace of its own, in which
/sys/class/dmi/id/product_name reads "Google Compute Engine", /etc/hosts has an address for metadata.google.internal, and
/etc/nsswitch.conf has files first. What connects there exec relays to the daemon's UNIX socket, as the account that
runs it and for sockets of that account alone. SHARED_ALTS_SOCKET names a socket of exec's for altscreds, status,
whoami and ping. No privileges are needed where the system allows user namespaces.

  shared-altsd exec -- python3 greeter_server.py

Arguments, environment, directory, open files, terminal, signals and exit status pass through. exec lives as long as
COMMAND does, and what COMMAND starts no longer: run it in the foreground. Proxies are kept from the handshaker, in the
environment and in the options of a java that is COMMAND. Exit status: COMMAND's, or 125 if exec failed, 126 if COMMAND
cannot be run, 127 if it is not found.`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d := new(daemonFlags)
		c := execns.Config{StageArgs: []string{"exec", "--"}, Report: func(err error) { execFailed(err) }}
		return append(d.options(), cli.Option{Name: "loopback", Group: "The place:", Value: cli.Switch(&c.Loopback),
				Help: "Do not redirect connect(2), but relay from port 8080 of a loopback address: for a COMMAND that connects " +
					"by io_uring. Where the kernel cannot redirect, exec does this by itself."},
				cli.Option{Name: "prepared", Group: "The place:", Value: cli.Switch(&c.Prepared),
					Help: "Make no namespace: the product name, the lines in /etc/hosts and files first in nsswitch.conf are there " +
						"already, by options of systemd or of a container. exec then relays from the address that /etc/hosts gives."}),
			func(args []string) error {
				if os.Args[0] == execns.StageName {
					return execFailed(c.Stage(args))
				}
				if len(args) == 0 {
					return cli.Usagef("no command given: shared-altsd exec -- COMMAND [ARGUMENT]...")
				}
				c.Socket, c.DaemonUID = localsock.Path(d.socket), uint32(d.uid)
				status, err := c.Run(args)
				if err != nil {
					return execFailed(err)
				}
				return cli.ExitStatus(status)
			}
	},
}

// execFailed writes one line of exec's own to standard error, which it shares with COMMAND: what failed, and the cure.
// It returns the exit status that stands for it.
func execFailed(err error) error {
	status := cli.ExitStatus(standin.StatusFailed)
	if e, ok := errors.AsType[*execns.Error](err); ok {
		switch e.Kind {
		case execns.Untrusted:
			err = fmt.Errorf("%w (if that is the daemon, give its uid by --daemon-uid)", err)
		case execns.NoNamespace:
			err = fmt.Errorf("%w (the system has to allow user namespaces: see the sysctls user.max_user_namespaces, "+
				"kernel.unprivileged_userns_clone on Debian, kernel.apparmor_restrict_unprivileged_userns on Ubuntu, where "+
				"the package has a profile, docs/mac.md; in a chroot the kernel never does; else prepare the mounts by systemd or the container and use --prepared, as docs/clients/exec.md shows)", err)
		case execns.NotPrepared:
			err = fmt.Errorf("--prepared, but %w", err)
		}
	}
	if e, ok := errors.AsType[*standin.Error](err); ok {
		status = cli.ExitStatus(e.Status())
	}
	fmt.Fprintf(os.Stderr, "shared-altsd exec: %s\n", cli.OneLine(err.Error()))
	return status
}
