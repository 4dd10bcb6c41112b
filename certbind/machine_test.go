package certbind

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"io"
	"math/big"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestAttestVerify(t *testing.T) {
	for _, k := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048} {
		m, _, _ := pair(t, k, nil)
		a := attest(t, m, "alice", Attribute{"groups", "hpc"}, Attribute{"uid", "1000"})
		key, err := ecdh.X25519().NewPrivateKey(a.Private[:])
		if err != nil || !bytes.Equal(key.PublicKey().Bytes(), a.Public[:]) {
			t.Fatalf("%s: the static keys do not belong together: %v", k, err)
		}
		p, err := m.Verify(a.Identity, a.Public)
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		if p.String() != "alice@"+alpha || len(p.Attributes) != 2 || p.Attributes[1] != (Attribute{"uid", "1000"}) ||
			p.Cached || !p.NotAfter.Equal(a.NotAfter) || !p.Leaf.Equal(m.Credential().Leaf) {
			t.Fatalf("%s: got %+v", k, p)
		}
		a.Wipe()
		if a.Private != [32]byte{} {
			t.Fatal("the private key is not wiped")
		}
		if b := attest(t, m, "alice", Attribute{"groups", "hpc"}, Attribute{"uid", "1000"}); b.Private == [32]byte{} {
			t.Fatal("wiping one copy wiped the machine's")
		}
	}
}

func TestRule10Reuse(t *testing.T) {
	clock := &testClock{time.Now().Truncate(time.Second)}
	start := clock.t
	m, _, _ := pair(t, "", clock)
	signed := func(want uint64, what string) {
		t.Helper()
		if got := m.Stats().Signatures; got != want {
			t.Fatalf("%s: %d signatures, want %d", what, got, want)
		}
	}
	first := attest(t, m, "alice")
	signed(1, "the first time")
	if want := start.Add(DefaultWindow); !first.NotAfter.Equal(want) {
		t.Fatalf("the statement ends at %v, want %v", first.NotAfter, want)
	}
	id, err := ParseIdentity(first.Identity)
	if err != nil {
		t.Fatal(err)
	}
	st, err := ParseStatement(id.Statement)
	if err != nil || !st.NotBefore.Equal(start.Add(-5*time.Minute)) {
		t.Fatalf("the statement begins at %v (%v)", st.NotBefore, err)
	}
	attest(t, m, "alice")
	signed(1, "again")
	attest(t, m, "bob")
	signed(2, "another account")
	attest(t, m, "alice", Attribute{"uid", "7"})
	signed(3, "other attributes")
	attest(t, m, "alice", Attribute{"uid", "7"})
	signed(3, "the same attributes")
	half := start.Add(-backdate).Add((DefaultWindow + backdate) / 2)
	clock.t = half.Add(-time.Second)
	attest(t, m, "alice", Attribute{"uid", "7"})
	signed(3, "before half of its life")
	clock.t = half
	attest(t, m, "alice", Attribute{"uid", "7"})
	signed(4, "at half of its life")
	clock.t = start
	attest(t, m, "alice", Attribute{"uid", "7"})
	signed(5, "after the clock was set back")
	if err := m.RotateStatic(); err != nil {
		t.Fatal(err)
	}
	signed(8, "another static key, for all that are in use")
	second := attest(t, m, "bob")
	signed(8, "another static key, at its first use")
	if second.Public == first.Public {
		t.Fatal("rotation kept the static key")
	}
	if n := m.Stats().Statements; n != 3 {
		t.Fatalf("%d statements are kept", n)
	}
}

func TestRule10EndOfLeaf(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	clock := &testClock{now}
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, NotBefore: now, NotAfter: now.Add(time.Hour)})
	m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca)),
		Now: clock.now})
	for _, tc := range []struct {
		at   time.Duration
		want reason.Code
	}{
		{-time.Second, reason.OwnCertificate},
		{0, reason.Accepted},
		{54 * time.Minute, reason.Accepted},
		{55*time.Minute + time.Second, reason.Accepted},
		{time.Hour - time.Second, reason.Accepted},
		{time.Hour, reason.Accepted},
		{time.Hour + 1, reason.OwnCertificate},
		{2 * time.Hour, reason.OwnCertificate},
	} {
		clock.t = now.Add(tc.at)
		a, err := m.Attest(context.Background(), "alice", nil)
		wantCode(t, err, tc.want)
		if err != nil {
			if !bytes.Contains([]byte(err.Error()), []byte("this machine's certificate")) {
				t.Errorf("%v: the error does not say whose certificate: %v", tc.at, err)
			}
			continue
		}
		if !a.NotAfter.Equal(i.Cert.NotAfter) {
			t.Errorf("%v: the statement ends at %v", tc.at, a.NotAfter)
		}
		if _, err := m.Verify(a.Identity, a.Public); err != nil {
			t.Errorf("%v: %v", tc.at, err)
		}
	}
}

