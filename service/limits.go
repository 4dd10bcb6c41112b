package service

import (
	"fmt"
	"sync"
)

// Limits bounds what one account, and all together, may hold. A listener that is limited to uids counts as one account,
// and so do all uids without a name. A zero field means its default.
type Limits struct {
	// Handshakes is how many handshakes one account may have under way in one direction (default 200). The directions are
	// counted apart: strangers on the network spend a server's, not the same account's own calls'. One whose library stands still
	// until it is answered, and so cannot wait for a place, may have twice as many.
	Handshakes int
	// HandshakesInAll is how many may be under way in all (default 2000).
	HandshakesInAll int
	// Connections is how many connections to the daemon one account may hold (default 1024). All together may hold
	// three quarters of the process's limit on open files.
	Connections int
	// Streams is how many streams one account may hold that are not a handshake under way (default 1024): no start request
	// yet, no bytes of the peer yet, or waiting in the queue. A stream above it that begins with a client_start is
	// still taken, so that silent strangers cannot stop an account's own calls. Of all streams together, of any service
	// and those under way included, one account may hold twice the sum of Streams and Handshakes.
	Streams int
}

func (l *Limits) setDefaults() error {
	for _, f := range []struct {
		name     string
		v        *int
		standard int
	}{
		{"Handshakes", &l.Handshakes, 200},
		{"HandshakesInAll", &l.HandshakesInAll, 2000},
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

// A tally counts something: at most perAccount for each key, at most inAll together.
type tally[K comparable] struct {
	perAccount, inAll int

	mu  sync.Mutex
	n   map[K]int
	all int
}

func newTally[K comparable](perAccount, inAll int) *tally[K] {
	return &tally[K]{perAccount: perAccount, inAll: inAll, n: make(map[K]int)}
}

// enter counts one more, unless that is over the limit.
func (t *tally[K]) enter(key K) bool { return t.add(key, 1) }

// leave takes back what one successful enter counted.
func (t *tally[K]) leave(key K) { t.add(key, -1) }

// add counts n more, unless that is over the limit, or -n fewer.
func (t *tally[K]) add(key K, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > 0 && (t.n[key]+n > t.perAccount || t.all+n > t.inAll) {
		return false
	}
	t.all += n
	if t.n[key] += n; t.n[key] == 0 {
		delete(t.n, key)
	}
	return true
}

// yields reports whether one more of key is within the limit, or would be if who has most gave way: that is no more than an
// eighth at a time. t.mu is held.
func (t *tally[K]) yields(key K) bool {
	if t.n[key] >= t.perAccount || t.all >= t.inAll+t.inAll/8 {
		return false
	}
	_, most := t.most()
	return t.all < t.inAll || most > t.n[key]+1
}

// most returns the key that has most, and how many; t.mu is held.
func (t *tally[K]) most() (key K, n int) {
	for k, m := range t.n {
		if m > n {
			key, n = k, m
		}
	}
	return key, n
}

// room reports whether enterFair would count one more.
func (t *tally[K]) room(key K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.yields(key)
}

// enterFair is enter, but over the limit of all, too, for who has less than another. Over says how many are too many then,
// and whose.
func (t *tally[K]) enterFair(key K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.yields(key) {
		return false
	}
	t.all++
	t.n[key]++
	return true
}

// over returns how many are over the limit of all, and who has most.
func (t *tally[K]) over() (n int, whose K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whose, _ = t.most()
	return t.all - t.inAll, whose
}

func (t *tally[K]) sum() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}
