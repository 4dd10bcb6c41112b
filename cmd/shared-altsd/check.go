package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
)

var checkCommand = &cli.Command{
	Name:    "check",
	Summary: "say what a peer would say of this machine's certificate",
	About: `
Loads certificate, key, CAs and revocation lists as serve does and says what a daemon with the same CAs would say of
this machine: chain, name, key, usage, expiry, revocation. Each fault comes with its cure. Exit status 1 if there is a
fault.

  shared-altsd check --credentials machine.pem --ca ca.pem
  shared-altsd check --config /etc/shared-altsd/shared-altsd.conf
  sudo shared-altsd check
  sudo shared-altsd check --credentials renewed.pem

With --policy or --denied it says as well what may not be as it was meant in rules and denials: lines that are never
reached, local groups that do not exist. With these alone it reads nothing else, as in CI:

  shared-altsd check --policy ./policy.d

What the command line leaves out, it takes from the packages' files if they are there, as in the last two:
` + packageConfig + ` and ` + packageCredentials + `.`,
	Config: checkConfig(),
	Setup: func() ([]cli.Option, func([]string) error) {
		f := new(daemon.Files)
		var denied string
		const group = "Policy:"
		options := append(fileOptions(f),
			cli.Option{Name: "policy", Group: group, Value: cli.String(&f.Policy, "DIR").CompleteFiles(),
				Help: "Directory of rules, as that of serve."},
			cli.Option{Name: "denied", Group: group, Value: cli.String(&denied, "DIR").CompleteFiles(),
				Help: "Directory of what is denied, as that of serve."})
		return options, func([]string) error {
			if f.Policy != "" || denied != "" {
				err := daemon.CheckPolicy(os.Stdout, f.Policy, denied)
				if err != nil || f.Credentials == "" && len(f.CAs) == 0 {
					return err
				}
			}
			if err := daemon.NoDumps(); err != nil {
				return err
			}
			accepted, err := daemon.Check(os.Stdout, f)
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
				err = fmt.Errorf("%w; or run this as root", err)
			}
			if err == nil && !accepted {
				err = cli.ExitStatus(1)
			}
			return err
		}
	},
}