// A certificate of minutes works from its first second to its last, whatever window is asked for, and costs one signature:
// a statement that ends with it is not made anew, since the next one would end no later.
func TestRule10ShortLeaf(t *testing.T) {
	for _, life := range []time.Duration{time.Second, 4 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute} {
		now := time.Now().Truncate(time.Second)
		clock := &testClock{now}
		ca := newCA(t, testca.Options{})
		i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, NotBefore: now, NotAfter: now.Add(life)})
		m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca)),
			Now: clock.now})
		for ; !clock.t.After(i.Cert.NotAfter); clock.t = clock.t.Add(life / 20) {
			a, err := m.Attest(context.Background(), "alice", nil)
			if err != nil {
				t.Fatalf("%v, after %v: %v", life, clock.t.Sub(now), err)
			}
			if _, err := m.Verify(a.Identity, a.Public); err != nil {
				t.Fatalf("%v, after %v: %v", life, clock.t.Sub(now), err)
			}
			if ready := m.Attested("alice", nil); !ready && clock.t.Before(i.Cert.NotAfter) {
				t.Fatalf("%v, after %v: it would sign again", life, clock.t.Sub(now))
			}
		}
		if n := m.Stats().Signatures; n > 2 { // at the very end a second one
			t.Errorf("%v: %d signatures", life, n)
		}
		// A peer whose clock is ahead refuses for the true reason.
		clock.t = i.Cert.NotAfter
		a := attest(t, m, "alice")
		clock.t = clock.t.Add(time.Second)
		_, err := m.Verify(a.Identity, a.Public)
		wantCode(t, err, reason.CertificateExpired)
	}
}

// A flakySigner signs until it is told to fail.
type flakySigner struct {
	crypto.Signer
	fails atomic.Bool
}

func (s *flakySigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.fails.Load() {
		return nil, errPulled
	}
	return s.Signer.Sign(r, digest, o)
}

func TestRule10FailingSigner(t *testing.T) {
	clock := newMovedClock()
	ca := newCA(t, testca.Options{})
	c := credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}}))
	signer := &flakySigner{Signer: keyOf(c)}
	c.Signer = SignerOf(signer)
	m := newMachine(t, MachineConfig{Credential: c, Name: alpha, Trust: newTrust(t, trusting(ca)), Now: clock.now,
		Window: time.Hour})
	first := attest(t, m, "alice")
	signer.fails.Store(true)
	if _, err := m.Attest(t.Context(), "bob", nil); !errors.Is(err, errPulled) || reason.Of(err) != reason.Internal {
		t.Fatalf("got %v", err)
	}
	if since, err := c.Failure(); !errors.Is(err, errPulled) || since.IsZero() {
		t.Fatalf("the failure is not told of: %v, %v", since, err)
	}
	clock.move(50 * time.Minute) // past half, with 10 minutes left
	if a := attest(t, m, "alice"); !bytes.Equal(a.Identity, first.Identity) {
		t.Fatal("the statement in hand was not used")
	}
	if _, err := m.Attest(t.Context(), "alice", []Attribute{{"uid", "1"}}); err == nil {
		t.Fatal("a statement with other attributes was used")
	}
	clock.move(10 * time.Minute) // its last moment
	if a := attest(t, m, "alice"); !bytes.Equal(a.Identity, first.Identity) {
		t.Fatal("the statement in hand was not used to its end")
	}
	clock.move(1)
	if _, err := m.Attest(t.Context(), "alice", nil); !errors.Is(err, errPulled) {
		t.Fatalf("got %v", err)
	}
	signer.fails.Store(false)
	clock.move(signAgain)
	attest(t, m, "alice")
	if _, err := c.Failure(); err != nil {
		t.Fatalf("the failure is over: %v", err)
	}
}

