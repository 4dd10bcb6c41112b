package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A measure is what is done with each variant in a round.
type measure struct {
	Name    string
	do      string // what the client is asked for
	dialers int    // of channels or connections, at once
	rsa     bool   // with certificates of either kind
}

const (
	channelName, bulkName, firstName, idleName = "channel", "bulk", "first", "idle"
	// freshClients are started in a round for the first channel of each.
	freshClients = 3
	// busyDialers are those after which a daemon's memory counts as that of a busy one.
	busyDialers = 64
)

var allMeasures = []*measure{
	{idleName, "hold", 0, false}, // before the others leave something behind, and once
	{channelName, "channels", 1, true},
	{"8", "channels", 8, false},
	{"64", "channels", busyDialers, true},
	{"256", "channels", 256, false},
	{bulkName, "bulk", 0, false},
	{firstName, "channels", 1, true},
}

func (m *measure) name() string { return m.Name }

// A sample is a measure of a variant in one round.
type sample struct {
	Round            int
	Measure, Variant string
	N                int // channels, or MiB
	Seconds          float64
	Processor        map[string]float64 // seconds, by process
	Others, Stolen   float64            // seconds of processor time of the rest of the machine, and of the hypervisor
}

// A daemonMemory is resident memory in KiB: before the first handshake, the most after the first round's 64 dialers, and
// the most of all. Own is what is no file's.
type daemonMemory struct{ Idle, OwnIdle, Busy, OwnBusy, Most int }

// A memory is that of a variant's processes.
type memory struct {
	// Bytes for an idle channel, of heap and stacks, or for an idle connection, of the forwarders' and daemons' memory.
	Client, Server, Daemons    int `json:",omitempty"`
	ClientDaemon, ServerDaemon daemonMemory
}

// measure takes all samples.
func (r *report) measure(ctx context.Context, w *world) error {
	r.Memory = map[string]*memory{}
	for _, s := range w.stations {
		r.Memory[s.Name] = new(memory)
		if err := errors.Join(r.daemons(s, "VmRSS", func(m *daemonMemory) *int { return &m.Idle }),
			r.daemons(s, "RssAnon", func(m *daemonMemory) *int { return &m.OwnIdle })); err != nil {
			return err
		}
		if _, err := s.client.ask(request{Do: r.table.measures[1].do, Dialers: 1, For: r.each / 10}); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	for round := 1; round <= r.rounds; round++ {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, r.rounds)
		for _, m := range r.measures {
			// Each goes first once, that what one leaves behind does not always meet the same.
			for i := range w.stations {
				s := w.stations[(i+round)%len(w.stations)]
				if s.key != testca.P256 && !m.rsa || m.Name == idleName && round > 1 {
					continue
				}
				err := r.sample(ctx, w, s, m, round)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				} else if err != nil {
					return fmt.Errorf("%s, measure %s, round %d: %w", s.Name, m.Name, round, err)
				}
			}
		}
	}
	for _, s := range w.stations {
		if err := r.daemons(s, "VmHWM", func(m *daemonMemory) *int { return &m.Most }); err != nil {
			return err
		}
		for _, d := range []*daemonMemory{&r.Memory[s.Name].ClientDaemon, &r.Memory[s.Name].ServerDaemon} {
			d.Most = max(d.Most, d.Busy) // the kernel counts a process's pages by processors, and tells some too few or too many
		}
	}
	return nil
}

// daemons reads a line of the status of a station's daemons, if it has them.
func (r *report) daemons(s *station, line string, where func(*daemonMemory) *int) (err error) {
	if !s.daemons() {
		return nil
	}
	m := r.Memory[s.Name]
	if *where(&m.ClientDaemon), err = s.clientDaemon.memory(line); err != nil {
		return err
	}
	*where(&m.ServerDaemon), err = s.serverDaemon.memory(line)
	return err
}

// sample measures a variant once.
func (r *report) sample(ctx context.Context, w *world, s *station, m *measure, round int) error {
	x := sample{Round: round, Measure: m.Name, Variant: s.Name, Processor: map[string]float64{}}
	var err error
	switch m.Name {
	case idleName:
		if r.table == forwardsTable {
			return r.holdForwards(s)
		}
		return r.hold(s)
	case firstName:
		for range freshClients {
			if err = x.fresh(ctx, w, s); err != nil {
				break
			}
		}
	default:
		err = x.add(s.processes(), s.client, request{Do: m.do, Dialers: m.dialers, For: r.each})
	}
	if err != nil {
		return err
	}
	r.Samples = append(r.Samples, x)
	if m.dialers == busyDialers && round == 1 {
		return errors.Join(r.daemons(s, "VmHWM", func(m *daemonMemory) *int { return &m.Busy }),
			r.daemons(s, "RssAnon", func(m *daemonMemory) *int { return &m.OwnBusy }))
	}
	return nil
}

// add has the client do what is asked, and adds what it took to the sample.
func (x *sample) add(all []*process, client *process, do request) error {
	// spent adds the clocks' readings, times sign.
	spent := func(sign float64) error {
		busy, stolen, err := busy()
		if err != nil {
			return err
		}
		x.Others += sign * busy.Seconds()
		x.Stolen += sign * stolen.Seconds()
		for _, p := range all {
			used, err := p.processor()
			if err != nil {
				return err
			}
			x.Processor[p.name] += sign * used.Seconds()
			x.Others -= sign * used.Seconds()
		}
		return nil
	}
	if err := spent(-1); err != nil {
		return err
	}
	a, err := client.ask(do)
	if err != nil {
		return err
	}
	x.N += a.N
	x.Seconds += a.Took.Seconds()
	return spent(1)
}

// fresh adds the first channel of a client that has just been started.
func (x *sample) fresh(ctx context.Context, w *world, s *station) error {
	client, err := w.run(ctx, s.variant, s.client.name, appArgument, s.app)
	if err != nil {
		return err
	}
	defer client.end()
	if _, err := client.ask(request{Do: "drop"}); err != nil { // that it has started is not in the time
		return err
	}
	all := s.processes()
	all[0] = client
	return x.add(all, client, request{Do: "channels", Dialers: 1})
}

// hold measures the memory of idle channels.
func (r *report) hold(s *station) error {
	heap := func() (client, server int, err error) {
		c, err := s.client.ask(request{Do: "heap"})
		if err != nil {
			return 0, 0, err
		}
		a, err := s.server.ask(request{Do: "heap"})
		return c.N, a.N, err
	}
	clientBefore, serverBefore, err := heap()
	if err != nil {
		return err
	}
	if _, err := s.client.ask(request{Do: "hold", N: r.idle}); err != nil {
		return err
	}
	client, server, err := heap()
	if err != nil {
		return err
	}
	m := r.Memory[s.Name]
	m.Client, m.Server = (client-clientBefore)/r.idle, (server-serverBefore)/r.idle
	_, err = s.client.ask(request{Do: "drop"})
	return err
}
