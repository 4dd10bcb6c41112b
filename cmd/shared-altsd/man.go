package main

import (
	"os"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// The pages that man prints.
const (
	page       = "shared-altsd.1"
	configPage = "shared-altsd.conf.5"
)

func manCommand(p *cli.Program) *cli.Command {
	return &cli.Command{
		Name:    "man",
		Args:    cli.Args{Text: "[" + page + "|" + configPage + "]", Choices: []string{page, configPage}},
		Summary: "print a manual page",
		About: `
Prints the manual page of the program or of its config file, made from the same table as --help.

  shared-altsd man | man -l -`,
		Setup: func() ([]cli.Option, func([]string) error) {
			return nil, func(args []string) error {
				switch strings.Join(args, " ") {
				case "", page:
					return p.WriteManual(os.Stdout, manual)
				case configPage:
					return p.WriteConfigManual(os.Stdout, configManual, new(serveConfig).options())
				}
				return cli.Usagef("unknown manual page %q: there are %s and %s", strings.Join(args, " "), page, configPage)
			}
		},
	}
}

var manual = cli.Page{
	Name:  "shared-altsd",
	Title: "a handshaker service for gRPC's ALTS on ordinary machines",
	Description: `
Gives every account of this machine an identity, account@machine, that any gRPC program with ALTS credentials proves
to its peer and learns of its peer. The machine needs one X.509 certificate; accounts need no keys. Applications reach
the daemon over a UNIX socket, and the kernel tells it which account asks.`,
	Environment: []cli.Entry{
		{Term: "SHARED_ALTS_SOCKET", Text: "The daemon's socket, for the commands that ask it and for applications."},
	},
	Files: []cli.Entry{
		{Term: "/etc/shared-altsd/shared-altsd.conf", Text: "The config file of the installed service."},
		{Term: "/etc/shared-altsd/conf.d/*.conf", Text: "Further config files, which are read after it."},
		{Term: "/etc/shared-altsd/machine.pem", Text: "The machine's certificate chain and private key, mode 0600, root's."},
		{Term: "/etc/shared-altsd/listen/NAME.conf", Text: "The flags of listen for shared-altsd-listen@NAME.service, one a line."},
		{Term: localsock.DefaultPath, Text: "The socket that applications connect to."},
		{Term: "/usr/share/doc/shared-altsd", Text: "The documents, in docs/, if a package installed the " +
			"program: install.md, certificates.md and operate.md are for administrators, clients.md for those who write programs."},
	},
	SeeAlso: []cli.Reference{{Name: "shared-altsd.conf", Section: "5"}, {Name: "systemctl", Section: "1"},
		{Name: "getent", Section: "1"}},
}

var configManual = cli.Page{
	Name:  "shared-altsd.conf",
	Title: "configuration of the shared-altsd daemon",
	Description: `
Lines of the form 'name = value', with the names of the flags of 'shared-altsd serve' without their hyphens. A
name that may be repeated stands on several lines; a switch is true or false. What follows a '#' at the start of a line
or after white space is a comment. A flag on the command line wins over the file. The installed service reads
/etc/shared-altsd/shared-altsd.conf.

Files conf.d/*.conf in the directory of the file, /etc/shared-altsd/conf.d for the installed service, are read after it in byte order
of their names, those that begin with a dot left out. What a later file says of a name stands in the place of what was said before; a
name that may be repeated adds, unless the file gives it first without a value, 'ca =', and then anew. A mistake in any of them refuses all.

A reload brings ca, crl, crl-stale-ok, policy and require-eku into force; the others are read at the start.

  ca = /etc/shared-altsd/ca.pem
  ca = partner.example.com=/etc/shared-altsd/partner-ca.pem
  secure-naming = strict`,
	Files: []cli.Entry{
		{Term: "/etc/shared-altsd/shared-altsd.conf", Text: "What the package brings."},
		{Term: "/etc/shared-altsd/conf.d/*.conf", Text: "What is set on this machine, or on all of a fleet."},
	},
	SeeAlso: []cli.Reference{{Name: "shared-altsd", Section: "1"}},
}