func TestAttestRefuses(t *testing.T) {
	m, _, _ := pair(t, "", nil)
	for name, tc := range map[string]struct {
		account string
		attrs   []Attribute
	}{
		"capitals":        {"Alice", nil},
		"domain":          {"alice@corp", nil},
		"empty":           {"", nil},
		"user":            {"alice", []Attribute{{"user", "bob"}}},
		"machine":         {"alice", []Attribute{{"machine", "b"}}},
		"not in order":    {"alice", []Attribute{{"b", ""}, {"a", ""}}},
		"value too long":  {"alice", []Attribute{{"b", string(bytes.Repeat([]byte("x"), 2049))}}},
		"more than 3 KiB": {"alice", []Attribute{{"a", string(bytes.Repeat([]byte("x"), 2000))}, {"b", string(bytes.Repeat([]byte("x"), 2000))}}},
	} {
		if _, err := m.Attest(context.Background(), tc.account, tc.attrs); reason.Of(err) != reason.LocalAccount {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := m.Stats(); n.Signatures != 0 {
		t.Errorf("%d signatures", n.Signatures)
	}
}

func TestNewMachineRefuses(t *testing.T) {
	ca := newCA(t, testca.Options{})
	good := MachineConfig{
		Credential: credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}})), Name: alpha,
		Trust: newTrust(t, trusting(ca)),
	}
	if _, err := NewMachine(good); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*MachineConfig){
		"no credential":    func(c *MachineConfig) { c.Credential = nil },
		"no trust":         func(c *MachineConfig) { c.Trust = nil },
		"neither":          func(c *MachineConfig) { c.Credential, c.Trust = nil, nil },
		"no name":          func(c *MachineConfig) { c.Name = "" },
		"another name":     func(c *MachineConfig) { c.Name = "beta.example.com" },
		"window too short": func(c *MachineConfig) { c.Window = time.Minute },
		"window too long":  func(c *MachineConfig) { c.Window = 24 * time.Hour },
		"no static key": func(c *MachineConfig) {
			c.NewStatic = func() (a, b [32]byte, err error) { return a, b, io.ErrUnexpectedEOF }
		},
	} {
		cfg := good
		edit(&cfg)
		if _, err := NewMachine(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRule15Cache(t *testing.T) {
	clock := &testClock{time.Now().Truncate(time.Second)}
	m, ca, i := pair(t, "", clock)
	alice, bob := attest(t, m, "alice"), attest(t, m, "bob")
	verify := func(id []byte, static [32]byte) *Peer {
		t.Helper()
		p, err := m.Verify(id, static)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if verify(alice.Identity, alice.Public).Cached || !verify(alice.Identity, alice.Public).Cached {
		t.Fatal("the second verification was not answered from the cache, or the first one was")
	}
	// One static key, two accounts.
	if p := verify(bob.Identity, bob.Public); p.Cached || p.Account != "bob" || alice.Public != bob.Public {
		t.Fatalf("got %+v", p)
	}
	// What a caller does to its result does not reach the next one.
	first := attest(t, m, "carol", Attribute{"uid", "3"})
	for range 3 {
		p := verify(first.Identity, first.Public)
		if p.Attributes[0].Value != "3" {
			t.Fatal("the cached attributes were changed")
		}
		p.Attributes[0].Value = "0"
	}
	// The static key of this handshake is another one: a captured identity, known to the cache.
	_, err := m.Verify(alice.Identity, [32]byte{9})
	wantCode(t, err, reason.StatementInvalid)
	// One bit off anywhere is another identity.
	for at := range alice.Identity {
		d := bytes.Clone(alice.Identity)
		d[at] ^= 1
		if p, err := m.Verify(d, alice.Public); err == nil {
			// ECDSA signatures of certificates are not covered by any other byte, but the leaf's hash covers them.
			t.Fatalf("an identity with byte %d changed was accepted as %v", at, p)
		}
	}
	failed := m.Stats().Failed
	if size := m.Stats().CacheSize; size != 3 || failed != uint64(len(alice.Identity))+1 {
		t.Fatalf("the cache holds %d, %d failed", size, failed)
	}
	// Before and after its time.
	start := clock.t
	clock.t = start.Add(-10 * time.Minute)
	_, err = m.Verify(alice.Identity, alice.Public)
	wantCode(t, err, reason.StatementExpired)
	clock.t = alice.NotAfter
	if !verify(alice.Identity, alice.Public).Cached {
		t.Fatal("not from the cache at the very end")
	}
	clock.t = alice.NotAfter.Add(time.Nanosecond)
	_, err = m.Verify(alice.Identity, alice.Public)
	wantCode(t, err, reason.StatementExpired)
	clock.t = start
	verify(alice.Identity, alice.Public)
	// A revocation, a reload and a lost CA take effect at once.
	cfg := trusting(ca)
	cfg.CRLs = []CRLFile{crlOf(t, ca, testca.CRLOptions{}, i.Cert)}
	if err := m.Reload(m.Credential(), newTrust(t, cfg)); err != nil {
		t.Fatal(err)
	}
	_, err = m.Verify(alice.Identity, alice.Public)
	wantCode(t, err, reason.CertificateRevoked)
	if err := m.Reload(m.Credential(), newTrust(t, trusting(ca))); err != nil {
		t.Fatal(err)
	}
	if verify(alice.Identity, alice.Public).Cached {
		t.Fatal("the cache outlived a reload")
	}
	if err := m.RotateStatic(); err != nil {
		t.Fatal(err)
	}
	if !verify(alice.Identity, alice.Public).Cached {
		t.Fatal("our own static key has nothing to do with what peers proved")
	}
	if err := m.Reload(m.Credential(), newTrust(t, trusting(newCA(t, testca.Options{})))); err != nil {
		t.Fatal(err)
	}
	_, err = m.Verify(alice.Identity, alice.Public)
	wantCode(t, err, reason.UnknownCA)
}

// A revocation list that ends while a success is cached.
func TestRule15CacheListEnds(t *testing.T) {
	clock := &testClock{time.Now().Truncate(time.Second)}
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	cfg := trusting(ca)
	end := clock.t.Add(20 * time.Minute)
	cfg.CRLs = []CRLFile{crlOf(t, ca, testca.CRLOptions{NextUpdate: end})}
	m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, cfg),
		Now: clock.now})
	a := attest(t, m, "alice")
	for range 2 {
		if _, err := m.Verify(a.Identity, a.Public); err != nil {
			t.Fatal(err)
		}
	}
	clock.t = end.Add(time.Second)
	_, err := m.Verify(a.Identity, a.Public)
	wantCode(t, err, reason.RevocationUnknown)
}

