package dane

import (
	"context"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/resolve"
)

// probeInterval is how often the companion is asked how its resolver is.
const probeInterval = time.Minute

// A Probe is how the resolver is, as the companion said, or why it said nothing.
type Probe struct {
	Validates bool
	// Away is set where there is no companion to say it.
	Away bool
	// What is one clause: what is wrong, empty if nothing.
	What     string
	Resolver string // its address
	// Since is when it came to be so, as far as is known, Last when the resolver was last asked.
	Since, Last time.Time
}

// Watch asks the companion how its resolver is, from time to time until done is closed, and logs when that changes.
func (r *Resolver) Watch(done <-chan struct{}) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}

// look asks once.
func (r *Resolver) look() {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	p := AskProbe(ctx, r.client, r.now())
	r.mu.Lock()
	before := r.probed
	if p.Away && before != nil && before.Away {
		p.Since = before.Since
	}
	r.probed = &p
	r.mu.Unlock()
	switch {
	case before != nil && before.Validates == p.Validates && before.Away == p.Away:
	case p.Validates:
		r.log.Info("the resolver validates DNS", "resolver", p.Resolver)
	default:
		r.log.Error("machines under DNS cannot be verified", "error", p.What, "resolver", p.Resolver)
	}
}

// AskProbe asks a companion how its resolver is.
func AskProbe(ctx context.Context, client Caller, now time.Time) Probe {
	response, err := client.Call(ctx, resolve.ProbeRequest())
	if err != nil {
		return Probe{Away: true, What: err.Error(), Since: now, Last: now}
	}
	said, err := resolve.ParseProbe(response)
	if err != nil {
		return Probe{Away: true, What: err.Error() + "; have companion and daemon of the same version", Since: now, Last: now}
	}
	p := Probe{Validates: said.Outcome == resolve.Secure, Resolver: said.Resolver, Since: said.Since, Last: said.Last}
	if !p.Validates {
		p.What = "the resolver of this machine does not validate (" + said.Outcome.String()
		if said.Detail != "" {
			p.What += ": " + said.Detail
		}
		p.What += "); see 'journalctl -u shared-altsd-resolve', and docs/dns.md for resolvers that do"
	}
	return p
}
