// Shared-altsd is a handshaker service for gRPC's ALTS on ordinary machines: one daemon a machine, one certificate a
// machine, and every local account an identity of its own, account@machine.
//
// This package is thin: flags, words and calls. The daemon is put together in internal/daemon, and its work is done in
// service, noiseproto and certbind.
package main

import (
	"log/slog"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

func main() {
	os.Exit(newProgram().Run(os.Args[1:], os.Stdout, systemd.Writer(os.Stderr, slog.LevelError)))
}

// newProgram returns the command line, its commands in the order of the help.
func newProgram() *cli.Program {
	p := &cli.Program{
		Name:        "shared-altsd",
		Version:     version.Number(),
		VersionLine: version.Line(),
		About: `shared-altsd gives every account of this machine an identity, account@machine, that any gRPC program
with ALTS credentials proves to its peer, as it learns its peer's. The machine needs one X.509 certificate;
accounts need no keys.`,
		Examples: `To see it work, with no set-up at all:

  shared-altsd demo

On two machines, with a throwaway CA made on one of them:

  shared-altsd dev-ca ca a.example.com b.example.com   # copy ca/ca.pem and ca/HOST.pem to each HOST
  shared-altsd serve --credentials HOST.pem --ca ca.pem`,
	}
	p.Commands = []*cli.Command{
		serveCommand, checkCommand, tlsaCommand, statusCommand, reloadCommand, fetchCRLCommand, denyCommand, policyCommand, whoamiCommand, pingCommand,
		pongCommand, demoCommand, devCACommand,
		execCommand, connectCommand, listenCommand, resolveCommand,
		manCommand(p), completionCommand(p),
	}
	return p
}
