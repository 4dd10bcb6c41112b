package fair

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// A Meter is one account's part of a Budget.
type Meter interface {
	// Charge takes so many units, and waits, before or after, until the account has them. An error is ctx's.
	Charge(ctx context.Context, units int) error
	// TryCharge takes so many units if that needs no wait, and reports whether it did.
	TryCharge(units int) bool
}

// A Budget gives each account so many units a second, of which it may save some, and lets who has none wait. A unit
// stands for a microsecond of processor time.
type Budget[K comparable] struct {
	rate, maxSaved float64 // a second; saved

	mu       sync.Mutex
	accounts map[K]*balance
	limit    int // of accounts, at which those that owe nothing are forgotten
}

type balance struct {
	left    float64 // below 0: owed
	at      time.Time
	waiters list.List // of *waiter
	timer   *time.Timer
}

type waiter struct {
	units int
	paid  chan struct{}
}

// NewBudget returns a Budget of rate units a second, of which each account may save maxSaved.
func NewBudget[K comparable](rate, maxSaved int) *Budget[K] {
	return &Budget[K]{rate: float64(rate), maxSaved: float64(maxSaved), accounts: make(map[K]*balance),
		limit: usersKept}
}

// Of returns the meter of an account.
func (b *Budget[K]) Of(key K) Meter { return meter[K]{b, key} }

type meter[K comparable] struct {
	b   *Budget[K]
	key K
}

func (m meter[K]) Charge(ctx context.Context, units int) error { return m.b.Charge(ctx, m.key, units) }

func (m meter[K]) TryCharge(units int) bool { return m.b.Try(m.key, units) }

// Charge takes units from an account as soon as it has any, in the order of the calls.
func (b *Budget[K]) Charge(ctx context.Context, key K, units int) error {
	b.mu.Lock()
	a := b.balance(key)
	if a.waiters.Len() == 0 && a.left > 0 {
		a.left -= float64(units)
		b.mu.Unlock()
		return nil
	}
	w := &waiter{units, make(chan struct{})}
	e := a.waiters.PushBack(w)
	b.arm(a)
	b.mu.Unlock()
	select {
	case <-w.paid:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.waiters.Remove(e)
	return ctx.Err()
}

// Try takes units from an account if it has any and nobody waits, and reports whether it did.
func (b *Budget[K]) Try(key K, units int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.balance(key)
	ok := a.waiters.Len() == 0 && a.left > 0
	if ok {
		a.left -= float64(units)
	}
	return ok
}

// Credit gives an account units, as far as it may save them: for work that moved something on.
func (b *Budget[K]) Credit(key K, units int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.balance(key)
	a.left = min(b.maxSaved, a.left+float64(units))
	b.serve(a)
}

// balance returns an account as it stands now.
func (b *Budget[K]) balance(key K) *balance {
	now := time.Now()
	a := b.accounts[key]
	if a == nil {
		b.forget(now)
		a = &balance{left: b.maxSaved, at: now}
		b.accounts[key] = a
	}
	b.refill(a, now)
	return a
}

func (b *Budget[K]) refill(a *balance, now time.Time) {
	a.left = min(b.maxSaved, a.left+now.Sub(a.at).Seconds()*b.rate)
	a.at = now
}

// serve lets waiters go on while there is something left.
func (b *Budget[K]) serve(a *balance) {
	for a.left > 0 && a.waiters.Len() > 0 {
		w := a.waiters.Remove(a.waiters.Front()).(*waiter)
		a.left -= float64(w.units)
		close(w.paid)
	}
	b.arm(a)
}

// arm has the waiters looked at again when there will be something left.
func (b *Budget[K]) arm(a *balance) {
	if a.timer != nil || a.waiters.Len() == 0 {
		return
	}
	wait := max(time.Millisecond, time.Duration(-a.left/b.rate*float64(time.Second)))
	a.timer = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		a.timer = nil
		b.refill(a, time.Now())
		b.serve(a)
	})
}

// forget drops accounts that have all they may save, if there are many.
func (b *Budget[K]) forget(now time.Time) {
	if len(b.accounts) < b.limit {
		return
	}
	for k, a := range b.accounts {
		if b.refill(a, now); a.left >= b.maxSaved && a.waiters.Len() == 0 {
			delete(b.accounts, k)
		}
	}
	b.limit = max(usersKept, 2*len(b.accounts))
}