// The bound is the one that was given, and a reload keeps it.
func TestCacheBoundIsGiven(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	for given, want := range map[int]int{0: DefaultCached, 3: 3} {
		m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca)), Cached: given})
		if got := m.state.Load().cache.max; got != want {
			t.Errorf("given %d: %d", given, got)
		}
		if err := m.Reload(credential(t, i), newTrust(t, trusting(ca))); err != nil {
			t.Fatal(err)
		}
		for n := range 8 {
			a := attest(t, m, "account"+strconv.Itoa(n))
			if _, err := m.Verify(a.Identity, a.Public); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Stats().CacheSize; got != min(want, 8) {
			t.Errorf("given %d, after a reload %d are kept", given, got)
		}
	}
}

// What was made of a verified peer serves that verification and those that use it again, and nothing else: no other account of the machine,
// and none after a reload of the trust.
func TestMemo(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca))})
	alice, bob := attest(t, m, "alice"), attest(t, m, "bob")
	made := 0
	memo := func(a *Attestation) int {
		t.Helper()
		p, err := m.Verify(a.Identity, a.Public)
		if err != nil {
			t.Fatal(err)
		}
		return p.Memo(func() any { made++; return made }).(int)
	}
	for _, c := range []struct {
		name string
		of   *Attestation
		want int
	}{{"alice", alice, 1}, {"bob", bob, 2}, {"alice again", alice, 1}, {"bob again", bob, 2}} {
		if got := memo(c.of); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
	if err := m.Reload(credential(t, i), newTrust(t, trusting(ca))); err != nil {
		t.Fatal(err)
	}
	if got := memo(alice); got != 3 {
		t.Errorf("after a reload: %d", got)
	}
	unkept := new(Peer)
	for range 2 {
		unkept.Memo(func() any { made++; return made })
	}
	if made != 5 {
		t.Errorf("%d were made, of a peer without a verification too", made)
	}
}

