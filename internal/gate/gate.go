// Package gate lets so many handshakes be under way.
package gate

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// A Gate admits handshakes: at most PerKey for each key, at most InAll together. Those who wait are served in order
// within their key, and the keys take turns at the places of all, so that a busy one delays only itself. A server's
// handshake has a place from a whole message 1 on, which costs a stranger nothing, since he can send the same again; so
// while others wait, the oldest whose peer has not proved who he is goes after Grace. Who cannot wait is admitted as long
// as his key has less than AtOnce, since for him to be one too many is to fail. The fields are set before the first use.
type Gate[K Key] struct {
	PerKey, AtOnce, InAll int
	Grace                 time.Duration

	mu    sync.Mutex
	inUse int
	lines map[K]*line[K]
	ready list.List // of *line: those with a waiter and with room under PerKey, each once
}

const (
	unprovenGrace = time.Second           // more than a network's round trip
	afterSentAway = 50 * time.Millisecond // until who was sent away has left, before the next is
)

// A Key tells apart whose handshakes are counted.
type Key interface {
	comparable
	// GivesWay reports whether handshakes of this key may be sent away for others.
	GivesWay() bool
}

type line[K Key] struct {
	key     K
	held    list.List // of *Place, the oldest first
	waiters list.List // of *Place
	queued  bool      // is in Gate.ready
}

// A Place is that of a handshake under way.
type Place[K Key] struct {
	line     *line[K]
	admitted chan struct{} // closed when it is
	since    time.Time     // when it was
	sendAway func()        // ends the handshake; nil if it was called
	element  *list.Element // of line.held
}

// ErrNoPlace is what Acquire returns that may not wait.
var ErrNoPlace = errors.New("no place is free")

// New returns a Gate with a grace of a second, in which AtOnce is PerKey.
func New[K Key](perKey, inAll int) *Gate[K] {
	return &Gate[K]{PerKey: perKey, AtOnce: perKey, InAll: inAll, Grace: unprovenGrace, lines: make(map[K]*line[K])}
}

// Try takes a place if one is free and nobody waits for it, else it returns nil.
func (g *Gate[K]) Try(key K, sendAway func()) *Place[K] {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.try(key, g.PerKey, sendAway)
}

// try is Try with at most so many places for the key; g.mu is held.
func (g *Gate[K]) try(key K, perKey int, sendAway func()) *Place[K] {
	l := g.lines[key]
	if l == nil {
		l = &line[K]{key: key}
	}
	if l.waiters.Len() > 0 || l.held.Len() >= perKey || g.inUse >= g.InAll {
		return nil
	}
	g.lines[key] = l
	p := &Place[K]{line: l, since: time.Now(), sendAway: sendAway}
	p.element = l.held.PushBack(p)
	g.inUse++
	return p
}

// Acquire waits for a place until ctx is done, or returns ErrNoPlace if it is to be now; each place must be released.
// SendAway is called at most once, if the place has to be given up.
func (g *Gate[K]) Acquire(ctx context.Context, key K, now bool, sendAway func()) (*Place[K], error) {
	p := &Place[K]{admitted: make(chan struct{}), sendAway: sendAway}
	g.mu.Lock()
	if now {
		if p := g.try(key, g.AtOnce, sendAway); p != nil {
			g.mu.Unlock()
			return p, nil
		}
	}
	l := g.lines[key]
	if l == nil {
		l = &line[K]{key: key}
		g.lines[key] = l
	}
	p.line = l
	waiter := l.waiters.PushBack(p)
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
		g.admit(l)
		return nil, err
	}
}

func (g *Gate[K]) await(ctx context.Context, p *Place[K], now bool) error {
	select {
	case <-p.admitted:
		return nil
	default:
	}
	var due *time.Timer
	for first := true; ; first = false {
		wait := g.clear(p.line)
		if now {
			return ErrNoPlace
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
func (g *Gate[K]) clear(l *line[K]) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.held.Len() < g.PerKey { // the places of all are used up: who has most of them gives way
		for _, other := range g.lines {
			if other.key.GivesWay() && (!l.key.GivesWay() || other.before(l)) {
				l = other
			}
		}
	}
	if !l.key.GivesWay() {
		return g.Grace
	}
	next := g.Grace
	for e := l.held.Front(); e != nil; e = e.Next() {
		p := e.Value.(*Place[K])
		if p.sendAway == nil {
			continue
		}
		rest := g.Grace - time.Since(p.since)
		if rest <= 0 {
			p.sendAway()
			p.sendAway = nil
			return 0
		}
		next = min(next, rest)
	}
	return next
}

// before reports whether l gives way before other: it has more places, or as many and had the oldest of them for longer.
func (l *line[K]) before(other *line[K]) bool {
	if n := l.held.Len(); n != other.held.Len() || n == 0 {
		return n > other.held.Len()
	}
	return l.held.Front().Value.(*Place[K]).since.Before(other.held.Front().Value.(*Place[K]).since)
}

// Prolong lets a place's grace begin so much later than now.
func (g *Gate[K]) Prolong(p *Place[K], d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.since = time.Now().Add(d)
}

// Release gives a place back.
func (g *Gate[K]) Release(p *Place[K]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.line.held.Remove(p.element)
	g.inUse--
	g.admit(p.line)
}

// admit notes that l has changed, then gives away whatever places are free.
func (g *Gate[K]) admit(l *line[K]) {
	g.enqueue(l)
	for g.inUse < g.InAll && g.ready.Len() > 0 {
		l := g.ready.Remove(g.ready.Front()).(*line[K])
		l.queued = false
		if first := l.waiters.Front(); first != nil {
			p := l.waiters.Remove(first).(*Place[K])
			p.since, p.element = time.Now(), l.held.PushBack(p)
			close(p.admitted)
			g.inUse++
		}
		g.enqueue(l)
		g.drop(l)
	}
	g.drop(l)
}

func (g *Gate[K]) drop(l *line[K]) {
	if l.held.Len() == 0 && l.waiters.Len() == 0 && !l.queued {
		delete(g.lines, l.key)
	}
}

func (g *Gate[K]) enqueue(l *line[K]) {
	if !l.queued && l.waiters.Len() > 0 && l.held.Len() < g.PerKey {
		l.queued = true
		g.ready.PushBack(l)
	}
}

// Counts returns how many places the keys have of which is says so, and how many wait for one.
func (g *Gate[K]) Counts(is func(K) bool) (inUse, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, l := range g.lines {
		if is(key) {
			inUse += l.held.Len()
			waiting += l.waiters.Len()
		}
	}
	return inUse, waiting
}
