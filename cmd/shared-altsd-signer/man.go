package main

import (
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

func manCommand(p *cli.Program) *cli.Command {
	return &cli.Command{
		Name:    "man",
		Summary: "print the manual page",
		About: `
Prints the manual page of the program, made from the same table as --help.

  shared-altsd-signer man | man -l -`,
		Setup: func() ([]cli.Option, func([]string) error) {
			return nil, func([]string) error { return p.WriteManual(os.Stdout, manual) }
		},
	}
}

var manual = cli.Page{
	Name:  name,
	Title: "the machine's key of shared-altsd in a TPM or a PKCS #11 token",
	Description: `
Signs the statements by which the daemon shared-altsd speaks for the accounts of this machine, with a key that never
leaves its device. It is told a statement's fields and builds the signed bytes itself: for a certificate of its key and a
name of that certificate, from now on and for a day at most. Only root and the accounts of --client are served.`,
	Environment: []cli.Entry{
		{Term: "CREDENTIALS_DIRECTORY", Text: "Where systemd puts credentials: 'pin' is the one with the PIN or passphrase " +
			"(LoadCredential=pin:FILE of the unit)."},
	},
	Files: []cli.Entry{
		{Term: "/etc/shared-altsd/signer.conf", Text: "The config file of the installed service: the flags of serve, one a line."},
		{Term: "/run/shared-altsd-signer/socket", Text: "The socket by which the daemon asks."},
	},
	SeeAlso: []cli.Reference{{Name: "shared-altsd", Section: "1"}, {Name: "tpm2_create", Section: "1"},
		{Name: "pkcs11-tool", Section: "1"}},
}