func TestRule15CacheBounds(t *testing.T) {
	c := newCache(DefaultCached)
	now := time.Now()
	key := func(n int) (k [32]byte) { copy(k[:], strconv.Itoa(n)); return k }
	add := func(n, leaf int) {
		c.put(key(n), &outcome{peer: Peer{NotAfter: now.Add(time.Hour)}, group: key(leaf), notBefore: now})
	}
	has := func(n int) bool { return c.get(key(n), [32]byte{}, now) != nil }
	add(0, 0)
	for n := 1; n <= 2*maxCachedPerLeaf; n++ {
		add(n, 1)
	}
	if c.len() != maxCachedPerLeaf+1 || !has(0) || has(maxCachedPerLeaf) || !has(maxCachedPerLeaf+1) {
		t.Fatalf("one leaf has %d", c.len())
	}
	for n := range 2 * DefaultCached {
		add(10000+n, 100+n/8)
	}
	if c.len() != DefaultCached || len(c.entries) != DefaultCached || has(0) || !has(10000+2*DefaultCached-1) {
		t.Fatalf("all leaves have %d", c.len())
	}
	if n := len(c.groups); n != DefaultCached/8 {
		t.Fatalf("%d leaves are remembered", n)
	}
	add(10000+2*DefaultCached-1, 7) // the same key again replaces
	if c.len() != DefaultCached {
		t.Fatalf("%d", c.len())
	}
	for k := range c.entries {
		c.get(k, [32]byte{}, now.Add(2*time.Hour)) // all have ended
	}
	if c.len() != 0 || len(c.groups) != 0 {
		t.Fatalf("%d entries and %d leaves are left", c.len(), len(c.groups))
	}

	// A small cache is nobody's whole either.
	const small = 320
	if c = newCache(small); small/leafShare >= maxCachedPerLeaf {
		t.Fatal("it is not small")
	}
	for n := range small / 2 {
		add(n, n)
	}
	for n := range 2 * small {
		add(10000+n, 1000)
	}
	if c.len() != small/2+small/leafShare || !has(0) {
		t.Errorf("beside a leaf of many identities, %d in all are kept", c.len())
	}
}

func TestRule19Reload(t *testing.T) {
	m, ca, i := pair(t, "", nil)
	before := m.state.Load()
	other := credential(t, issue(t, ca, testca.Leaf{Hosts: []string{"beta.example.com"}}))
	if err := m.Reload(other, newTrust(t, trusting(newCA(t, testca.Options{})))); err == nil {
		t.Fatal("a reload changed the name")
	}
	for _, err := range []error{m.Reload(nil, nil), m.Reload(other, nil), m.Reload(nil, m.Trust())} {
		if err == nil {
			t.Fatal("a reload of nothing was accepted")
		}
	}
	if m.state.Load() != before || before.private == [32]byte{} {
		t.Fatal("a refused reload changed something")
	}
	renewed := credential(t, issue(t, ca, testca.Leaf{Hosts: []string{"beta.example.com", alpha}}))
	old := attest(t, m, "alice")
	if err := m.Reload(renewed, m.Trust()); err != nil {
		t.Fatal(err)
	}
	if before.private != [32]byte{} {
		t.Fatal("the old static key was not wiped")
	}
	if old.Private == [32]byte{} {
		t.Fatal("a handshake in flight has lost its key")
	}
	if m.Name() != alpha || m.Credential() != renewed {
		t.Fatal("the reload did not take")
	}
	p, err := m.Verify(attest(t, m, "alice").Identity, m.state.Load().public)
	if err != nil || !p.Leaf.Equal(renewed.Leaf) || p.Leaf.Equal(i.Cert) {
		t.Fatalf("got %v, %v", p, err)
	}
}

func TestOneSignatureForConcurrentCallers(t *testing.T) {
	m, _, _ := pair(t, testca.RSA2048, nil)
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			if _, err := m.Attest(context.Background(), []string{"alice", "bob"}[n%2], nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := m.Stats().Signatures; n != 2 {
		t.Fatalf("%d signatures for two accounts", n)
	}
}

// Everything at once: each attestation must verify, with a trust that never lacked the CA, whatever is swapped between.
func TestRule16Concurrency(t *testing.T) {
	m, ca, _ := pair(t, testca.Ed25519, nil)
	cfg := trusting(ca)
	der, err := ca.CRL([]*big.Int{big.NewInt(1)}, testca.CRLOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.CRLs = []CRLFile{{Data: der, Source: "x"}}
	trusts := []*Trust{newTrust(t, cfg), newTrust(t, trusting(ca))}
	creds := []*Credential{m.Credential(), credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}}))}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			account := "user" + strconv.Itoa(w%2)
			for range 100 {
				a, err := m.Attest(context.Background(), account, []Attribute{{"uid", strconv.Itoa(w % 2)}})
				if err != nil {
					t.Error(err)
					return
				}
				p, err := m.Verify(a.Identity, a.Public)
				if err != nil || p.Account != account {
					t.Errorf("got %v, %v", p, err)
					return
				}
				if k, err := ecdh.X25519().NewPrivateKey(a.Private[:]); err != nil ||
					!bytes.Equal(k.PublicKey().Bytes(), a.Public[:]) {
					t.Error("a snapshot mixes two static keys")
					return
				}
				a.Wipe()
				m.Stats()
			}
		})
	}
	wg.Go(func() {
		for n := range 50 {
			next := m.Credential()
			if n%3 == 0 { // else of the trust alone
				next = creds[n/3%2]
			}
			if err := m.Reload(next, trusts[n%2]); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			if err := m.RotateStatic(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}
