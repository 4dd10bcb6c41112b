// Shared-altsd-signer has the machine's key for the daemon shared-altsd, where that is in a TPM or in a PKCS #11 token: it signs
// the statements of this machine, and nothing else. It is a program of its own, so that the daemon has neither a device nor a
// vendor's library in its reach.
package main

import (
	"log/slog"
	"os"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

const name = "shared-altsd-signer"

func main() {
	os.Exit(newProgram().Run(os.Args[1:], os.Stdout, systemd.Writer(os.Stderr, slog.LevelError)))
}

func newProgram() *cli.Program {
	p := &cli.Program{
		Name:        name,
		Version:     version.Number(),
		VersionLine: name + strings.TrimPrefix(version.Line(), "shared-altsd"),
		About: `shared-altsd-signer keeps the machine's private key in a TPM or a PKCS #11 token, and signs with it the statements of
this machine's shared-altsd, which then has no key: shared-altsd serve --key signer:/run/shared-altsd-signer/socket.`,
		Examples: `A key in the TPM, wrapped for it in a file, a request for its certificate, and whether the two belong together:

  openssl genpkey -provider tpm2 -algorithm EC -pkeyopt group:P-256 -out machine-key.pem
  shared-altsd-signer request --key tpm:machine-key.pem alpha.example.com >machine.csr
  shared-altsd-signer check --key tpm:machine-key.pem --certificates machine.pem

docs/hardware.md shows how keys, requests and certificates are made.`,
	}
	p.Commands = []*cli.Command{serveCommand, checkCommand, requestCommand, manCommand(p)}
	return p
}
