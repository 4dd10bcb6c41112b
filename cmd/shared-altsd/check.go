package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

var checkCommand = &cli.Command{
	Name:    "check",
	Summary: "say what a peer would say of this machine's certificate",
	About: `
Loads certificate, key, CAs and revocation lists as serve does and says what a daemon with the same CAs would say of
this machine: chain, name, key, usage, expiry, revocation. Each fault comes with its cure. Exit status 1 if there is a
fault.

  shared-altsd check --credentials machine.pem --ca ca.pem
  shared-altsd check --config /etc/shared-altsd/config`,
	Config: configFile("Configuration:"),
	Setup: func() ([]cli.Option, func([]string) error) {
		f := new(certFiles)
		return f.options(), func([]string) error { return check(f, os.Stdout) }
	},
}

func check(f *certFiles, w io.Writer) error {
	l, err := f.load(f.machineName)
	if err != nil {
		return err
	}
	now := time.Now()
	leaf := l.credential.Leaf
	fmt.Fprintf(w, "machine   %s\n", l.name)
	fmt.Fprintf(w, "names     %s\n", strings.Join(leaf.DNSNames, " "))
	fmt.Fprintf(w, "key       %v\n", leaf.PublicKeyAlgorithm)
	fmt.Fprintf(w, "serial    %x\n", leaf.SerialNumber)
	fmt.Fprintf(w, "issuer    %q\n", leaf.Issuer.String())
	fmt.Fprintf(w, "valid     %s to %s%s\n", leaf.NotBefore.UTC().Format(time.RFC3339),
		leaf.NotAfter.UTC().Format(time.RFC3339),
		expiry.Remaining(leaf.NotAfter.Sub(now)))
	for _, warning := range l.warnings {
		fmt.Fprintf(w, "warning   %s\n", warning)
	}
	refusals := 0
	faults, soon := ownFaults(l.credential, l.name, l.trust, now)
	for _, fault := range append(faults, soon...) {
		kind := "fault"
		if fault.Warning {
			kind = "warning"
		} else {
			refusals++
		}
		fmt.Fprintf(w, "%-9s %s\n          cure: %s\n", kind, cli.OneLine(fault.What), cli.OneLine(fault.Cure))
	}
	if refusals > 0 {
		fmt.Fprintf(w, "result    peers would refuse this machine\n")
		return cli.ExitStatus(1)
	}
	fmt.Fprintf(w, "result    a peer with the same CAs would accept this machine as %s\n", l.name)
	return nil
}
