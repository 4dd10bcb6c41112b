package certbind

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

const (
	// DefaultWindow is how long a statement is made for, if MachineConfig does not say.
	DefaultWindow = 6 * time.Hour

	backdate     = 5 * time.Minute // so that clocks may differ by as much
	minRemaining = 5 * time.Minute // the least life of a statement that is handed out
	minWindow    = 15 * time.Minute

	// maxStatements bounds the statements kept, one an account.
	maxStatements = 4096
)

// MachineConfig describes this machine. Credential, Name and Trust are required.
type MachineConfig struct {
	Credential *Credential
	// Name is the machine's name, as Credential.MachineName returns it.
	Name  string
	Trust *Trust
	// Window is how long a statement is made for from now: 15 minutes to 23 h 55 min, DefaultWindow if zero.
	Window time.Duration
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger gets lines at level debug only. nil: none.
	Logger *slog.Logger
	// NewStatic makes an X25519 key pair; crypto/ecdh if nil.
	NewStatic func() (public, private [32]byte, err error)
}

// A Machine is this machine's side of the binding: it attests local accounts and verifies peers. It is safe for
// concurrent use.
type Machine struct {
	name      string
	window    time.Duration
	now       func() time.Time
	logger    *slog.Logger
	newStatic func() (public, private [32]byte, err error)

	// state is swapped as one, so that each call sees credential, static key, trust and cache that belong together.
	state atomic.Pointer[state]
	// mu is held to swap state, and to copy or wipe the private static key or to use the statements in it.
	mu sync.Mutex

	signatures, verified, hits, failed atomic.Uint64
}

type state struct {
	credential      *Credential
	leaf            [32]byte // SHA-256 of the leaf's DER
	public, private [32]byte
	key             *ecdh.PrivateKey          // private, ready for use
	statements      map[string]*statementSlot // by account

	trust *Trust
	cache *cache
}

// A statementSlot holds an account's current statement. Its lock is held while signing, so that concurrent callers of
// an account wait for one signature, and callers of other accounts do not wait.
type statementSlot struct {
	mu                         sync.Mutex
	attributes                 []byte // as they were signed
	identity                   []byte
	notBefore, renew, notAfter time.Time
}

// NewMachine makes a Machine with a fresh static key.
func NewMachine(cfg MachineConfig) (*Machine, error) {
	m := &Machine{
		name: cfg.Name, window: cfg.Window, now: cfg.Now, logger: cfg.Logger, newStatic: cfg.NewStatic,
	}
	if m.window == 0 {
		m.window = DefaultWindow
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.logger == nil {
		m.logger = slog.New(slog.DiscardHandler)
	}
	if m.newStatic == nil {
		m.newStatic = newX25519
	}
	if m.window < minWindow || m.window > maxWindow-backdate {
		return nil, fmt.Errorf("statements cannot be made for %v; choose %v to %v", m.window, minWindow, maxWindow-backdate)
	}
	if err := ValidMachineName(m.name); err != nil {
		return nil, fmt.Errorf("cannot use the machine name %q: %w", m.name, err)
	}
	if err := m.swap(cfg.Credential, cfg.Trust); err != nil {
		return nil, err
	}
	return m, nil
}

func newX25519() (public, private [32]byte, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return public, private, err
	}
	b := key.Bytes()
	defer clear(b)
	return [32]byte(key.PublicKey().Bytes()), [32]byte(b), nil
}

// Name returns the machine's name, which never changes.
func (m *Machine) Name() string { return m.name }

// Credential returns the credential in force.
func (m *Machine) Credential() *Credential { return m.state.Load().credential }

// Trust returns the trust in force.
func (m *Machine) Trust() *Trust { return m.state.Load().trust }

// Reload puts credential and trust in force as one, with a fresh static key, no statements and an empty cache. A
// credential that does not prove the machine's name is refused and everything stays as it was. Attestations that have
// been handed out are not touched.
func (m *Machine) Reload(c *Credential, t *Trust) error {
	if c == nil || t == nil {
		return errNoCredential
	}
	return m.swap(c, t)
}

var errNoCredential = errors.New("a machine needs a credential and a trust")

// RotateStatic replaces the static key and drops the statements about the old one, which is wiped. Attestations that
// have been handed out hold copies and are not touched.
func (m *Machine) RotateStatic() error { return m.swap(nil, nil) }

