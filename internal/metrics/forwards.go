package metrics

import (
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Forwards is what a forward counts, connect or listen. Its methods may be called at the same time.
type Forwards struct {
	version, kind, service string
	ask                    func() (machine string, err error)

	mu       sync.Mutex
	machine  string    // empty until it is known
	asked    time.Time // when it was asked for last
	outcomes map[string]uint64
	in, out  uint64
	reloads  Reloads
}

// A ForwardState is how many connections there are now.
type ForwardState struct {
	Unproven int // accepted, and nobody has proved yet who is at the other end
	Open     int // those that have a place
}

// NewForwards returns the counts of a forward that begins; outcomes are all that there can be, which are there from the
// start. machine says whose they are; it is asked when they are read, until it knows.
func NewForwards(version, kind, service string, outcomes []string, machine func() (string, error)) *Forwards {
	f := &Forwards{version: version, kind: kind, service: service, ask: machine, outcomes: make(map[string]uint64),
		reloads: Reloads{LastSuccess: time.Now()}}
	for _, o := range outcomes {
		f.outcomes[o] = 0
	}
	return f
}

// Ended counts a connection and what went through it: in from the peer, out to it.
func (f *Forwards) Ended(outcome string, in, out int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes[outcome]++
	f.in += uint64(max(0, in))
	f.out += uint64(max(0, out))
}

// Reloaded counts a reload.
func (f *Forwards) Reloaded(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.reloads.Failed++
		if f.reloads.RefusedSince.IsZero() {
			f.reloads.RefusedSince = time.Now()
		}
		return
	}
	f.reloads.Succeeded++
	f.reloads.LastSuccess, f.reloads.RefusedSince = time.Now(), time.Time{}
}

// Count returns how many connections have ended so.
func (f *Forwards) Count(outcome string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.outcomes[outcome]
}

// askAgain is how long a machine that is not known is not asked for again.
const askAgain = 5 * time.Second

// labels returns what all samples bear. Without a daemon nobody knows the machine's name.
func (f *Forwards) labels() []label {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.machine == "" && now.Sub(f.asked) > askAgain {
		f.asked = now
		f.mu.Unlock()
		machine, err := f.ask()
		f.mu.Lock()
		if err == nil {
			f.machine = machine
		}
	}
	labels := []label{{"service", f.service}}
	if f.machine != "" {
		labels = append(labels, label{"machine", f.machine})
	}
	return labels
}

// Write writes all in Prometheus' text format.
func (f *Forwards) Write(w io.Writer, state ForwardState) error {
	e := newExposition(w, f.labels()...)
	f.mu.Lock()
	defer f.mu.Unlock()
	e.family("shared_altsd_forward_info", "gauge", "1, with what kind of forward this is and its version as labels.")
	e.sample("shared_altsd_forward_info", 1, label{"kind", f.kind}, label{"version", f.version})
	e.single("shared_altsd_forward_unproven_connections", "gauge", "Connections at whose other end nobody is proved yet.",
		float64(state.Unproven))
	e.single("shared_altsd_forward_open_connections", "gauge", "Connections that have a place.", float64(state.Open))
	e.family("shared_altsd_forward_connections_total", "counter", "Connections that have ended, by how.")
	for _, o := range slices.Sorted(maps.Keys(f.outcomes)) {
		e.sample("shared_altsd_forward_connections_total", float64(f.outcomes[o]), label{"outcome", o})
	}
	e.family("shared_altsd_forward_bytes_total", "counter", "Bytes of connections that have ended, from peers (in) and to them.")
	e.sample("shared_altsd_forward_bytes_total", float64(f.in), label{"direction", "in"})
	e.sample("shared_altsd_forward_bytes_total", float64(f.out), label{"direction", "out"})
	e.family("shared_altsd_forward_reloads_total", "counter", "Reloads, by outcome.")
	e.sample("shared_altsd_forward_reloads_total", float64(f.reloads.Succeeded), label{"outcome", "succeeded"})
	e.sample("shared_altsd_forward_reloads_total", float64(f.reloads.Failed), label{"outcome", "failed"})
	refused := 0.0
	if since := f.reloads.RefusedSince; !since.IsZero() {
		refused = float64(since.UnixNano()) / 1e9
	}
	e.single("shared_altsd_forward_reload_refused_since_seconds", "gauge",
		"Since when a reload stands refused and what was in force before is still, 0 for none.", refused)
	return e.Flush()
}

// Serve answers GET /metrics on l until ctx ends.
func (f *Forwards) Serve(ctx context.Context, l net.Listener, state func() ForwardState) error {
	return serve(ctx, l, func(w io.Writer) { f.Write(w, state()) })
}
