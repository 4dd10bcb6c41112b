package fair

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// Rule 41: who has used little goes before the many turns of who has used much, and no more turns run than may.
func TestRule41LeastUsedGoesNext(t *testing.T) {
	turns := NewTurns[string](1)
	var running, most atomic.Int32
	work := func(d time.Duration) func() {
		return func() {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			spin(d)
			running.Add(-1)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var loud atomic.Int64
	for range 200 {
		wg.Go(func() {
			for ctx.Err() == nil {
				turns.Do("loud", work(200*time.Microsecond))
				loud.Add(1)
			}
		})
	}
	for loud.Load() < 10 {
		time.Sleep(time.Millisecond)
	}
	var before int64
	for range 20 {
		at := loud.Load()
		turns.Do("quiet", work(100*time.Microsecond))
		before += loud.Load() - at
		time.Sleep(time.Millisecond)
	}
	cancel()
	wg.Wait()
	if before > 20*40 { // a queue would have had 200 before each
		t.Errorf("%d turns of another account went before 20", before)
	}
	if most.Load() != 1 {
		t.Errorf("%d turns at once", most.Load())
	}
}

func TestTurnsForget(t *testing.T) {
	turns := NewTurns[int](2)
	for i := range 10_000 {
		turns.Do(i, func() {})
	}
	if n := len(turns.accounts); n > 2*usersKept {
		t.Errorf("%d accounts are kept", n)
	}
	func() {
		defer func() { _ = recover() }()
		turns.Do(1, func() { panic("x") })
	}()
	if turns.free != 2 {
		t.Errorf("%d turns are free after a panic", turns.free)
	}
}

// Rule 41: idle work is done only when no turn is under way, and takes one of them.
func TestRule41SpareWorkWaits(t *testing.T) {
	turns := NewTurns[string](2)
	turns.Do("a", func() {
		if turns.DoIdle(func() {}) || !turns.TryDo("b", func() {}) {
			t.Error("idle work was done, or other work was not, while one of two turns was free")
		}
	})
	if !turns.DoIdle(func() {
		if turns.DoIdle(func() {}) || !turns.TryDo("a", func() {
			if turns.TryDo("b", func() {}) {
				t.Error("three turns at once")
			}
		}) {
			t.Error("idle work was done twice at once, or holds up what has a turn free")
		}
	}) {
		t.Error("idle work was not done though nothing else was")
	}
	var waits sync.WaitGroup
	turns = NewTurns[string](1)
	turns.DoIdle(func() {
		waits.Go(func() { turns.Do("a", func() {}) })
		for queued := false; !queued; time.Sleep(time.Millisecond) {
			turns.mu.Lock()
			queued = len(turns.waiting) == 1
			turns.mu.Unlock()
		}
	})
	waits.Wait() // it went when the idle work was done
}

// Rule 41: junk has a rate, for each account its own; what moves something on gives it back.
func TestRule41Budget(t *testing.T) {
	b := NewBudget[string](10_000, 1000)
	began := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if err := b.Of("loud").Charge(t.Context(), 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took < 280*time.Millisecond { // 4000 units less 1000 at 10,000 a second, less the last
		t.Errorf("4000 units took %v", took)
	}
	if b.Charge(t.Context(), "quiet", 1); time.Since(began) > 10*time.Second {
		t.Error("another account waited")
	}
	b.Charge(t.Context(), "debtor", 1_000_000)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if b.Charge(ctx, "debtor", 1) == nil {
		t.Error("who owes is not waited for")
	}
	paid := make(chan error, 1)
	go func() { paid <- b.Charge(t.Context(), "debtor", 1) }()
	b.Credit("debtor", 2_000_000)
	if err := <-paid; err != nil {
		t.Error(err)
	}
	for i := range 10_000 {
		b.Credit(string(rune(i+0x10000)), 1)
	}
	if n := len(b.accounts); n > 2*usersKept {
		t.Errorf("%d accounts are kept", n)
	}
}

func BenchmarkTurn(b *testing.B) {
	turns := NewTurns[int](4)
	for b.Loop() {
		turns.Do(1, func() {})
	}
}

func BenchmarkCharge(b *testing.B) {
	m := NewBudget[int](1<<40, 1<<40).Of(1)
	for b.Loop() {
		m.Charge(b.Context(), 1)
	}
}

// TryDo does not wait, and what it does counts.
func TestTryDo(t *testing.T) {
	turns := NewTurns[string](1)
	refused := false
	work := func() {
		refused = !turns.TryDo("b", func() {})
		spin(time.Millisecond)
	}
	if !turns.TryDo("a", work) || !refused {
		t.Error("a free turn is not taken, or one that is not free is")
	}
	if used := turns.accounts["a"].used; used < time.Millisecond {
		t.Errorf("counted as %v", used)
	}
}

// TryCharge takes what is there, and nothing else.
func TestTryCharge(t *testing.T) {
	m := NewBudget[string](1, 10).Of("a")
	if !m.TryCharge(5) || !m.TryCharge(7) || m.TryCharge(1) {
		t.Error("units that are there are not taken, or others are")
	}
}
