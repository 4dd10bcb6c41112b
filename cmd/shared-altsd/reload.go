package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/nodumps"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

var reloadCommand = &cli.Command{
	Name:    "reload",
	Summary: "have the daemon read its files again, and say how that went",
	About: `
Asks the daemon to bring certificate, key, CAs and revocation lists into force together, and waits for the outcome. Exit
status 1, with the reason, if it refused them and goes on with what it had. Only for root and the daemon's own account.

With --credentials, this command reads the file and hands its content to the daemon, which then need not be able to read
it. That is how the systemd unit renews a key that it gave the daemon by LoadCredential=, whose copy never changes. If it
is refused, or cannot be read, metrics and status say so until another one comes into force.

A revocation list that is older than the one in force, or gone, refuses the reload. If that is meant, say so.

  shared-altsd reload
  shared-altsd reload --accept-older-list /etc/shared-altsd/ca.crl
  shared-altsd reload --credentials /etc/shared-altsd/machine.pem`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d := new(daemonFlags)
		var credentials, key string
		var r adminclient.Reload
		const group = "Certificates:"
		options := append(d.options(),
			cli.Option{Name: "credentials", Group: group, Value: cli.File(&credentials),
				Help: "PEM file with this machine's certificate chain and private key, to be handed to the daemon."},
			cli.Option{Name: "key", Group: group, Value: cli.File(&key),
				Help: "PEM file with the private key, if it is not in --credentials."},
			cli.Option{Name: "accept-older-list", Group: group, Repeat: true, Value: cli.Files(&r.AcceptOlder),
				Help: "File of a revocation list, one of --crl, that may be older than the one that was in force: the CA means " +
					"it so."},
			cli.Option{Name: "forget-list", Group: group, Repeat: true, Value: cli.Files(&r.Forget),
				Help: "CA whose revocation list may be gone: its distinguished name as the refusal has it, or the list's file."})
		return options, func([]string) error {
			if key != "" && credentials == "" {
				return cli.Usagef("--key without --credentials: give the certificate as well")
			}
			if err := nodumps.Set(); err != nil {
				return err
			}
			handed, err := readCredentials(credentials, key)
			defer clear(handed)
			if err != nil {
				// The daemon says so too, for its metrics and status; if it cannot be told, the first error is the one.
				d.admin().Unread(err)
				return err
			}
			r.Credentials = handed
			return d.admin().Reload(os.Stdout, r)
		}
	},
}

// readCredentials reads what is to be handed to the daemon, nothing for no file. With an error it returns what it has
// read, for the caller to wipe.
func readCredentials(credentials, key string) (handed []byte, err error) {
	for _, file := range []struct{ flag, path string }{{"--credentials", credentials}, {"--key", key}} {
		if file.path == "" {
			continue
		}
		// A key in a file that others may read or write is refused here as it is by serve.
		data, warning, err := daemon.ReadKeyFile(file.path)
		if err != nil {
			return handed, fmt.Errorf("%s: %w", file.flag, err)
		}
		if warning != "" {
			fmt.Fprintln(systemd.Writer(os.Stderr, slog.LevelWarn), "warning: "+warning)
		}
		handed = append(append(handed, data...), '\n')
		clear(data)
	}
	if len(handed) > daemon.MaxHandedCredentials {
		return handed, fmt.Errorf("--credentials: more than %d bytes: this is not the file that was meant",
			daemon.MaxHandedCredentials)
	}
	return handed, nil
}
