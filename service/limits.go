package service

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// Limits bounds what one account, and all together, may hold. A zero field means its default.
type Limits struct {
	// Handshakes is how many handshakes one uid may have under way in one direction (default 200). The directions are
	// counted apart: strangers on the network spend a server's, not the same account's own calls'.
	Handshakes int
	// TotalHandshakes is how many may be under way in all (default 2000).
	TotalHandshakes int
	// Connections is how many connections to the daemon one uid may hold (default 1024). All uids together may hold
	// three quarters of the process's limit on open files.
	Connections int
	// Streams is how many streams one uid may hold that are not a handshake under way (default 1024): no start request
	// yet, no bytes of the peer yet, or waiting in the queue. A stream above it that begins with a client_start is
	// still taken, so that silent strangers cannot stop an account's own calls. Of all streams together, of any service
	// and those under way included, one uid may hold twice the sum of Streams and Handshakes.
	Streams int
}

func (l *Limits) setDefaults() error {
	for _, f := range []struct {
		name     string
		v        *int
		standard int
	}{
		{"Handshakes", &l.Handshakes, 200},
		{"TotalHandshakes", &l.TotalHandshakes, 2000},
		{"Connections", &l.Connections, 1024},
		{"Streams", &l.Streams, 1024},
	} {
		if *f.v < 0 {
			return fmt.Errorf("service: limit %s is %d; it must be positive, or 0 for %d", f.name, *f.v, f.standard)
		}
		if *f.v == 0 {
			*f.v = f.standard
		}
	}
	return nil
}

// A gate admits handshakes: at most perAccount for each uid and direction, at most inAll together. Those who wait are
// served in order within their key, and the keys take turns at the places of all, so that a busy account delays only
// itself.
type gate struct {
	perAccount, inAll int

	mu      sync.Mutex
	inUse   [2]int // by Role
	waiting [2]int
	lines   map[gateKey]*line
	ready   list.List // of *line: those with a waiter and with room under perAccount, each once
}

type gateKey struct {
	uid  uint32
	role Role
}

type line struct {
	key     gateKey
	active  int
	waiters list.List // of chan struct{}, closed when admitted
	queued  bool      // is in gate.ready
}

func newGate(l Limits) *gate {
	return &gate{perAccount: l.Handshakes, inAll: l.TotalHandshakes, lines: make(map[gateKey]*line)}
}

// tryAcquire takes a place if one is free and nobody waits for it; true must be followed by one release of the same
// key.
func (g *gate) tryAcquire(key gateKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[key]
	if l == nil {
		l = &line{key: key}
	}
	if l.waiters.Len() > 0 || l.active >= g.perAccount || g.inUse[Initiator]+g.inUse[Responder] >= g.inAll {
		return false
	}
	g.lines[key] = l
	l.active++
	g.inUse[key.role]++
	return true
}

// acquire waits for a place until ctx is done; each nil must be followed by one release of the same key.
func (g *gate) acquire(ctx context.Context, key gateKey) error {
	admitted := make(chan struct{})
	g.mu.Lock()
	l := g.lines[key]
	if l == nil {
		l = &line{key: key}
		g.lines[key] = l
	}
	waiter := l.waiters.PushBack(admitted)
	g.waiting[key.role]++
	g.admit(l)
	g.mu.Unlock()

	select {
	case <-admitted:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-admitted: // at the same moment: the place is ours, so take it
		return nil
	default:
	}
	l.waiters.Remove(waiter)
	g.waiting[key.role]--
	g.admit(l)
	return ctx.Err()
}

func (g *gate) release(key gateKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[key]
	l.active--
	g.inUse[key.role]--
	g.admit(l)
}

// admit notes that l has changed, then gives away whatever places are free.
func (g *gate) admit(l *line) {
	g.enqueue(l)
	for g.inUse[Initiator]+g.inUse[Responder] < g.inAll && g.ready.Len() > 0 {
		l := g.ready.Remove(g.ready.Front()).(*line)
		l.queued = false
		if first := l.waiters.Front(); first != nil {
			close(l.waiters.Remove(first).(chan struct{}))
			g.waiting[l.key.role]--
			l.active++
			g.inUse[l.key.role]++
		}
		g.enqueue(l)
		g.drop(l)
	}
	g.drop(l)
}

func (g *gate) drop(l *line) {
	if l.active == 0 && l.waiters.Len() == 0 && !l.queued {
		delete(g.lines, l.key)
	}
}

func (g *gate) enqueue(l *line) {
	if !l.queued && l.waiters.Len() > 0 && l.active < g.perAccount {
		l.queued = true
		g.ready.PushBack(l)
	}
}

func (g *gate) counts() (inUse, waiting [2]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inUse, g.waiting
}

// A tally counts something: at most perAccount for each uid, at most inAll together.
type tally struct {
	perAccount, inAll int

	mu  sync.Mutex
	n   map[uint32]int
	all int
}

func newTally(perAccount, inAll int) *tally {
	return &tally{perAccount: perAccount, inAll: inAll, n: make(map[uint32]int)}
}

// enter counts one more, unless that is over the limit.
func (t *tally) enter(uid uint32) bool { return t.add(uid, 1) }

// leave takes back what one successful enter counted.
func (t *tally) leave(uid uint32) { t.add(uid, -1) }

// add counts n more, unless that is over the limit, or -n fewer.
func (t *tally) add(uid uint32, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > 0 && (t.n[uid]+n > t.perAccount || t.all+n > t.inAll) {
		return false
	}
	t.all += n
	if t.n[uid] += n; t.n[uid] == 0 {
		delete(t.n, uid)
	}
	return true
}

func (t *tally) sum() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}
