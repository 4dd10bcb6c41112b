// Package ping tests a handshake, between two machines or with oneself, and says how it went.
package ping

import (
	"context"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/reach"
)

// protocol is the application protocol of all handshakes here.
const protocol = "shared-altsd-ping"

// A Daemon is the one by which handshakes are made.
type Daemon struct {
	Socket string
	UID    uint32 // that it may run as, besides root and the caller
}

// answers returns why the daemon does not answer, a *reach.Error, before a handshake waits for it.
func (d Daemon) answers(ctx context.Context) error { return reach.Daemon(ctx, d.Socket, d.UID) }

func (d Daemon) client(accounts, machines []string, protocols ...string) altscreds.ClientOptions {
	return altscreds.ClientOptions{Socket: d.Socket, DaemonUID: d.UID, TargetAccounts: accounts,
		TargetMachines: machines, ApplicationProtocols: protocols}
}

func (d Daemon) server(protocols ...string) altscreds.ServerOptions {
	return altscreds.ServerOptions{Socket: d.Socket, DaemonUID: d.UID, ApplicationProtocols: protocols}
}
