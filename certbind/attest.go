package certbind

import (
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
	// Identity is the payload of docs/protocol.md, section 5, at most 21504 bytes. It is shared: not to be changed.
	Identity []byte
	// NotAfter is the end of the statement, the leaf's at the latest.
	NotAfter time.Time
}

// Wipe zeroes the private key.
func (a *Attestation) Wipe() { clear(a.Private[:]) }

// Attest returns what is needed to speak for a local account, whose attributes are in ascending order. It signs only if
// there is no statement about the same account, attributes, static key and leaf before half of its life
// (docs/protocol.md, section 5.6). Errors are *reason.Error: LocalAccount, OwnCertificate, Internal. They are never those of
// a verification, which would tell the peer that he is at fault.
func (m *Machine) Attest(account string, attrs []Attribute) (*Attestation, error) {
	now := m.now()
	for {
		m.mu.Lock()
		s := m.state.Load()
		att := &Attestation{Public: s.public, Private: s.private}
		m.mu.Unlock()
		err := m.attest(att, s, account, attrs, now)
		if err == nil {
			return att, nil
		}
		att.Wipe()
		// A reload came between, and the key of before was wiped.
		if !errors.Is(err, errWiped) || m.state.Load().credential == s.credential {
			return nil, err
		}
	}
}

func (m *Machine) attest(att *Attestation, s *state, account string, attrs []Attribute, now time.Time) error {
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
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if holds := kept.holds(now); !holds || !now.Before(kept.renew) {
		if err := m.sign(kept, s.binding, s.credential, now); err != nil {
			// A key that fails for a while, as one in hardware may, stops nobody before the statement in hand ends.
			if !holds {
				return reason.Errorf(reason.Internal, "account %q cannot be attested: %w", account, err)
			}
			m.logger.Debug("signing failed; the earlier statement is used", "account", account, "error", err)
		}
	}
	att.Identity, att.NotAfter = kept.identity, kept.notAfter
	return nil
}

// Attested reports whether Attest would answer without a signature, which may take long where the key is an RSA key or in
// hardware.
func (m *Machine) Attested(account string, attrs []Attribute) bool {
	encoded, err := marshalAttributes(attrs)
	if err != nil {
		return true // with that error
	}
	kept := m.state.Load().statements.get(account, encoded)
	if kept == nil || !kept.mu.TryLock() {
		return false
	}
	defer kept.mu.Unlock()
	now := m.now()
	return kept.holds(now) && now.Before(kept.renew)
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

// sign makes a new statement and identity, and keeps them. On an error what was kept is as before. It is called with the
// statement's lock held.
func (m *Machine) sign(kept *keptStatement, b *binding, c *Credential, now time.Time) error {
	st := Statement{
		StaticKey: b.public, Leaf: b.leaf, Machine: m.name, Account: kept.account, Attributes: kept.attrs,
		NotBefore: now.Add(-backdate).Truncate(time.Second),
		NotAfter:  earlier(now.Add(m.window), c.Leaf.NotAfter).Truncate(time.Second),
	}
	statement, err := st.Marshal()
	if err != nil {
		return err
	}
	signature, err := c.Sign(statement)
	if err != nil {
		return err
	}
	m.signatures.Add(1)
	id := Identity{Certificates: c.Chain, Statement: statement, Signature: signature}
	identity, err := id.Marshal()
	if err != nil {
		return err
	}
	kept.identity, kept.notBefore, kept.notAfter = identity, st.NotBefore, st.NotAfter
	kept.renew = st.NotBefore.Add(st.NotAfter.Sub(st.NotBefore) / 2)
	if !st.NotAfter.Before(c.Leaf.NotAfter) {
		kept.renew = st.NotAfter // a new one would end no later
	}
	m.logger.Debug("statement signed", "account", kept.account, "not_after", stamp(st.NotAfter))
	return nil
}
