package certbind

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A key outside of this process that has not signed for an account is not asked again for signAgain, where handshakes wait for
// it, so that none of them gets what holds it to lock up; and for renewAgain while the statement in hand holds.
const (
	signAgain  = time.Second
	renewAgain = 30 * time.Second
)

// turns hold an element for each signature that a key outside of this process makes: those that handshakes wait for, and all
// others.
type turns struct{ awaited, ahead chan struct{} }

func newTurns() *turns {
	return &turns{make(chan struct{}, usualLimits.signers), make(chan struct{}, usualLimits.signers)}
}

// A signing is a signature that is being made. err is set once done is closed.
type signing struct {
	done chan struct{}
	err  error
}

// current returns the identity by which a kept statement travels. One past half of its life is made anew: by a key in this
// process at once, by one outside beside the handshakes, which go on with the one in hand. Where there is none in hand the
// signature is waited for, as long as ctx is; it is made to its end in any case, for whoever comes next.
func (m *Machine) current(ctx context.Context, kept *keptStatement, b *binding, c *Credential, now time.Time) (identity []byte,
	notAfter time.Time, err error) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	holds := kept.holds(now)
	if holds && now.Before(kept.renew) {
		return kept.identity, kept.notAfter, nil
	}
	// A key that fails for a while, as one in hardware may, stops nobody before the statement in hand ends.
	pause := renewAgain
	if !holds {
		pause = signAgain
	}
	next := kept.signing
	// While a replacement is signed for, which makes it needless, and the statement in hand lasts that long.
	later := holds && m.preparing.Load() > 0 && kept.notAfter.Sub(now) > MaxPreparation
	if next == nil && (!c.Outside() || !later && (kept.failure == nil || now.Sub(kept.failed).Abs() >= pause)) {
		next = m.begin(kept, b, c, now, !holds)
	}
	if !holds {
		if next == nil {
			return nil, time.Time{}, kept.failure
		}
		kept.mu.Unlock()
		select {
		case <-next.done:
			err = next.err
		case <-ctx.Done():
			err = fmt.Errorf("the machine's private key has not signed yet: see whether what holds it works: %w", ctx.Err())
		}
		kept.mu.Lock()
		if err != nil {
			return nil, time.Time{}, err
		}
	}
	return kept.identity, kept.notAfter, nil
}

// begin has a new statement and identity made and kept; on an error what was kept is as before. By a key in this process that
// is done when it returns. One outside is asked for a few at a time, so that it works on nothing that was given up: what
// handshakes wait for goes by itself, and not behind all that is made ahead. It is called with the statement's lock held.
func (m *Machine) begin(kept *keptStatement, b *binding, c *Credential, now time.Time, awaited bool) *signing {
	s := &signing{done: make(chan struct{})}
	kept.signing = s
	if !c.Outside() {
		m.end(kept, s, c, m.sign(kept, b, c, now))
		close(s.done)
		return s
	}
	turn := c.turns.ahead
	if awaited {
		turn = c.turns.awaited
	}
	go func() {
		turn <- struct{}{}
		made := madeStatement{err: errWiped}
		for !b.dropped.Load() {
			made = m.sign(kept, b, c, m.now())
			now := m.state.Load()
			if !errors.Is(made.err, errWiped) || now.binding != b || now.credential == c {
				break
			}
			c = now.credential // of the same certificates, after a reload of something else
		}
		<-turn
		kept.mu.Lock()
		m.end(kept, s, c, made)
		kept.mu.Unlock()
		close(s.done)
	}()
	return s
}

// end keeps what was made. It is called with the statement's lock held.
func (m *Machine) end(kept *keptStatement, s *signing, c *Credential, made madeStatement) {
	kept.signing, s.err = nil, made.err
	if kept.failure = made.err; errors.Is(made.err, errWiped) {
		kept.failure = nil // the next key is none the worse for it
	}
	if made.err != nil {
		kept.failed = m.now()
		m.logger.Debug("signing failed; the earlier statement is used while it holds", "account", kept.account, "error", made.err)
		return
	}
	m.signatures.Add(1)
	kept.identity, kept.notBefore, kept.notAfter = made.identity, made.NotBefore, made.NotAfter
	kept.renew = made.NotBefore.Add(made.NotAfter.Sub(made.NotBefore) / 2)
	if !made.NotAfter.Before(c.Leaf.NotAfter) {
		kept.renew = made.NotAfter // a new one would end no later
	}
	m.logger.Debug("statement signed", "account", kept.account, "not_after", stamp(made.NotAfter))
}

// A madeStatement is a statement with the identity that has its signature, or why there is none.
type madeStatement struct {
	Statement
	identity []byte
	err      error
}

// sign makes a new statement and identity.
func (m *Machine) sign(kept *keptStatement, b *binding, c *Credential, now time.Time) (made madeStatement) {
	made.Statement = Statement{
		StaticKey: b.public, Leaf: b.leaf, Machine: m.name, Account: kept.account, Attributes: kept.attrs,
		NotBefore: now.Add(-backdate).Truncate(time.Second),
		NotAfter:  earlier(now.Add(m.window), c.Leaf.NotAfter).Truncate(time.Second),
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.limits.signature)
	defer cancel()
	id := Identity{Certificates: c.Chain}
	if id.Statement, id.Signature, made.err = c.Sign(ctx, &made.Statement); made.err != nil {
		return made
	}
	made.identity, made.err = id.Marshal()
	return made
}
