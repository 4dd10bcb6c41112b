package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

var pingCommand = &cli.Command{
	Name:    "ping",
	Args:    cli.Args{Text: "HOST:PORT"},
	Summary: "do a full handshake with another machine and say how it went",
	About: `
Connects to HOST:PORT, where 'shared-altsd pong' or any gRPC server with ALTS listens, does a handshake by way of this
machine's daemon, and prints who the peer is and what each step took. With pong it sends a message over the secured
connection and back as well, and shows who this account is over there. If it fails it says at which step, and what that
means.

  shared-altsd pong :7400                            # on one machine
  shared-altsd ping b.example.com:7400               # on the other
  shared-altsd ping --target-account alice@b.example.com b.example.com:7400`,
	Setup: func() ([]cli.Option, func([]string) error) {
		p := &pinger{d: new(daemonFlags)}
		const group = "The peer:"
		options := append(p.d.options(),
			cli.Option{Name: "target-account", Group: group, Repeat: true, Value: cli.Strings(&p.accounts, "USER@MACHINE"),
				Help: "Accept only this account as the peer. Without it the peer's certificate has to be valid for HOST."},
			cli.Option{Name: "target-machine", Group: group, Repeat: true, Value: cli.Strings(&p.machines, "MACHINE"),
				Help: "Accept any account of this machine as the peer."},
			cli.Option{Name: "timeout", Default: "10s", Group: group,
				Value: cli.Duration(&p.timeout, 100*time.Millisecond, 5*time.Minute),
				Help:  "How long it may take in all."},
			jsonOption(&p.asJSON))
		return options, func(args []string) error {
			if len(args) != 1 {
				return cli.Usagef("give one HOST:PORT: shared-altsd ping HOST:PORT")
			}
			if _, _, err := net.SplitHostPort(args[0]); err != nil {
				return cli.Usagef("%q is not HOST:PORT: add the port on which 'shared-altsd pong' or the server listens", args[0])
			}
			return p.ping(args[0], os.Stdout)
		}
	},
}

// After the handshake ping sends pingSize random bytes. pong sends the same back, then one byte n and n bytes with the
// name that it knows ping's account by.
const pingSize = 32

type pinger struct {
	d                  *daemonFlags
	accounts, machines []string
	timeout            time.Duration
	asJSON             bool
}

// A pingStep is one step and what it took.
type pingStep struct {
	Name   string  `json:"name"`
	Millis float64 `json:"ms"`
}

