package ping

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// selfTimeout bounds the handshake with oneself; the daemon may have to look up the account.
const selfTimeout = 20 * time.Second

// WhoAmI prints the identity of this account as a peer would see it.
func (d Daemon) WhoAmI(w io.Writer, asJSON bool) error {
	p, err := d.selfHandshake()
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

// selfHandshake returns the identity of this account as the other end of a handshake sees it.
func (d Daemon) selfHandshake() (*altscreds.Peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), selfTimeout)
	defer cancel()
	if err := d.answers(ctx); err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	options := d.client(nil, nil, protocol)
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
	server := altscreds.Server(there, d.server(protocol))
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
