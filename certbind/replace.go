package certbind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// limits are what the replacement of a key may take.
type limits struct {
	// proof is how long the first signature may take, signature any other, statements all that are in use, which signers make
	// at a time.
	proof, signature, statements time.Duration
	signers                      int
}

// MaxPreparation is how long Reload and RotateStatic take at most, about, however slow the key is.
const MaxPreparation = maxSigned + 2*maxProof

const (
	maxProof  = 30 * time.Second
	maxSigned = 5 * time.Minute // 500 accounts with a device that takes half a second
)

var usualLimits = limits{proof: maxProof, signature: time.Minute, statements: maxSigned, signers: 4}

// Reload puts credential and trust in force as one, with an empty cache. Where the certificates are those in force, static
// key and statements stay. Else there is a fresh static key, and what was in force serves until the statements of accounts
// that were used in the last hour are signed, for MaxPreparation or to the old certificate's end at most. A credential that
// does not prove the machine's name, or whose key does not sign, is refused and everything stays as it was. Attestations
// that have been handed out are not touched.
func (m *Machine) Reload(c *Credential, t *Trust) error {
	if c == nil || t == nil {
		return errNoCredential
	}
	if err := c.Keeps(t, m.name); err != nil {
		return err
	}
	m.reloading.Lock()
	defer m.reloading.Unlock()
	var next *binding
	if !slices.EqualFunc(m.Credential().Chain, c.Chain, bytes.Equal) {
		var err error
		if next, err = m.newBinding(c); err != nil {
			return err
		}
		if err := m.prepare(next, func() *Credential { return c }); err != nil {
			next.drop()
			return err
		}
	} else if old := m.Credential(); old != c {
		c.last.Store(old.last.Load())
		c.turns = old.turns
	}
	t.inherit(m.Trust())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(c, next, t, newCache(m.cached))
	return nil
}

// RotateStatic replaces the static key and makes the statements about it that are in use, while the old ones serve; then
// the old key is wiped. If the machine's key does not sign, the old static key stays, and it is to be tried again soon.
// Attestations that have been handed out hold copies and are not touched.
func (m *Machine) RotateStatic() error {
	old := m.state.Load()
	next, err := m.newBinding(old.credential)
	if err != nil {
		return err
	}
	err = m.prepare(next, func() *Credential {
		if s := m.state.Load(); s.binding == old.binding {
			return s.credential
		}
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state.Load()
	if err != nil || s.binding != old.binding {
		next.drop()
		if s.binding != old.binding {
			return nil // a reload has replaced it
		}
		return err
	}
	m.put(s.credential, next, s.trust, s.cache)
	return nil
}

// put puts a state in force, and wipes the static key of a binding that it replaces; a nil b keeps it. It is called with mu
// held.
func (m *Machine) put(c *Credential, b *binding, t *Trust, cached *cache) {
	old := m.state.Load().binding
	if b == nil {
		b = old
	}
	m.state.Store(&state{c, b, t, cached})
	if b != old {
		old.drop()
	}
}

// prepare signs the statements of next that are in use by now, so that no handshake waits for them. It fails if the key of
// the credential does not sign: at the start, at the end if a signature failed on the way, or not one in all that time.
// What is not signed in time is left to the handshakes that need it. credential returns what to sign with, nil for nothing
// any more.
func (m *Machine) prepare(next *binding, credential func() *Credential) error {
	m.preparing.Add(1)
	defer m.preparing.Add(-1)
	if err := m.prove(credential); err != nil {
		return err
	}
	c, now := credential(), m.now()
	if c == nil || ownTime(c, now) != nil {
		return nil
	}
	// A certificate that ends meanwhile serves nobody.
	limit := min(m.limits.statements, m.Credential().Leaf.NotAfter.Sub(now))
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	signed, failed := 0, false
	// What came into use during a pass is for the next one, though not without end.
	for range 3 {
		waiting := next.statements.follow(m.state.Load().statements, m.now())
		if len(waiting) == 0 {
			break
		}
		n, err := m.signAll(ctx, next, waiting, credential)
		signed, failed = signed+n, failed || err != nil
		if ctx.Err() != nil {
			if signed == 0 && limit == m.limits.statements {
				return fmt.Errorf("the machine's private key did not sign one statement within %v; see whether what holds it works",
					limit)
			}
			return nil
		}
	}
	if failed {
		return m.prove(credential)
	}
	return nil
}

// signAll signs what waits, some at a time, and returns how many it has signed and the first failure. When ctx ends it
// returns, and begins no other.
func (m *Machine) signAll(ctx context.Context, next *binding, waiting []*keptStatement,
	credential func() *Credential) (signed int, failure error) {
	queue := make(chan *keptStatement, len(waiting))
	for _, kept := range waiting {
		queue <- kept
	}
	close(queue)
	outcomes := make(chan error, len(waiting))
	signers := m.limits.signers
	if c := credential(); c != nil && !c.Outside() {
		signers = max(1, runtime.GOMAXPROCS(0)/2) // handshakes need the processor as well
	}
	for range min(signers, len(waiting)) {
		go func() {
			for kept := range queue {
				if ctx.Err() != nil {
					return
				}
				outcomes <- m.signAhead(kept, next, credential)
			}
		}()
	}
	for range waiting {
		select {
		case err := <-outcomes:
			if err == nil {
				signed++
			} else if failure == nil {
				failure = err
				m.logger.Debug("a statement was not signed ahead", "error", err)
			}
		case <-ctx.Done():
			return signed, failure
		}
	}
	return signed, failure
}

func (m *Machine) signAhead(kept *keptStatement, next *binding, credential func() *Credential) error {
	return withCurrent(credential, func(c *Credential) error {
		kept.mu.Lock()
		s := kept.signing
		if s == nil && !kept.holds(m.now()) { // else since a handshake that did not wait for it
			s = m.begin(kept, next, c, m.now(), false)
		}
		kept.mu.Unlock()
		if s == nil {
			return nil
		}
		<-s.done
		return s.err
	})
}

// prove sees that the key signs at all.
func (m *Machine) prove(credential func() *Credential) error {
	return withCurrent(credential, func(c *Credential) error { return c.prove(m.limits.proof) })
}

// withCurrent does what needs a signature, and does it again if the credential was wiped because another has taken its
// place.
func withCurrent(credential func() *Credential, do func(*Credential) error) error {
	for {
		c := credential()
		if c == nil {
			return errWiped
		}
		if err := do(c); !errors.Is(err, errWiped) || credential() == c {
			return err
		}
	}
}
