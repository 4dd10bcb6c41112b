package ping

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/reach"
)

// A Pinger pings.
type Pinger struct {
	Daemon             Daemon
	Accounts, Machines []string // that the peer may be, if any is given
	Timeout            time.Duration
	JSON               bool
}

// A step is one step and what it took.
type step struct {
	Name   string  `json:"name"`
	Millis float64 `json:"ms"`
}

// A report is what ping found, also in the form of JSON.
type report struct {
	Address   string            `json:"address"`
	OK        bool              `json:"ok"`
	Steps     []step            `json:"steps"`
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

// Run pings HOST:PORT and prints how that went. If it failed it returns an exit status.
func (p *Pinger) Run(w io.Writer, address string) error {
	r := p.ping(address)
	if p.JSON {
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

func (r *report) write(w io.Writer) {
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
	for _, name := range []string{"uid", "groups", "socket"} {
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

// The steps, in their order, as a failure names them.
const (
	StepResolve  = "name looked up"
	StepConnect  = "TCP connection made"
	StepStart    = "this machine's daemon began the handshake"
	StepAnswer   = "the other machine's daemon answered"
	StepVerify   = "this machine's daemon verified the peer"
	StepAccepted = "the other machine's daemon accepted"
	StepEcho     = "message sent over the secured connection and back"
)

func (p *Pinger) ping(address string) *report {
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	defer cancel()
	r := &report{Address: address, Steps: []step{}}
	last := time.Now()
	done := func(name string, at time.Time) {
		r.Steps = append(r.Steps, step{name, float64(at.Sub(last).Microseconds()) / 1000})
		last = at
	}
	fail := func(name string, err error) *report {
		r.Failed, r.Error, r.Diagnosis = name, strings.TrimPrefix(err.Error(), "altscreds: "), diagnose(name, address, err)
		if silent, ok := errors.AsType[*reach.Error](err); ok {
			r.Error = silent.What
		}
		if refusal, ok := errors.AsType[*altscreds.HandshakeError](err); ok {
			r.Reason, r.ByPeer = string(refusal.Reason), refusal.ByPeer
		}
		return r
	}

	// Before the rest, for which a daemon that hangs would leave no time.
	if err := p.Daemon.answers(ctx); err != nil {
		return fail(StepStart, err)
	}
	last = time.Now()
	host, port, _ := net.SplitHostPort(address)
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, cmp.Or(host, "localhost"))
	if err != nil {
		return fail(StepResolve, err)
	}
	done(StepResolve, time.Now())
	raw, err := connect(ctx, ips, port)
	if err != nil {
		return fail(StepConnect, err)
	}
	defer raw.Close()
	done(StepConnect, time.Now())

	watched := &watchedConn{Conn: raw}
	options := p.Daemon.client(p.Accounts, p.Machines, protocol, "grpc")
	options.ServerName = address
	conn := altscreds.Client(watched, options)
	err = conn.HandshakeContext(ctx)
	// The bytes on the wire tell the steps: message 1 out, message 2 in, message 3 out, the peer's status in.
	steps := []string{StepStart, StepAnswer, StepVerify, StepAccepted}
	seen := watched.turns()
	if err != nil {
		for i := 0; i < min(len(seen), len(steps)-1); i++ {
			done(steps[i], seen[i])
		}
		return fail(steps[min(len(seen), len(steps)-1)], err)
	}
	for i, name := range steps {
		if i < len(seen) {
			done(name, seen[i])
		}
	}
	peer := conn.Peer()
	r.Peer, r.Attrs, r.Protocol = peer.Account, peer.Attributes, conn.AuthInfo().(altscreds.AuthInfo).ApplicationProtocol()
	if r.Protocol == protocol {
		deadline, _ := ctx.Deadline()
		conn.SetDeadline(deadline)
		if r.SeenAs, err = echo(conn); err != nil {
			return fail(StepEcho, err)
		}
		done(StepEcho, time.Now())
	}
	r.OK = true
	return r
}
