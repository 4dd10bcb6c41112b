// Package demo shows two machines, their daemons and a call between them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/devca"
	"github.com/shared-altsd/shared-altsd/service"
)

// Run runs the demonstration and returns the first thing that did not come out as it should.
func Run(ctx context.Context, w io.Writer) (err error) {
	// The daemons know accounts as the user database has them; so does this.
	me, err := service.NewAccounts(service.AccountOptions{}).Lookup(ctx, uint32(os.Geteuid()))
	if err != nil {
		return fmt.Errorf("the account that runs the demo: %w", err)
	}
	dir, err := os.MkdirTemp("", "altsd-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step := func(format string, args ...any) { fmt.Fprintf(w, "\n"+format+"\n", args...) }
	show := func(what, format string, args ...any) {
		fmt.Fprintf(w, "    %-12s %s\n", what, fmt.Sprintf(format, args...))
	}

	fmt.Fprintln(w, "Two machines with a daemon each, and a third one that nobody knows, all in "+dir)
	step("1. Certificates")
	if err := makeCertificates(dir); err != nil {
		return err
	}
	show("demo CA", "alpha.demo, beta.demo")
	show("another CA", "gamma.demo, which trusts the demo CA, but the demo CA's machines do not trust this one")

	step("2. Daemons, each with its own socket for the applications of its machine")
	machines := map[string]*machine{}
	for name, cas := range map[string][]string{"alpha": {"ca"}, "beta": {"ca"}, "gamma": {"ca", "other-ca"}} {
		m, err := startMachine(ctx, dir, name, cas)
		if err != nil {
			return fmt.Errorf("the daemon of %s.demo: %w", name, err)
		}
		defer m.stop()
		machines[name] = m
	}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		show(name+".demo", "process %d, %s", machines[name].cmd.Process.Pid, machines[name].socket)
	}

	server, err := startGreeter(machines["beta"].socket)
	if err != nil {
		return err
	}
	defer server.grpc.Stop()
	greeter, alice := me.Name+"@beta.demo", me.Name+"@alpha.demo"

	step("3. A program on alpha.demo calls the greeter on beta.demo, over TCP to %s", server.addr)
	for _, which := range []string{"first call", "again"} {
		c, err := callGreeter(ctx, machines["alpha"].socket, server, greeter)
		if err != nil {
			return fmt.Errorf("the call that should succeed: %w", err)
		}
		show(which, "handshake of %d bytes (%d sent, %d received) in %.1f ms", c.sent+c.received, c.sent, c.received,
			c.took.Seconds()*1000)
		if which == "first call" {
			show("client says", "the server is %s", c.serverIs)
			show("server says", "the client is %s", c.clientIs)
			show("reply", "%q", c.reply)
		}
		if c.serverIs != greeter || c.clientIs != alice {
			return fmt.Errorf("the identities should be %s and %s", greeter, alice)
		}
	}
	show("", "(the second one is quicker: both daemons remember the certificates that they verified)")

	step("4. The same, but the client asks for the account backup@beta.demo: refused by its own daemon")
	if err := refused(ctx, machines["alpha"].socket, server, "backup@beta.demo", altscreds.ReasonTargetMismatch, false,
		show); err != nil {
		return err
	}
	step("5. A program on gamma.demo calls the greeter: refused by beta.demo, which does not know gamma.demo's CA")
	if err := refused(ctx, machines["gamma"].socket, server, greeter, altscreds.ReasonUnknownCA, true, show); err != nil {
		return err
	}
	step("All came out as it should.")
	return nil
}

// refused makes a call that has to fail for the reason.
func refused(ctx context.Context, socket string, server *greeterServer, target string, reason altscreds.Reason,
	byPeer bool, show func(string, string, ...any)) error {
	_, err := callGreeter(ctx, socket, server, target)
	var h *altscreds.HandshakeError
	switch {
	case err == nil:
		return errors.New("the call went through, and it should have been refused")
	case !errors.As(err, &h) || h.Reason != reason || h.ByPeer != byPeer:
		return fmt.Errorf("the call should have been refused for %q, but: %w", reason, err)
	}
	show("client's error", "%s", h.Text)
	return nil
}

func makeCertificates(dir string) error {
	for ca, machines := range map[string][]string{"ca": {"alpha", "beta"}, "other-ca": {"gamma"}} {
		authority, err := devca.New("shared-altsd " + ca)
		if err != nil {
			return err
		}
		if err := devca.WriteNew(filepath.Join(dir, ca+".pem"), authority.PEM(), 0o600); err != nil {
			return err
		}
		for _, m := range machines {
			issued, err := authority.Issue(m + ".demo")
			if err != nil {
				return err
			}
			if err := devca.WriteNew(filepath.Join(dir, m+".pem"), issued.PEM(), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