// swap puts a new state in force with a fresh static key. nil for c and t keeps both, and the cache with them.
func (m *Machine) swap(c *Credential, t *Trust) error {
	public, private, err := m.newStatic()
	if err != nil {
		return fmt.Errorf("cannot make a static key: %w", err)
	}
	defer clear(private[:])
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return fmt.Errorf("cannot use a static key: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.state.Load()
	next := &state{public: public, private: private, key: key, statements: make(map[string]*statementSlot)}
	switch {
	case c == nil && t == nil && old != nil:
		next.credential, next.leaf, next.trust, next.cache = old.credential, old.leaf, old.trust, old.cache
	case c == nil || t == nil:
		return errNoCredential
	case !hasName(c.Leaf, m.name):
		return fmt.Errorf("the certificate does not have the machine's name, %q, among its DNS names; "+
			"have it issued with that name, or restart the daemon to take a new one", m.name)
	default:
		next.credential, next.leaf, next.trust, next.cache = c, sha256.Sum256(c.Leaf.Raw), t, newCache()
	}
	m.state.Store(next)
	if old != nil {
		clear(old.private[:])
	}
	return nil
}

// An Attestation is what one handshake needs to speak for an account: a consistent snapshot, owned by the caller.
type Attestation struct {
	// Public and Private are the X25519 static key pair.
	Public, Private [32]byte
	// Key is Private made ready for use, which costs a scalar multiplication; nil: whoever uses Private has to. It is
	// shared, does not change, and goes when the last handshake with it ends.
	Key *ecdh.PrivateKey
	// Identity is the payload of docs/protocol.md, section 5, at most 21504 bytes. It is shared: not to be changed.
	Identity []byte
	// NotAfter is the end of the statement, at least 5 minutes from now.
	NotAfter time.Time
}

// Wipe zeroes the private key and lets go of Key.
func (a *Attestation) Wipe() {
	clear(a.Private[:])
	a.Key = nil
}

// Attest returns what is needed to speak for a local account, whose attributes are in ascending order. It signs only if
// there is no statement about the same account, attributes, static key and leaf before half of its life
// (docs/protocol.md, section 5.6). Errors are *reason.Error: AccountUnacceptable, CertificateExpired,
// CertificateNotYetValid, Internal.
func (m *Machine) Attest(account string, attrs []Attribute) (*Attestation, error) {
	now := m.now()
	for {
		m.mu.Lock()
		s := m.state.Load()
		att := &Attestation{Public: s.public, Private: s.private, Key: s.key}
		m.mu.Unlock()
		err := m.attest(att, s, account, attrs, now)
		if err == nil {
			return att, nil
		}
		att.Wipe()
		// A reload came between, and the key of before was wiped.
		if !errors.Is(err, errWiped) || m.state.Load() == s {
			return nil, err
		}
	}
}

func (m *Machine) attest(att *Attestation, s *state, account string, attrs []Attribute, now time.Time) error {
	// What peers would refuse is refused here, where the cause can be told.
	if err := ValidAccount(account, s.trust.allowDomain); err != nil {
		return reason.Errorf(reason.AccountUnacceptable, "this account cannot be attested: %w", err)
	}
	if err := validAttributes(attrs, s.trust.allowDomain); err != nil {
		return reason.Errorf(reason.AccountUnacceptable, "the attributes of account %q cannot be attested: %w", account, err)
	}
	encoded, err := marshalAttributes(attrs)
	if err != nil {
		return reason.Errorf(reason.AccountUnacceptable, "the attributes of account %q cannot be attested: %w", account, err)
	}
	if err := ownTime(s.credential, now); err != nil {
		return err
	}
	slot := m.slot(s, account)
	slot.mu.Lock()
	defer slot.mu.Unlock()
	fresh := slot.identity != nil && bytes.Equal(slot.attributes, encoded) && !now.Before(slot.notBefore)
	if !fresh || !now.Before(slot.renew) || slot.notAfter.Sub(now) < minRemaining {
		if err := m.sign(slot, s, account, attrs, now); err != nil {
			// A key that fails for a while, as one in hardware may, stops nobody before the statement in hand ends.
			if !fresh || slot.notAfter.Sub(now) < minRemaining {
				return reason.Errorf(reason.Internal, "account %q cannot be attested: %w", account, err)
			}
			m.logger.Debug("signing failed; the earlier statement is used", "account", account, "error", err)
		} else {
			slot.attributes = encoded
		}
	}
	att.Identity, att.NotAfter = slot.identity, slot.notAfter
	return nil
}

// Attested reports whether Attest would answer without a signature, which may take long where the key is an RSA key or in
// hardware.
func (m *Machine) Attested(account string, attrs []Attribute) bool {
	encoded, err := marshalAttributes(attrs)
	if err != nil {
		return true // with that error
	}
	m.mu.Lock()
	slot := m.state.Load().statements[account]
	m.mu.Unlock()
	if slot == nil || !slot.mu.TryLock() {
		return false
	}
	defer slot.mu.Unlock()
	now := m.now()
	return slot.identity != nil && bytes.Equal(slot.attributes, encoded) && !now.Before(slot.notBefore) &&
		now.Before(slot.renew) && slot.notAfter.Sub(now) >= minRemaining
}

// ownTime refuses to attest with a certificate that peers would refuse by its time, or that has too little left.
func ownTime(c *Credential, now time.Time) error {
	switch leaf := c.Leaf; {
	case now.Before(leaf.NotBefore):
		return reason.Errorf(reason.CertificateNotYetValid,
			"this machine's certificate is valid only from %s; check this machine's clock", stamp(leaf.NotBefore))
	case now.After(leaf.NotAfter):
		return reason.Errorf(reason.CertificateExpired,
			"this machine's certificate has expired at %s; have it renewed", stamp(leaf.NotAfter))
	case leaf.NotAfter.Sub(now) < minRemaining:
		return reason.Errorf(reason.CertificateExpired,
			"this machine's certificate expires at %s, too soon for a statement of at least %v; have it renewed",
			stamp(leaf.NotAfter), minRemaining)
	}
	return nil
}

// slot finds or makes the account's place among the statements. If there are too many, some other is dropped: its
// account costs one more signature, no more.
func (m *Machine) slot(s *state, account string) *statementSlot {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := s.statements[account]
	if slot == nil {
		if len(s.statements) >= maxStatements {
			for other := range s.statements {
				delete(s.statements, other)
				break
			}
		}
		slot = new(statementSlot)
		s.statements[account] = slot
	}
	return slot
}

// sign makes a new statement and identity in the slot. On an error the slot is as before.
func (m *Machine) sign(slot *statementSlot, s *state, account string, attrs []Attribute, now time.Time) error {
	st := Statement{
		StaticKey: s.public, Leaf: s.leaf, Machine: m.name, Account: account, Attributes: attrs,
		NotBefore: now.Add(-backdate).Truncate(time.Second),
		NotAfter:  earlier(now.Add(m.window), s.credential.Leaf.NotAfter).Truncate(time.Second),
	}
	statement, err := st.Marshal()
	if err != nil {
		return err
	}
	signature, err := s.credential.Sign(statement)
	if err != nil {
		return err
	}
	m.signatures.Add(1)
	id := Identity{Certificates: s.credential.Chain, Statement: statement, Signature: signature}
	identity, err := id.Marshal()
	if err != nil {
		return err
	}
	slot.identity, slot.notBefore, slot.notAfter = identity, st.NotBefore, st.NotAfter
	slot.renew = st.NotBefore.Add(st.NotAfter.Sub(st.NotBefore) / 2)
	m.logger.Debug("statement signed", "account", account, "not_after", stamp(st.NotAfter))
	return nil
}

// Verify checks a peer's identity (docs/protocol.md, section 5.5) against the static key that Noise authenticated and
// the trust in force now. Every error is a *reason.Error. A success is kept, so that the same identity costs no
// certificate work again while nothing has changed.
func (m *Machine) Verify(identity []byte, static [32]byte) (*Peer, error) {
	now := m.now()
	s := m.state.Load()
	key := cacheKey(identity)
	if p := s.cache.get(key, static, now); p != nil {
		m.hits.Add(1)
		return p, nil
	}
	o, err := s.trust.verify(identity, static, now)
	if err != nil {
		m.failed.Add(1)
		return nil, err
	}
	m.verified.Add(1)
	p := o.peer
	p.Attributes = slices.Clone(p.Attributes)
	s.cache.put(key, o)
	m.logger.Debug("peer verified", "peer", p.String(), "not_after", stamp(p.NotAfter))
	return &p, nil
}

// Stats counts what a Machine has done since it was made.
type Stats struct {
	// Signatures is how many statements were signed.
	Signatures uint64
	// Verified, Cached and Failed are the verifications done in full, answered from the cache, and refused.
	Verified, Cached, Failed uint64
	// CacheSize and Statements are how many peers and own statements are held now.
	CacheSize, Statements int
}

// Stats returns the counters.
func (m *Machine) Stats() Stats {
	m.mu.Lock()
	s := m.state.Load()
	statements := len(s.statements)
	m.mu.Unlock()
	return Stats{
		Signatures: m.signatures.Load(), Verified: m.verified.Load(), Cached: m.hits.Load(), Failed: m.failed.Load(),
		CacheSize: s.cache.len(), Statements: statements,
	}
}
