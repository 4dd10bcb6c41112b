package main

import (
	"fmt"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// Where the packages have what their unit gives to serve (deploy/systemd/shared-altsd.service).
const (
	packageConfig      = "/etc/shared-altsd/shared-altsd.conf"
	packageCredentials = "/etc/shared-altsd/machine.pem"
	packageState       = "/var/lib/shared-altsd"
)

// packageDefaults are the packages' files, where they are there and the command line leaves something to them.
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
