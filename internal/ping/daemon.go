// Package ping tests a handshake, between two machines or with oneself, and says how it went.
package ping

import "github.com/shared-altsd/shared-altsd/altscreds"

// protocol is the application protocol of all handshakes here.
const protocol = "shared-altsd-ping"

// A Daemon is the one by which handshakes are made.
type Daemon struct {
	Socket string
	UID    uint32 // that it may run as, besides root and the caller
}

func (d Daemon) client(accounts, machines []string, protocols ...string) altscreds.ClientOptions {
	return altscreds.ClientOptions{Socket: d.Socket, DaemonUID: d.UID, TargetAccounts: accounts,
		TargetMachines: machines, ApplicationProtocols: protocols}
}

func (d Daemon) server(protocols ...string) altscreds.ServerOptions {
	return altscreds.ServerOptions{Socket: d.Socket, DaemonUID: d.UID, ApplicationProtocols: protocols}
}