// A pingReport is what ping found, also in the form of --json.
type pingReport struct {
	Address   string            `json:"address"`
	OK        bool              `json:"ok"`
	Steps     []pingStep        `json:"steps"`
	Peer      string            `json:"peer,omitempty"`
	Attrs     map[string]string `json:"peer_attributes,omitempty"`
	SeenAs    string            `json:"seen_as,omitempty"`
	Protocol  string            `json:"application_protocol,omitempty"`
	Failed    string            `json:"failed_step,omitempty"`
	Error     string            `json:"error,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	ByPeer    bool              `json:"refused_by_peer,omitempty"`
	Diagnosis string            `json:"diagnosis,omitempty"`
}

func (p *pinger) ping(address string, w io.Writer) error {
	r := p.run(address)
	if p.asJSON {
		if err := cli.WriteJSON(w, r); err != nil {
			return err
		}
	} else {
		r.write(w)
	}
	if !r.OK {
		return cli.ExitStatus(1)
	}
	return nil
}

func (r *pingReport) write(w io.Writer) {
	fmt.Fprintf(w, "%s\n", r.Address)
	total := 0.0
	for _, s := range r.Steps {
		fmt.Fprintf(w, "  %9.3f ms  %s\n", s.Millis, s.Name)
		total += s.Millis
	}
	if !r.OK {
		fmt.Fprintf(w, "  failed        %s\n\n%s\n\n", r.Failed, cli.OneLine(r.Error))
		for _, line := range cli.Wrap(r.Diagnosis, 100) {
			fmt.Fprintln(w, line)
		}
		return
	}
	fmt.Fprintf(w, "  %9.3f ms  in all\n\npeer      %s\n", total, r.Peer)
	for _, name := range []string{"uid", "groups"} {
		if v := r.Attrs[name]; v != "" {
			fmt.Fprintf(w, "          %s = %s\n", name, v)
		}
	}
	switch {
	case r.SeenAs != "":
		fmt.Fprintf(w, "you       %s, as the peer sees it\n", r.SeenAs)
	default:
		fmt.Fprintf(w, "the peer speaks %q, so nothing was sent over the connection\n", r.Protocol)
	}
}

// The steps, in their order.
const (
	stepResolve  = "name looked up"
	stepConnect  = "TCP connection made"
	stepStart    = "this machine's daemon began the handshake"
	stepAnswer   = "the other machine's daemon answered"
	stepVerify   = "this machine's daemon verified the peer"
	stepAccepted = "the other machine's daemon accepted"
	stepEcho     = "message sent over the secured connection and back"
)

func (p *pinger) run(address string) *pingReport {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	r := &pingReport{Address: address, Steps: []pingStep{}}
	last := time.Now()
	done := func(step string, at time.Time) {
		r.Steps = append(r.Steps, pingStep{step, float64(at.Sub(last).Microseconds()) / 1000})
		last = at
	}
	fail := func(step string, err error) *pingReport {
		r.Failed, r.Error, r.Diagnosis = step, strings.TrimPrefix(err.Error(), "altscreds: "), diagnose(step, address, err)
		if refusal, ok := errors.AsType[*altscreds.HandshakeError](err); ok {
			r.Reason, r.ByPeer = string(refusal.Reason), refusal.ByPeer
		}
		return r
	}

	host, port, _ := net.SplitHostPort(address)
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, cmp.Or(host, "localhost"))
	if err != nil {
		return fail(stepResolve, err)
	}
	done(stepResolve, time.Now())
	var raw net.Conn
	for _, ip := range ips {
		if raw, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port)); err == nil {
			break
		}
	}
	if err != nil {
		return fail(stepConnect, err)
	}
	defer raw.Close()
	done(stepConnect, time.Now())

	watched := &watchedConn{Conn: raw}
	options := p.d.client(p.accounts, p.machines, pingProtocol, "grpc")
	options.ServerName = address
	conn := altscreds.Client(watched, options)
	err = conn.HandshakeContext(ctx)
	// The bytes on the wire tell the steps: message 1 out, message 2 in, message 3 out, the peer's status in.
	steps := []string{stepStart, stepAnswer, stepVerify, stepAccepted}
	seen := watched.turns()
	if err != nil {
		for i := 0; i < min(len(seen), len(steps)-1); i++ {
			done(steps[i], seen[i])
		}
		return fail(steps[min(len(seen), len(steps)-1)], err)
	}
	for i, step := range steps {
		if i < len(seen) {
			done(step, seen[i])
		}
	}
	peer := conn.Peer()
	r.Peer, r.Attrs, r.Protocol = peer.Account, peer.Attributes, conn.AuthInfo().(altscreds.AuthInfo).ApplicationProtocol()
	if r.Protocol == pingProtocol {
		deadline, _ := ctx.Deadline()
		conn.SetDeadline(deadline)
		if r.SeenAs, err = echo(conn); err != nil {
			return fail(stepEcho, err)
		}
		done(stepEcho, time.Now())
	}
	r.OK = true
	return r
}

// echo sends a message to pong and back, and gives the name that pong has for this account.
func echo(conn io.ReadWriter) (seenAs string, err error) {
	sent := make([]byte, pingSize)
	rand.Read(sent)
	if _, err := conn.Write(sent); err != nil {
		return "", err
	}
	got := make([]byte, pingSize+1)
	if _, err := io.ReadFull(conn, got); err != nil {
		return "", err
	}
	if !bytes.Equal(got[:pingSize], sent) {
		return "", errors.New("other bytes came back than were sent")
	}
	name := make([]byte, got[pingSize])
	if _, err := io.ReadFull(conn, name); err != nil {
		return "", err
	}
	return cli.OneLine(string(name)), nil
}

// A watchedConn notes when the direction of the bytes on a connection turns.
type watchedConn struct {
	net.Conn
	mu      sync.Mutex
	times   []time.Time // the last byte before each turn
	reading bool
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(false, n)
	return n, err
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(true, n)
	return n, err
}

func (c *watchedConn) note(reading bool, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n == 0:
	case len(c.times) == 0 || c.reading != reading:
		c.times, c.reading = append(c.times, time.Now()), reading
	default:
		c.times[len(c.times)-1] = time.Now()
	}
}

func (c *watchedConn) turns() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Time(nil), c.times...)
}

// diagnose says in words what a failure at a step most likely means and what to do.
func diagnose(step, address string, err error) string {
	host, port, _ := net.SplitHostPort(address)
	var dns *net.DNSError
	var refusal *altscreds.HandshakeError
	switch {
	case errors.Is(err, altscreds.ErrNoDaemon):
		return "This machine's daemon could not be used. 'systemctl status shared-altsd' and 'journalctl -u shared-altsd' show " +
			"why; --socket names another socket."
	case errors.As(err, &dns):
		return fmt.Sprintf("The name %q has no address. Check its spelling, DNS and /etc/hosts on this machine.", host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("The machine is there but nothing listens on port %s. Start 'shared-altsd pong :%s' or the server "+
			"there; a firewall that rejects looks the same.", port, port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "There is no way to the machine: check routes and the network on both sides."
	case step == stepConnect:
		return "No connection in time: most often a firewall on the way, or the machine is down."
	case errors.As(err, &refusal) && refusal.Reason != "":
		return diagnoseRefusal(refusal, host)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "The peer hung up in the middle. Either it does not speak ALTS (another service listens on this port), or its " +
			"own application or daemon refused this machine: the log of the daemon there, under the same time, says why."
	case errors.Is(err, altscreds.ErrTimeout), errors.Is(err, os.ErrDeadlineExceeded):
		switch step {
		case stepStart:
			return "This machine's own daemon did not begin: it is overloaded or hangs. 'shared-altsd status' asks it."
		case stepAnswer:
			return "The peer took the connection but does not answer: it does not speak ALTS (an HTTP server waits like this), " +
				"or the daemon on that machine is down or hangs. Run 'shared-altsd status' there."
		}
		return "The peer stopped answering in the middle. Run 'shared-altsd status' on both machines; a firewall that drops " +
			"large packets (path MTU) looks the same."
	}
	return "The log of this machine's daemon has more: 'journalctl -u shared-altsd'."
}

// diagnoseRefusal explains a refusal by its reason, in the view of whoever has to act.
func diagnoseRefusal(e *altscreds.HandshakeError, host string) string {
	refuser, refused := "this machine", "the other machine"
	if e.ByPeer {
		refuser, refused = refused, refuser
	}
	switch e.Reason {
	case altscreds.ReasonUnknownCA:
		return fmt.Sprintf("On %s no --ca vouches for the certificate of %s under its name. Give the CA that issued it there, "+
			"and see that %s sends its intermediate certificates ('shared-altsd check' there).", refuser, refused, refused)
	case altscreds.ReasonCertificateExpired:
		return fmt.Sprintf("The certificate of %s has expired, or the clock of %s is ahead. Renew it and reload there; "+
			"'shared-altsd status' on both shows clocks and dates.", refused, refuser)
	case altscreds.ReasonCertificateNotYetValid:
		return fmt.Sprintf("For %s the certificate of %s is not valid yet: most often the clock of %s is behind. 'shared-altsd "+
			"status' on both names a clock that is plainly wrong.", refuser, refused, refuser)
	case altscreds.ReasonCertificateRevoked:
		return fmt.Sprintf("The CA has revoked the certificate of %s: have a new one issued, for a new key.", refused)
	case altscreds.ReasonRevocationUnknown:
		return fmt.Sprintf("The revocation list on %s is out of date: fetch the CA's current one and reload there.", refuser)
	case altscreds.ReasonStatementExpired:
		return "The clocks of the two machines differ by more than five minutes: keep both right with NTP."
	case altscreds.ReasonTargetMismatch, altscreds.ReasonMachineNameMismatch:
		return fmt.Sprintf("The peer is not whom you asked for; the error names both. If it is whom you mean, say so with "+
			"--target-account or --target-machine, or dial a name that is in its certificate. If not, another account "+
			"listens there, or %q leads to another machine.", host)
	case altscreds.ReasonNoApplicationProtocol:
		return "The server speaks neither gRPC nor ping's own protocol: start 'shared-altsd pong' there to test the two daemons."
	case altscreds.ReasonLocalAccount, altscreds.ReasonAccountUnacceptable:
		return fmt.Sprintf("The account on %s may not take part: it has no name in the user database, or one that is not "+
			"allowed. 'shared-altsd whoami' under that account says which.", refused)
	case altscreds.ReasonMalformed, altscreds.ReasonDecryptionFailed, altscreds.ReasonUnsupportedVersion:
		return "What came from the peer is not this protocol: another service listens on this port, or something between the " +
			"machines changes the bytes, or one daemon is much older than the other ('shared-altsd --version' on both)."
	case altscreds.ReasonTimedOut:
		return diagnose(stepAccepted, host, altscreds.ErrTimeout)
	case altscreds.ReasonOverloaded, altscreds.ReasonShuttingDown:
		return fmt.Sprintf("The daemon of %s is busy or stopping: try again.", refuser)
	}
	return fmt.Sprintf("The log of the daemon on %s says more, under the same handshake ID: 'journalctl -u shared-altsd'.", refuser)
}
