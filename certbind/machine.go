package certbind

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/x25519"
)

const (
	// DefaultWindow is how long a statement is made for, if MachineConfig does not say.
	DefaultWindow = 6 * time.Hour

	minWindow = 15 * time.Minute
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
	// NewStatic makes an X25519 key pair; package x25519 if nil.
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
	statements      map[string]*keptStatement // by account

	trust *Trust
	cache *cache
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
	key := x25519.Generate()
	defer key.Wipe()
	return key.Public, key.Private, nil
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
	t.inherit(m.Trust())
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
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.state.Load()
	next := &state{public: public, private: private, statements: make(map[string]*keptStatement)}
	switch {
	case c == nil && t == nil && old != nil:
		next.credential, next.leaf, next.trust, next.cache = old.credential, old.leaf, old.trust, old.cache
	case c == nil || t == nil:
		return errNoCredential
	default:
		if err := c.Keeps(m.name); err != nil {
			return err
		}
		next.credential, next.leaf, next.trust, next.cache = c, sha256.Sum256(c.Leaf.Raw), t, newCache()
	}
	m.state.Store(next)
	if old != nil {
		clear(old.private[:])
	}
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
