package service

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/standing"
)

// Connections that stand, to machines under DNS. They do not end when an answer's time is over: DNS is asked again then, and
// those end that it disowns. While it says nothing, they stand.

// askAgain is when DNS is asked again that said nothing, and the least after an answer; a variable part follows, so that what
// was let at one time is not asked about at one time. Variables for tests.
var (
	askAgain  = time.Minute
	askSpread = 30 * time.Second
)

const (
	// askLatest is the longest that a record can put off the next question.
	askLatest   = 2 * time.Hour
	askTimeout  = 6 * time.Second
	askedAtOnce = 2 // machines of an account
)

// An asker asks about the machines of one account's connections.
type asker struct {
	queues  map[string][]string // machines, each once, by branch
	rounds  []string            // the branches, as they take turns: whoever runs a zone delays its own names alone
	about   map[string]map[asked]struct{}
	entries int
	busy    int // goroutines
}

// An asked is one connection.
type asked struct {
	call *watchCall
	id   uint64
}

// askWhenDue has DNS asked about a connection's machine when that is due, and sets when it is next.
func (c *watchCall) askWhenDue(id uint64, w *watched, r *standing.Record) {
	now := time.Now()
	if w.until == 0 { // as it was said at the handshake
		until := r.Until
		if latest := now.Add(askLatest); until.After(latest) {
			until = latest
		}
		w.until = spread(until).Unix()
	}
	if w.until > now.Unix() {
		c.due(w, time.Unix(w.until, 0))
		return
	}
	c.srv.askAbout(c.share, asked{c, id}, r)
	c.due(w, spread(now.Add(askAgain)))
}

func spread(t time.Time) time.Time { return t.Add(rand.N(askSpread)) }

// askAbout has DNS asked about a connection. What an account may have waiting is bounded: what is too much is due again later.
func (s *Server) askAbout(of share, which asked, r *standing.Record) {
	if s.cfg.Resolver == nil {
		return
	}
	machine := r.Path.Machine
	branch := certbind.Branch(machine, s.cfg.Machine.Trust().DNSNames())
	w := &s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.askers[of]
	if a == nil {
		a = &asker{about: make(map[string]map[asked]struct{}), queues: make(map[string][]string)}
		w.askers[of] = a
	}
	if _, waits := a.about[machine][which]; waits || a.entries >= standingPerAccount {
		return
	}
	if a.about[machine] == nil {
		a.about[machine] = make(map[asked]struct{})
		if len(a.queues[branch]) == 0 {
			a.rounds = append(a.rounds, branch)
		}
		a.queues[branch] = append(a.queues[branch], machine)
	}
	a.about[machine][which] = struct{}{}
	a.entries++
	if a.busy < askedAtOnce {
		a.busy++
		go s.keepAsking(of, a, r.Connection.Direction == policy.Out)
	}
}

// keepAsking asks about one machine after the other, until none is left.
func (s *Server) keepAsking(of share, a *asker, initiator bool) {
	w := &s.watches
	for {
		w.mu.Lock()
		if len(a.rounds) == 0 || s.draining.Err() != nil {
			if a.busy--; a.busy == 0 {
				delete(w.askers, of)
			}
			w.mu.Unlock()
			return
		}
		machine := a.next()
		w.mu.Unlock()
		answer := s.askOnce(of, a, machine, initiator)
		for c, ids := range s.take(a, machine) {
			for ; answer != nil && len(ids) > 0; ids = ids[min(len(ids), judgedInARow):] {
				c.hear(ids[:min(len(ids), judgedInARow)], answer)
			}
		}
	}
}

// next takes a machine out of the queue of the branch whose turn it is.
func (a *asker) next() string {
	branch := a.rounds[0]
	a.rounds = a.rounds[1:]
	machine := a.queues[branch][0]
	if a.queues[branch] = a.queues[branch][1:]; len(a.queues[branch]) > 0 {
		a.rounds = append(a.rounds, branch)
	} else {
		delete(a.queues, branch)
	}
	return machine
}

// askOnce asks about a machine, unless all of its connections are closed meanwhile. It returns nil if nothing is said.
func (s *Server) askOnce(of share, a *asker, machine string, initiator bool) *certbind.Answer {
	s.watches.mu.Lock()
	wanted := false
	for which := range a.about[machine] {
		wanted = wanted || which.call.ctx.Err() == nil
	}
	s.watches.mu.Unlock()
	if !wanted {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.draining, askTimeout)
	defer cancel()
	answer, err := s.cfg.Resolver.Resolve(ctx, Query{Share: of.key(), Initiator: initiator, Machine: machine})
	if err != nil || answer == nil || answer.Machine != machine {
		return nil
	}
	return answer
}

// take returns the connections that a machine was asked about, those that came meanwhile among them, and forgets them.
func (s *Server) take(a *asker, machine string) map[*watchCall][]uint64 {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	calls := make(map[*watchCall][]uint64)
	for which := range a.about[machine] {
		calls[which.call] = append(calls[which.call], which.id)
	}
	a.entries -= len(a.about[machine])
	delete(a.about, machine)
	return calls
}

// hear does to connections what DNS says of their machine.
func (c *watchCall) hear(ids []uint64, answer *certbind.Answer) {
	next := time.Now().Add(askAgain)
	if answer.Until.After(next) {
		next = answer.Until
	}
	texts, records, findings := make([]string, len(ids)), make([]*standing.Record, len(ids)), make([]finding, len(ids))
	var whose share
	c.st.Do(func() {
		whose = c.share
		for i, id := range ids {
			texts[i] = c.records[id].record // "" if it was closed
		}
	})
	c.srv.turns.Do(whose, func() {
		for i, text := range texts {
			r, err := standing.Decode([]byte(text))
			if err != nil || r.Path.DNS == nil || r.Path.Machine != answer.Machine {
				continue // another connection has the ID by now
			}
			records[i], findings[i] = r, finding{err: answer.Disowned(r.Path)}
		}
	})
	c.st.Do(func() {
		for i, id := range ids {
			if records[i] == nil {
				continue
			}
			if findings[i].err != nil {
				c.apply(id, texts[i], records[i], findings[i])
			}
			if w, ok := c.records[id]; ok && w.record == texts[i] {
				c.due(&w, spread(next))
				c.records[id] = w
			}
		}
		c.say()
	})
}
