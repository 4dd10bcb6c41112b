package certbind

import (
	"context"
	"errors"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// backdate is how long before it is signed a statement begins, so that clocks may differ by as much.
const backdate = 5 * time.Minute

// An Attestation is what one handshake needs to speak for an account: a consistent snapshot, owned by the caller.
type Attestation struct {
	// Public and Private are the X25519 static key pair.
	Public, Private [32]byte
	// Identity is the payload of docs/spec/protocol.md, section 5, at most 21504 bytes. It is shared: not to be changed.
	Identity []byte
	// NotAfter is the end of the statement, the leaf's at the latest.
	NotAfter time.Time
}

// Wipe zeroes the private key.
func (a *Attestation) Wipe() { clear(a.Private[:]) }

// Attest returns what is needed to speak for a local account, whose attributes are in ascending order. It signs only if
// there is no statement about the same account, attributes, static key and leaf before half of its life
// (docs/spec/protocol.md, section 5.6), and waits for a signature outside of this process only if there is none at all, not
// longer than ctx. Errors are *reason.Error: LocalAccount, OwnCertificate, Internal. They are never those of a
// verification, which would tell the peer that he is at fault.
func (m *Machine) Attest(ctx context.Context, account string, attrs []Attribute) (*Attestation, error) {
	now := m.now()
	for {
		m.mu.Lock()
		s := m.state.Load()
		att := &Attestation{Public: s.public, Private: s.private}
		m.mu.Unlock()
		err := m.attest(ctx, att, s, account, attrs, now)
		if err == nil {
			return att, nil
		}
		att.Wipe()
		// A reload came between, and the key of before was wiped.
		if now := m.state.Load(); !errors.Is(err, errWiped) || now.credential == s.credential && now.binding == s.binding {
			return nil, err
		}
	}
}

func (m *Machine) attest(ctx context.Context, att *Attestation, s *state, account string, attrs []Attribute, now time.Time) error {
	// What peers would refuse is refused here, where the cause can be told.
	if err := ValidAccount(account, s.trust.allowDomain); err != nil {
		return reason.Errorf(reason.LocalAccount, "this account cannot be attested: %w", err)
	}
	if err := validAttributes(attrs, s.trust.allowDomain); err != nil {
		return reason.Errorf(reason.LocalAccount, "the attributes of account %q cannot be attested: %w", account, err)
	}
	encoded, err := marshalAttributes(attrs)
	if err != nil {
		return reason.Errorf(reason.LocalAccount, "the attributes of account %q cannot be attested: %w", account, err)
	}
	if err := ownTime(s.credential, now); err != nil {
		return err
	}
	kept := s.statements.use(account, encoded, attrs, now)
	if att.Identity, att.NotAfter, err = m.current(ctx, kept, s.binding, s.credential, now); err != nil {
		return reason.Errorf(reason.Internal, "account %q cannot be attested: %w", account, err)
	}
	return nil
}

// Attested reports whether Attest would answer without waiting for a signature, which may take long where the key is an RSA
// key or in hardware.
func (m *Machine) Attested(account string, attrs []Attribute) bool {
	encoded, err := marshalAttributes(attrs)
	if err != nil {
		return true // with that error
	}
	s := m.state.Load()
	kept := s.statements.get(account, encoded)
	if kept == nil || !kept.mu.TryLock() {
		return false
	}
	defer kept.mu.Unlock()
	now := m.now()
	return kept.holds(now) && (now.Before(kept.renew) || s.credential.Outside())
}

// ownTime refuses to attest with a certificate that peers with the same clock would refuse by its time. How far a peer's
// clock is ahead or behind is the peer's to tell: a certificate is good until it ends.
func ownTime(c *Credential, now time.Time) error {
	switch leaf := c.Leaf; {
	case now.Before(leaf.NotBefore):
		return reason.Errorf(reason.OwnCertificate,
			"this machine's certificate is valid only from %s; check this machine's clock", stamp(leaf.NotBefore))
	case now.After(leaf.NotAfter):
		return reason.Errorf(reason.OwnCertificate,
			"this machine's certificate has expired at %s; have it renewed", stamp(leaf.NotAfter))
	}
	return nil
}
