package gate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// A testKey is that of an account's servers, or of its clients.
type testKey struct {
	account int
	server  bool
}

func (k testKey) GivesWay() bool { return k.server }

// Waiters are first come, first served within their key, and the keys take turns.
func TestRule24FairQueue(t *testing.T) {
	g := New[testKey](2, 3)
	alice, aliceIn, bob := testKey{1, false}, testKey{1, true}, testKey{2, false}
	held := map[testKey][]*Place[testKey]{}
	for _, k := range []testKey{alice, alice, bob} {
		p, err := g.Acquire(t.Context(), k, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		held[k] = append(held[k], p)
	}
	admitted := make(chan *Place[testKey], 10)
	order := make(chan string)
	wait := func(k testKey, name string) {
		is := func(other testKey) bool { return other == k }
		_, before := g.Counts(is)
		go func() {
			if p, err := g.Acquire(t.Context(), k, false, nil); err == nil {
				admitted <- p
				order <- name
			}
		}()
		for { // until it stands in the queue
			if _, now := g.Counts(is); now > before {
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	wait(bob, "bob 1")
	wait(bob, "bob 2")
	wait(bob, "bob 3")
	wait(aliceIn, "alice in 1")
	wait(alice, "alice 1")
	var got []string
	release := func(k testKey) {
		for len(admitted) > 0 {
			p := <-admitted
			held[p.line.key] = append(held[p.line.key], p)
		}
		g.Release(held[k][0])
		held[k] = held[k][1:]
	}
	next := func(done testKey) {
		release(done)
		got = append(got, <-order)
	}
	next(bob)     // bob 1 has waited longest
	next(bob)     // the other direction of alice has its turn before bob 2
	next(alice)   // bob 2, for alice had no room of her own when he came
	next(aliceIn) // alice 1, who has room again, but came behind
	next(alice)
	want := []string{"bob 1", "alice in 1", "bob 2", "alice 1", "bob 3"}
	if !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	for _, k := range []testKey{alice, bob, bob} {
		release(k)
	}
	if len(g.lines) != 0 || g.ready.Len() != 0 {
		t.Errorf("%d lines and %d ready are left", len(g.lines), g.ready.Len())
	}
	if in, waiting := g.Counts(func(testKey) bool { return true }); in != 0 || waiting != 0 || g.inUse != 0 {
		t.Errorf("%d under way, %d waiting, %d in use are left", in, waiting, g.inUse)
	}
}

// A waiter that gives up leaves nothing behind.
func TestGateGivesUp(t *testing.T) {
	g := New[testKey](1, 1)
	k, other := testKey{1, false}, testKey{2, false}
	held, err := g.Acquire(t.Context(), k, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []testKey{k, other} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := g.Acquire(ctx, key, false, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire: %v", err)
		}
		cancel()
	}
	g.Release(held)
	if len(g.lines) != 0 || g.ready.Len() != 0 {
		t.Errorf("%d lines and %d ready are left", len(g.lines), g.ready.Len())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := g.Acquire(ended, other, false, nil); err == nil {
		g.Release(p) // there was room
	}
}
