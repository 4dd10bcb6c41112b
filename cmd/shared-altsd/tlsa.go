package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
)

var tlsaCommand = &cli.Command{
	Name:    "tlsa",
	Summary: "print the DNS records that vouch for this machine",
	About: `
Prints the TLSA record by which peers that trust DNS (serve --ca NAMES=dane) know this machine, to be put into its signed
zone: of the key, so that it stays when the certificate is renewed for the same key. Needs no private key; docs/dns.md
has the whole.

  shared-altsd tlsa --credentials machine.pem
  shared-altsd tlsa --credentials machine.pem --format nsupdate | nsupdate -k update.key

Before the key changes, with --next: both records, when to do what, and when the old one may go.

  shared-altsd tlsa --credentials machine.pem --next new.pem

What the command line leaves out, it takes from the packages' files if they are there: ` + packageConfig + `
and ` + packageCredentials + `.`,
	Config: tlsaConfig(),
	Setup: func() ([]cli.Option, func([]string) error) {
		p := new(daemon.Publication)
		format := ""
		setMachineName := func(v string) error {
			p.MachineName = ascii.Lower(v)
			return certbind.ValidMachineName(p.MachineName)
		}
		setKey := func(v string) error {
			p.Key = v
			return daemon.CheckKey(v)
		}
		const group, record = "Certificates:", "The record:"
		options := []cli.Option{
			{Name: "credentials", Group: group, Value: cli.File(&p.Credentials),
				Help: "PEM file with this machine's certificate; the private key may be in it, and says which one is meant."},
			{Name: "key", Group: group, Value: cli.Func("FILE|signer:PATH", setKey).CompleteFiles(),
				Help: "PEM file with the private key, if --credentials has certificates of several. A signer is not asked."},
			{Name: "next", Group: group, Value: cli.File(&p.Next),
				Help: "PEM file with the certificate that comes next, or its key alone."},
			{Name: "machine-name", Group: group, Value: cli.Func("NAME", setMachineName),
				Help: "Name of this machine, where its certificate has several."},
			{Name: "selector", Group: record, Default: "1", Value: cli.Int(&p.Selector, "N", 0, 1),
				Help: "1: the record is of the public key. 0: of the whole certificate, and changes with each."},
			{Name: "matching", Group: record, Default: "1", Value: cli.Int(&p.Matching, "N", 0, 2),
				Help: "1: by SHA-256. 2: by SHA-512. 0: in full."},
			{Name: "ttl", Group: record, Default: "1h", Value: cli.Duration(&p.TTL, time.Second, 24*time.Hour),
				Help: "How long resolvers may keep it."},
			{Name: "format", Group: record, Default: "zone", Value: cli.Choice(&format, "FORMAT", "zone", "nsupdate"),
				Help: "zone: lines of a zone file. nsupdate: a request of RFC 2136, for nsupdate and knsupdate."},
			{Name: "replace", Group: record, Value: cli.Switch(&p.Replace),
				Help: "With --format nsupdate: in the same request take out every other TLSA record of this machine."},
		}
		return options, func([]string) error {
			p.NSUpdate = format == "nsupdate"
			err := p.Write(os.Stdout)
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
				err = fmt.Errorf("%w; or run this as root, or give the certificate alone", err)
			}
			return err
		}
	},
}

// tlsaConfig returns the config file of tlsa, which knows where the packages have theirs.
func tlsaConfig() *cli.ConfigFile {
	c := configFile("Configuration:")
	c.Default = func(given func(name string) bool) *cli.Defaults {
		if given("credentials") {
			return nil
		}
		d := packageDefaults(given)
		if d != nil {
			delete(d.Values, "state-dir")
			d.Note = "; " + d.Note // a comment, as all that is no record
		}
		return d
	}
	return c
}
