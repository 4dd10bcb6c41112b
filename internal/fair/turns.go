// Package fair shares the daemon's processor among accounts: work is done in turns, and what moves no handshake on has a
// budget. A key says whose it is.
package fair

import (
	"sync"
	"time"
)

// Turns lets so much work be done at once, and where more waits, whoever has used least lately goes next. Work must not
// wait for anything.
type Turns[K comparable] struct {
	mu       sync.Mutex
	free     int
	clock    time.Duration // where the one stood, in time used, that went last: who used less has no claim to the past
	accounts map[K]*user
	waiting  []*user // those with waiters
	all      int     // turns there are
}

type user struct {
	used    time.Duration
	busy    int // turns under way
	waiters []chan struct{}
}

// usersKept is how many accounts are kept before those that do nothing are forgotten.
const usersKept = 256

// NewTurns returns Turns with n turns at once.
func NewTurns[K comparable](n int) *Turns[K] {
	return &Turns[K]{free: n, all: n, accounts: make(map[K]*user)}
}

// Do does work for key when its turn has come.
func (t *Turns[K]) Do(key K, work func()) {
	u := t.enter(key)
	began := time.Now()
	defer func() { t.leave(u, time.Since(began)) }()
	work()
}

// TryDo does work for key if a turn is free and nobody waits for one, and reports whether it did.
func (t *Turns[K]) TryDo(key K, work func()) bool {
	t.mu.Lock()
	if t.free == 0 || len(t.waiting) > 0 {
		t.mu.Unlock()
		return false
	}
	u := t.of(key)
	t.start(u)
	t.mu.Unlock()
	began := time.Now()
	defer func() { t.leave(u, time.Since(began)) }()
	work()
	return true
}

// DoIdle does work that can wait for ever, in a turn that is nobody's, if no other is under way, and reports whether it did.
func (t *Turns[K]) DoIdle(work func()) bool {
	t.mu.Lock()
	if t.free < t.all {
		t.mu.Unlock()
		return false
	}
	t.free--
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pass()
	}()
	work()
	return true
}

// of returns the user of key, whose use begins no earlier than the clock.
func (t *Turns[K]) of(key K) *user {
	u := t.accounts[key]
	if u == nil {
		t.forget()
		u = new(user)
		t.accounts[key] = u
	}
	u.used = max(u.used, t.clock)
	return u
}

func (t *Turns[K]) enter(key K) *user {
	t.mu.Lock()
	u := t.of(key)
	if t.free > 0 && len(t.waiting) == 0 {
		t.start(u)
		t.mu.Unlock()
		return u
	}
	turn := make(chan struct{})
	if len(u.waiters) == 0 {
		t.waiting = append(t.waiting, u)
	}
	u.waiters = append(u.waiters, turn)
	t.mu.Unlock()
	<-turn
	return u
}

func (t *Turns[K]) start(u *user) {
	t.free--
	u.busy++
	t.clock = max(t.clock, u.used)
}

func (t *Turns[K]) leave(u *user, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u.used += took
	u.busy--
	t.pass()
}

// pass gives back a turn, and those that are free to who waits.
func (t *Turns[K]) pass() {
	t.free++
	for t.free > 0 && len(t.waiting) > 0 {
		at := 0
		for i, w := range t.waiting {
			if w.before(t.waiting[at]) {
				at = i
			}
		}
		next := t.waiting[at]
		t.start(next)
		close(next.waiters[0])
		next.waiters = next.waiters[1:]
		// To the end, so that equals take turns.
		t.waiting = append(t.waiting[:at], t.waiting[at+1:]...)
		if len(next.waiters) > 0 {
			t.waiting = append(t.waiting, next)
		}
	}
}

// before reports whether u goes before v: he has used less, what is under way counted as well.
func (u *user) before(v *user) bool {
	if u.busy != v.busy {
		return u.busy < v.busy
	}
	return u.used < v.used
}

// forget drops the accounts that do nothing, if there are many.
func (t *Turns[K]) forget() {
	if len(t.accounts) < usersKept {
		return
	}
	for k, u := range t.accounts {
		if u.busy == 0 && len(u.waiters) == 0 {
			delete(t.accounts, k)
		}
	}
}
