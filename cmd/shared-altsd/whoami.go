package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

var whoamiCommand = &cli.Command{
	Name:    "whoami",
	Summary: "say who a peer would see: account@machine and its attributes",
	About: `
Does a handshake of this account with itself by way of the daemon, and prints the identity that came out: what any peer
that trusts this machine's CA would see.

  shared-altsd whoami
  sudo -u alice shared-altsd whoami --json`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, asJSON := new(daemonFlags), false
		return append(d.options(), jsonOption(&asJSON)), func([]string) error { return whoami(d, asJSON, os.Stdout) }
	},
}

// selfTimeout bounds the handshake with oneself; the daemon may have to look up the account.
const selfTimeout = 20 * time.Second

// pingProtocol is the application protocol of whoami, ping and pong.
const pingProtocol = "shared-altsd-ping"

func (d *daemonFlags) client(accounts, machines []string, protocols ...string) altscreds.ClientOptions {
	return altscreds.ClientOptions{Socket: d.path(), DaemonUID: uint32(d.uid), TargetAccounts: accounts,
		TargetMachines:       machines,
		ApplicationProtocols: protocols}
}

func (d *daemonFlags) server(protocols ...string) altscreds.ServerOptions {
	return altscreds.ServerOptions{Socket: d.path(), DaemonUID: uint32(d.uid), ApplicationProtocols: protocols}
}

func whoami(d *daemonFlags, asJSON bool, w io.Writer) error {
	p, err := selfHandshake(d)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.WriteJSON(w, map[string]any{"identity": p.Account, "account": p.User, "machine": p.Machine,
			"attributes": p.Attributes})
	}
	fmt.Fprintln(w, p.Account)
	for _, name := range slices.Sorted(maps.Keys(p.Attributes)) {
		if name != "user" && name != "machine" {
			fmt.Fprintf(w, "  %s = %s\n", name, p.Attributes[name])
		}
	}
	return nil
}

// selfHandshake gives the identity of this account as the other end of a handshake sees it.
func selfHandshake(d *daemonFlags) (*altscreds.Peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), selfTimeout)
	defer cancel()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	options := d.client(nil, nil, pingProtocol)
	options.ServerName = "localhost"
	client := altscreds.Client(here, options)
	failed := make(chan error, 1)
	go func() {
		err := client.HandshakeContext(ctx)
		if err != nil {
			here.Close() // the other end need not wait
		}
		failed <- err
	}()
	server := altscreds.Server(there, d.server(pingProtocol))
	err := server.HandshakeContext(ctx)
	if err != nil {
		there.Close()
	}
	// What the client learned says more: the server may have seen no more than its hanging up.
	if clientErr := <-failed; clientErr != nil {
		return nil, clientErr
	}
	if err != nil {
		return nil, err
	}
	return server.Peer(), nil
}
