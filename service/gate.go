package service

import (
	"container/list"
	"context"
	"errors"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// A gate admits handshakes: at most perAccount for each account and direction, at most inAll together. Those who wait are
// served in order within their key, and the keys take turns at the places of all, so that a busy account delays only
// itself. A server's handshake has a place from a whole message 1 on, which costs a stranger nothing, since he can send
// the same again; so while others wait, the oldest whose peer has not proved who he is goes after unprovenGrace.
type gate struct {
	perAccount, inAll int
	grace             time.Duration

	mu      sync.Mutex
	inUse   [2]int // by Role
	waiting [2]int
	lines   map[gateKey]*line
	ready   list.List // of *line: those with a waiter and with room under perAccount, each once
}

const (
	unprovenGrace = time.Second           // more than a network's round trip
	afterSentAway = 50 * time.Millisecond // until who was sent away has left, before the next is
)

// A gateKey tells apart whose handshakes are counted; from, if set, is the peers' address.
type gateKey struct {
	share share
	role  Role
	from  netip.Prefix
}

type line struct {
	key     gateKey
	held    list.List // of *place, the oldest first
	waiters list.List // of *place
	queued  bool      // is in gate.ready
}

// A place is that of a handshake under way.
type place struct {
	line     *line
	admitted chan struct{} // closed when it is
	since    time.Time     // when it was
	sendAway func()        // ends the handshake; nil if it was called
	element  *list.Element // of line.held
}

var errNoPlace = errors.New("no place is free")

func newGate(l Limits) *gate {
	return &gate{perAccount: l.Handshakes, inAll: l.TotalHandshakes, grace: unprovenGrace, lines: make(map[gateKey]*line)}
}

// newAddressGate returns the gate that each handshake passes first whose peer's address is known.
func newAddressGate() *gate {
	return newGate(Limits{Handshakes: handed.PlacesOfNetwork, TotalHandshakes: math.MaxInt})
}

// try takes a place if one is free and nobody waits for it, else it returns nil.
func (g *gate) try(key gateKey, sendAway func()) *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[key]
	if l == nil {
		l = &line{key: key}
	}
	if l.waiters.Len() > 0 || l.held.Len() >= g.perAccount || g.inUse[Initiator]+g.inUse[Responder] >= g.inAll {
		return nil
	}
	g.lines[key] = l
	p := &place{line: l, since: time.Now(), sendAway: sendAway}
	p.element = l.held.PushBack(p)
	g.inUse[key.role]++
	return p
}

// acquire waits for a place until ctx is done, or returns errNoPlace if it is to be now; each place must be released.
// SendAway is called at most once, if the place has to be given up.
func (g *gate) acquire(ctx context.Context, key gateKey, now bool, sendAway func()) (*place, error) {
	p := &place{admitted: make(chan struct{}), sendAway: sendAway}
	g.mu.Lock()
	l := g.lines[key]
	if l == nil {
		l = &line{key: key}
		g.lines[key] = l
	}
	p.line = l
	waiter := l.waiters.PushBack(p)
	g.waiting[key.role]++
	g.admit(l)
	g.mu.Unlock()
	if err := g.await(ctx, p, now); err == nil {
		return p, nil
	} else {
		g.mu.Lock()
		defer g.mu.Unlock()
		select {
		case <-p.admitted: // at the same moment: the place is ours, so take it
			return p, nil
		default:
		}
		l.waiters.Remove(waiter)
		g.waiting[key.role]--
		g.admit(l)
		return nil, err
	}
}

func (g *gate) await(ctx context.Context, p *place, now bool) error {
	select {
	case <-p.admitted:
		return nil
	default:
	}
	var due *time.Timer
	for first := true; ; first = false {
		wait := g.clear(p.line)
		if now {
			return errNoPlace
		}
		if !first {
			wait = max(wait, afterSentAway)
		}
		if due == nil {
			due = time.NewTimer(wait)
			defer due.Stop()
		} else {
			due.Reset(wait)
		}
		select {
		case <-p.admitted:
			return nil
		case <-due.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clear sends away the oldest that stands in the way of l and had its grace, and returns when to look again.
func (g *gate) clear(l *line) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.held.Len() < g.perAccount { // the places of all are used up: who has most of them gives way
		for _, other := range g.lines {
			if other.key.role == Responder && (l.key.role != Responder || other.held.Len() > l.held.Len()) {
				l = other
			}
		}
	}
	if l.key.role != Responder {
		return g.grace
	}
	for e := l.held.Front(); e != nil; e = e.Next() {
		p := e.Value.(*place)
		if p.sendAway == nil {
			continue
		}
		if rest := g.grace - time.Since(p.since); rest > 0 {
			return rest
		}
		p.sendAway()
		p.sendAway = nil
		return 0
	}
	return g.grace
}

func (g *gate) release(p *place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.line.held.Remove(p.element)
	g.inUse[p.line.key.role]--
	g.admit(p.line)
}

// admit notes that l has changed, then gives away whatever places are free.
func (g *gate) admit(l *line) {
	g.enqueue(l)
	for g.inUse[Initiator]+g.inUse[Responder] < g.inAll && g.ready.Len() > 0 {
		l := g.ready.Remove(g.ready.Front()).(*line)
		l.queued = false
		if first := l.waiters.Front(); first != nil {
			p := l.waiters.Remove(first).(*place)
			p.since, p.element = time.Now(), l.held.PushBack(p)
			close(p.admitted)
			g.waiting[l.key.role]--
			g.inUse[l.key.role]++
		}
		g.enqueue(l)
		g.drop(l)
	}
	g.drop(l)
}

func (g *gate) drop(l *line) {
	if l.held.Len() == 0 && l.waiters.Len() == 0 && !l.queued {
		delete(g.lines, l.key)
	}
}

func (g *gate) enqueue(l *line) {
	if !l.queued && l.waiters.Len() > 0 && l.held.Len() < g.perAccount {
		l.queued = true
		g.ready.PushBack(l)
	}
}

func (g *gate) counts() (inUse, waiting [2]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inUse, g.waiting
}
