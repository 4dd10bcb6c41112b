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
	// Cached is how many identities are kept that were verified, DefaultCached if zero.
	Cached int
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
	cached    int // identities at most that a cache keeps

	// state is swapped as one, so that each call sees credential, static key, trust and cache that belong together.
	state atomic.Pointer[state]
	// mu is held to swap state, and to copy or wipe the private static key.
	mu sync.Mutex
	// reloading is held by one Reload after the other.
	reloading sync.Mutex
	limits    limits
	preparing atomic.Int32 // replacements whose statements are being signed

	signatures, verified, hits, failed atomic.Uint64
}

type state struct {
	credential *Credential
	*binding
	trust *Trust
	cache *cache
}

// A binding is a static key and the statements about it under one leaf.
type binding struct {
	leaf            [32]byte // SHA-256 of the leaf's DER
	public, private [32]byte
	statements      *statements
	dropped         atomic.Bool
}

// drop wipes the static key, about which nothing more is signed.
func (b *binding) drop() {
	b.dropped.Store(true)
	clear(b.private[:])
}

// NewMachine makes a Machine with a fresh static key.
func NewMachine(cfg MachineConfig) (*Machine, error) {
	m := &Machine{
		name: cfg.Name, window: cfg.Window, now: cfg.Now, logger: cfg.Logger, newStatic: cfg.NewStatic, limits: usualLimits,
		cached: cfg.Cached,
	}
	if m.window == 0 {
		m.window = DefaultWindow
	}
	if m.cached == 0 {
		m.cached = DefaultCached
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
	if cfg.Credential == nil || cfg.Trust == nil {
		return nil, errNoCredential
	}
	if err := cfg.Credential.Keeps(cfg.Trust, m.name); err != nil {
		return nil, err
	}
	b, err := m.newBinding(cfg.Credential)
	if err != nil {
		return nil, err
	}
	m.state.Store(&state{cfg.Credential, b, cfg.Trust, newCache(m.cached)})
	return m, nil
}

var errNoCredential = errors.New("a machine needs a credential and a trust")

// newBinding returns one with a fresh static key and no statements.
func (m *Machine) newBinding(c *Credential) (*binding, error) {
	b := &binding{leaf: sha256.Sum256(c.Leaf.Raw), statements: newStatements()}
	var err error
	if b.public, b.private, err = m.newStatic(); err != nil {
		return nil, fmt.Errorf("cannot make a static key: %w", err)
	}
	return b, nil
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

// Verify checks a peer's identity (docs/spec/protocol.md, section 5.5) against the static key that Noise authenticated and
// the trust in force now. Every error is a *reason.Error, or an *Unresolved, which holds one. A success is kept, so that the
// same identity costs no certificate work again while nothing has changed.
func (m *Machine) Verify(identity []byte, static [32]byte) (*Peer, error) {
	return m.VerifyAnswered(identity, static, nil)
}

// VerifyAnswered is Verify with what DNS has said of the machine that an *Unresolved named; nil if it was not asked. An answer
// about another machine, or one whose time is over, counts as none.
func (m *Machine) VerifyAnswered(identity []byte, static [32]byte, answer *Answer) (*Peer, error) {
	now := m.now()
	s := m.state.Load()
	key := cacheKey(identity)
	if p := s.cache.get(key, static, now); p != nil {
		m.hits.Add(1)
		return p, nil
	}
	o, err := s.trust.verify(identity, static, answer, now)
	if err != nil {
		if _, ok := err.(*Unresolved); !ok {
			m.failed.Add(1)
		}
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
	s := m.state.Load()
	return Stats{
		Signatures: m.signatures.Load(), Verified: m.verified.Load(), Cached: m.hits.Load(), Failed: m.failed.Load(),
		CacheSize: s.cache.len(), Statements: s.statements.len(),
	}
}
