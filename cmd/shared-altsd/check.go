package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/nodumps"
)

var checkCommand = &cli.Command{
	Name:    "check",
	Summary: "say what a peer would say of this machine's certificate",
	About: `
Loads certificate, key, CAs and revocation lists as serve does and says what a daemon with the same CAs would say of
this machine: chain, name, key, usage, expiry, revocation. Each fault comes with its cure. Exit status 1 if there is a
fault. It looks at the accounts of this machine as well, as far as they are listed or have processes, and warns of those whose
names keep them out.

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
		options := append(append(fileOptions(f), accountOptions(f, "Accounts:")...),
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
			if err := nodumps.Set(); err != nil {
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

// Where the packages have what their unit gives to serve (deploy/systemd/shared-altsd.service).
const (
	packageConfig      = "/etc/shared-altsd/shared-altsd.conf"
	packageCredentials = "/etc/shared-altsd/machine.pem"
	packageState       = "/var/lib/shared-altsd"
)

// checkConfig returns the config file of check, which knows where the packages have theirs.
func checkConfig() *cli.ConfigFile {
	c := configFile("Configuration:")
	c.Default = func(given func(name string) bool) *cli.Defaults {
		if (given("policy") || given("denied")) && !given("credentials") && !given("ca") {
			return nil // rules alone, as in CI
		}
		return packageDefaults(given)
	}
	return c
}

// packageDefaults returns the packages' files, where they are there and the command line leaves something to them.
func packageDefaults(given func(name string) bool) *cli.Defaults {
	if given("credentials") && given("ca") {
		return nil
	}
	if _, err := os.Stat(packageConfig); err != nil {
		return nil
	}
	d := &cli.Defaults{Path: packageConfig, Values: map[string]string{"state-dir": packageState}}
	d.Note = fmt.Sprintf("config    %s, since no --config is given", packageConfig)
	if !given("credentials") {
		d.Values["credentials"] = packageCredentials
	}
	return d
}
