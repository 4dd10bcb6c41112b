package main

import (
	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/ping"
)

// daemonFlags are the flags of commands that talk to the daemon.
type daemonFlags struct {
	socket string
	uid    int
}

func (d *daemonFlags) options() []cli.Option {
	const group = "The daemon:"
	return []cli.Option{
		{Name: "socket", Group: group,
			Value: cli.Func("PATH", func(v string) error { d.socket = v; return localsock.CheckPath(v) }).CompleteFiles(),
			Help: "Socket of the daemon. Without it the variable " + localsock.Variable + ", then " +
				localsock.DefaultPath + "."},
		{Name: "daemon-uid", Group: group, Value: cli.Int(&d.uid, "UID", 0, 1<<31-1),
			Help: "Uid that the daemon may run as, besides root and the caller. Under systemd it is not needed: there the " +
				"socket is root's."},
	}
}

func jsonOption(p *bool) cli.Option {
	return cli.Option{Name: "json", Group: "Output:", Value: cli.Switch(p), Help: "Print JSON, for scripts."}
}

func (d *daemonFlags) admin() adminclient.Client {
	return adminclient.Client{Socket: localsock.Path(d.socket), DaemonUID: uint32(d.uid)}
}

func (d *daemonFlags) ping() ping.Daemon {
	return ping.Daemon{Socket: localsock.Path(d.socket), UID: uint32(d.uid)}
}
