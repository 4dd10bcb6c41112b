package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/certbind"
)

const (
	// probeEach is how long a resolver that validates is taken for one until it is asked again, and probeAgain how long one that
	// does not.
	probeEach  = time.Hour
	probeAgain = time.Minute
)

// A Resolver asks one resolver of this machine. Its methods are safe for concurrent use.
type Resolver struct {
	addr netip.AddrPort
	log  *slog.Logger
	dial dialer

	probed chan struct{} // closed after the first probe
	mu     sync.Mutex
	probe  Probe
}

// New returns a Resolver that asks at an address that Choose has returned.
func New(addr netip.AddrPort, log *slog.Logger) *Resolver {
	return &Resolver{addr: addr, log: log, dial: new(net.Dialer).DialContext, probed: make(chan struct{})}
}

// Handle answers a request of the daemon (companion.Server).
func (r *Resolver) Handle(ctx context.Context, req []byte) []byte {
	machine, err := parseRequest(req)
	switch {
	case err != nil:
		r.log.Warn("a request that is none", "error", err)
		return nil
	case machine != "":
		return r.Lookup(ctx, machine).Marshal()
	}
	select {
	case <-r.probed:
	case <-ctx.Done():
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.probe.Marshal()
}

// Lookup returns what DNS says of a machine.
func (r *Resolver) Lookup(ctx context.Context, machine string) *Answer {
	got, a := r.ask(ctx, certbind.TLSAOwner(machine), typeTLSA)
	if a.Outcome == Secure {
		if len(got.records) == 0 {
			a.Outcome = Absent
		}
		a.TTL, a.Records = got.ttl.Truncate(time.Second), got.records
	}
	r.log.Debug("looked up", "machine", machine, "outcome", a.Outcome.String(), "records", len(a.Records), "ttl", a.TTL.String(), "detail", plain(a.Detail))
	return a
}

// ask asks for records of a kind at a name. The outcome is Secure for all that the resolver has verified, absence among it.
func (r *Resolver) ask(ctx context.Context, name string, kind dnsmessage.Type) (*reply, *Answer) {
	if err := checkAddress(r.addr); err != nil { // that may have changed since the start
		return nil, &Answer{Outcome: Unsigned, Detail: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q, msg, err := exchange(ctx, r.dial, r.addr, name, kind)
	switch {
	case errors.Is(err, errName):
		return nil, &Answer{Outcome: Malformed, Detail: err.Error()}
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, &Answer{Outcome: Silent, Detail: fmt.Sprintf("nobody answers at %v: start the resolver", r.addr)}
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return nil, &Answer{Outcome: Silent, Detail: fmt.Sprintf("%v has not answered within %v", r.addr, patience)}
	case err != nil:
		return nil, &Answer{Outcome: Silent, Detail: fmt.Sprintf("%v: %v", r.addr, err)}
	}
	got, err := q.read(msg)
	if err != nil {
		return nil, &Answer{Outcome: Malformed, Detail: err.Error()}
	}
	return got, judge(got)
}

// judge returns what is believed of a reply, without its records.
func judge(got *reply) *Answer {
	a := &Answer{Detail: got.why}
	switch {
	case got.code == dnsmessage.RCodeServerFailure:
		a.Outcome, a.Detail = Bogus, "SERVFAIL"
		if got.why != "" {
			a.Detail += ", " + got.why
		}
	case got.code != dnsmessage.RCodeSuccess && got.code != dnsmessage.RCodeNameError:
		a.Outcome, a.Detail = Malformed, refusal(got)
	case got.stale: // RFC 8767: to take out a record would revoke nothing while somebody keeps the resolver from the zone
		a.Outcome = Silent
	case got.code == dnsmessage.RCodeNameError && len(got.records) > 0:
		a.Outcome, a.Detail = Malformed, "records at a name that does not exist"
	case !got.ad:
		a.Outcome = Unsigned
	}
	return a
}

// refusal is a code that is no answer, in words.
func refusal(got *reply) string {
	text := fmt.Sprintf("the resolver answers with code %v", got.code)
	if got.why != "" {
		text += ", " + got.why
	}
	return text
}

// Watch probes the resolver until ctx ends, and logs how it is when that changes.
func (r *Resolver) Watch(ctx context.Context) {
	for first := true; ; first = false {
		p := r.check(ctx)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		before := r.probe
		p.Since = before.Since
		if changed := first || before.Outcome != p.Outcome; changed {
			p.Since = p.Last
			r.report(p)
		}
		r.probe = *p
		r.mu.Unlock()
		if first {
			close(r.probed)
		}
		wait := probeEach
		if p.Outcome != Secure {
			wait = probeAgain
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// check probes the resolver once: does the root's own NS come with AD?
func (r *Resolver) check(ctx context.Context) *Probe {
	p := &Probe{Resolver: r.addr.String()}
	got, a := r.ask(ctx, ".", dnsmessage.TypeNS)
	p.Outcome, p.Detail = a.Outcome, a.Detail
	if a.Outcome == Secure && (got.code != dnsmessage.RCodeSuccess || len(got.records) == 0) {
		p.Outcome, p.Detail = Malformed, "an answer about the root without its servers"
	}
	p.Last = time.Now()
	return p
}

// report logs how the resolver is.
func (r *Resolver) report(p *Probe) {
	switch p.Outcome {
	case Secure:
		r.log.Info("the resolver validates", "resolver", p.Resolver)
	case Unsigned:
		r.log.Error("the resolver does not validate, so that DNS vouches for nobody: turn DNSSEC on there (systemd-resolved: DNSSEC=yes)",
			"resolver", p.Resolver, "detail", plain(p.Detail))
	default:
		r.log.Error("the resolver does not answer as it should, so that DNS vouches for nobody", "resolver", p.Resolver,
			"outcome", p.Outcome.String(), "detail", plain(p.Detail))
	}
}
