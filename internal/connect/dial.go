package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/reach"
)

// dial connects to the target, within the handshake's timeout, and returns once it is proved who is there and that he
// speaks what was asked for.
func (c *Config) dial(ctx context.Context) (*altscreds.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Limits.Handshake)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", c.address())
	if err != nil {
		return nil, forward.Refuse(forward.Backend, c.explainDial(err))
	}
	conn := altscreds.Client(raw, altscreds.ClientOptions{Socket: c.Socket, DaemonUID: c.DaemonUID,
		TargetAccounts: []string{c.Target.Account}, ApplicationProtocols: []string{c.protocol}})
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, c.explainHandshake(err)
	}
	// The daemon has seen to both: but it is by these that the bytes go where they are meant to go.
	if got := conn.ApplicationProtocol(); got != c.protocol {
		conn.Close()
		return nil, forward.Refuse(forward.Handshake, fmt.Errorf("%v speaks %q, not %q, and this machine's daemon let it pass: report that",
			c.Target, got, c.protocol))
	}
	if got := conn.Peer().Account; got != c.Target.Account {
		conn.Close()
		return nil, forward.Refuse(forward.WrongTarget, fmt.Errorf("the peer is %s, not %s, and this machine's daemon let it pass: "+
			"report that", got, c.Target.Account))
	}
	return conn, nil
}

func (c *Config) address() string {
	if c.Dial != "" {
		return c.Dial
	}
	return c.Target.address()
}

// explainDial returns why there is no connection to the other machine, and what to do.
func (c *Config) explainDial(err error) error {
	host, port, _ := net.SplitHostPort(c.address())
	var dns *net.DNSError
	cure := "see routes, firewalls and proxies on the way"
	switch {
	case errors.As(err, &dns) && !dns.IsTimeout:
		cure = fmt.Sprintf("mend the name %q in DNS or /etc/hosts on this machine, or give the address by --dial HOST:PORT", host)
	case errors.As(err, &dns):
		cure = "this machine's DNS does not answer: give the address by --dial HOST:PORT, or mend that"
	case errors.Is(err, syscall.ECONNREFUSED):
		cure = fmt.Sprintf("the machine is there but nothing listens on port %s: start 'shared-altsd listen' there, or give its port; a "+
			"firewall that rejects looks the same", port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		cure = "there is no way to the machine: see routes and the network on both sides"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		cure = "no answer in time: most often a firewall on the way, or the machine is down"
	}
	return &explained{fmt.Sprintf("connecting to %s: %v (%s)", c.address(), cause(err), cure), err}
}

// cause returns what failed, without the addresses that the caller names.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// explainHandshake returns why it is not proved who is there, whose matter that is, and what to do.
func (c *Config) explainHandshake(err error) error {
	if noDaemon, ok := errors.AsType[*altscreds.NoDaemonError](err); ok {
		why := reach.Explain(localsock.Path(c.Socket), noDaemon.Err)
		return forward.Refuse(forward.Handshake, fmt.Errorf("this machine's own daemon cannot be asked: %w", why))
	}
	outcome, text := forward.Handshake, strings.TrimPrefix(err.Error(), "altscreds: handshake: ")
	refusal, _ := errors.AsType[*altscreds.HandshakeError](err)
	cure := ""
	if refusal != nil {
		switch refusal.Reason {
		case altscreds.ReasonTargetMismatch:
			outcome = forward.WrongTarget
			cure = fmt.Sprintf("another account than %s has the port there, or %s leads to another machine", c.Target.Account, c.address())
		case altscreds.ReasonNoApplicationProtocol:
			cure = fmt.Sprintf("%s is there, but does not serve %q on this port: it is another service of his, or its --service has "+
				"another name; behind NAT both ends name it", c.Target.Account, c.protocol)
			if c.GRPC {
				cure = fmt.Sprintf("%s is there, but it is no gRPC server: without --grpc a forward is asked for", c.Target.Account)
			}
		}
		if refusal.Timeout() {
			cure = "something else than a forward or a gRPC server may listen there, or the daemon of that machine is down"
		}
	}
	if cure != "" {
		cure = " (" + cure + ")"
	}
	return forward.Refuse(outcome, &explained{fmt.Sprintf("%v at %s: %s%s", c.Target, c.address(), text, cure), err})
}

// explainCut returns why a connection ended, nil if both ends were said. A listen that does not let this account in can say so
// in no other way than by closing what it has just proved.
func (c *Config) explainCut(r forward.Result) error {
	if r.Err == nil || r.By != forward.Peer || r.FromPeer > 0 || c.GRPC {
		return r.Err
	}
	return &explained{fmt.Sprintf("%v (not a byte came from %s: it may not let this account in, or not reach its own backend; the log of "+
		"'shared-altsd listen' there says which)", r.Err, c.Target.Account), r.Err}
}

// An explained error has another text than its cause.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }
