package certbind

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A movedClock is a clock that a test moves while signatures are made.
type movedClock struct {
	began time.Time
	moved atomic.Int64
}

func newMovedClock() *movedClock { return &movedClock{began: time.Now().Truncate(time.Second)} }

func (c *movedClock) now() time.Time       { return c.began.Add(time.Duration(c.moved.Load())) }
func (c *movedClock) move(d time.Duration) { c.moved.Add(int64(d)) }

// An outsideSigner is a signer of its own unit: it is asked for a signature and answers when the test says so, or with what
// the test says.
type outsideSigner struct {
	key    crypto.Signer
	asked  chan *Statement               // nil: it answers at once
	answer chan error                    // to each that is asked
	lie    func(signature []byte) []byte // nil for none
	count  atomic.Int64
}

func (s *outsideSigner) Public() crypto.PublicKey { return s.key.Public() }

func (s *outsideSigner) SignStatement(ctx context.Context, st *Statement) ([]byte, error) {
	s.count.Add(1)
	if s.asked != nil {
		s.asked <- st
		select {
		case err := <-s.answer:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	statement, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	return s.sign(statement)
}

func (s *outsideSigner) Prove(context.Context) ([]byte, error) { return s.sign(nil) }

func (s *outsideSigner) sign(statement []byte) ([]byte, error) {
	signature, err := signWith(s.key, statement)
	if s.lie != nil {
		signature = s.lie(signature)
	}
	return signature, err
}

// outside makes a machine whose key is with a signer of its own.
func outside(t *testing.T, clock *movedClock) (*Machine, *outsideSigner) {
	t.Helper()
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	s := &outsideSigner{key: i.Key, answer: make(chan error)}
	c, err := ParseCertificates(i.CertPEM, s)
	if err != nil {
		t.Fatal(err)
	}
	return newMachine(t, MachineConfig{Credential: c, Name: alpha, Trust: newTrust(t, trusting(ca)), Now: clock.now,
		Window: time.Hour}), s
}

// settled waits until no signature is under way for the account.
func settled(m *Machine, account string) {
	kept := m.state.Load().statements.get(account, nil)
	kept.mu.Lock()
	s := kept.signing
	kept.mu.Unlock()
	if s != nil {
		<-s.done
	}
}

// TestRule62StatementInHand: with a signer that hangs, fails, or is slow, handshakes go on with the statement in hand to its
// end, and do not wait; one signature at a time is asked for, and after one that failed none for a while.
func TestRule62StatementInHand(t *testing.T) {
	clock := newMovedClock()
	m, s := outside(t, clock)
	first := attest(t, m, "alice")
	s.asked = make(chan *Statement, 1)
	clock.move(40 * time.Minute)
	inHand := func(what string, asked int64) {
		t.Helper()
		for range 3 {
			if !m.Attested("alice", nil) {
				t.Fatalf("%s: a handshake would wait", what)
			}
			if a := attest(t, m, "alice"); !bytes.Equal(a.Identity, first.Identity) {
				t.Fatalf("%s: the statement in hand was not used", what)
			}
		}
		if n := s.count.Load(); n != asked {
			t.Fatalf("%s: %d signatures were asked for, want %d", what, n, asked)
		}
	}
	attest(t, m, "alice") // asks
	<-s.asked
	inHand("hangs", 2)
	s.answer <- errPulled
	settled(m, "alice")
	inHand("failed", 2)
	if _, err := m.Credential().Failure(); !errors.Is(err, errPulled) {
		t.Fatalf("the failure is not told of: %v", err)
	}
	clock.move(renewAgain)
	attest(t, m, "alice")
	<-s.asked
	inHand("is slow", 3)
	s.answer <- nil
	settled(m, "alice")
	second := attest(t, m, "alice")
	if bytes.Equal(second.Identity, first.Identity) || !second.NotAfter.After(first.NotAfter) {
		t.Fatal("the next statement is not in use")
	}
	if _, err := m.Verify(second.Identity, second.Public); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Credential().Failure(); err != nil {
		t.Fatalf("the failure is over: %v", err)
	}
}

// TestRule62NoStatement: where there is no statement in hand handshakes of an account wait for one signature, each no longer than
// it may; the signature is made to its end for those that come later, and one that failed is not asked for again at once.
func TestRule62NoStatement(t *testing.T) {
	clock := newMovedClock()
	m, s := outside(t, clock)
	s.asked = make(chan *Statement, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			_, err := m.Attest(ctx, "alice", nil)
			if !errors.Is(err, context.Canceled) || reason.Of(err) != reason.Internal || !strings.Contains(err.Error(), "see whether") {
				t.Errorf("a handshake that is over: %v", err)
			}
		})
	}
	<-s.asked
	if m.Attested("alice", nil) {
		t.Error("a handshake would not wait")
	}
	cancel()
	waiting.Wait()
	s.answer <- nil
	settled(m, "alice")
	if !m.Attested("alice", nil) || s.count.Load() != 1 {
		t.Errorf("the signature was not kept, %d were made", s.count.Load())
	}
	s.asked = nil
	other, err := testca.NewKey(testca.P256)
	if err != nil {
		t.Fatal(err)
	}
	s.key = other
	for range 5 {
		if _, err := m.Attest(t.Context(), "bob", nil); !errors.Is(err, errForged) {
			t.Errorf("another's key: %v", err)
		}
	}
	if n := s.count.Load(); n != 2 {
		t.Errorf("a signer that fails was asked %d times at once", n-1)
	}
	clock.move(signAgain)
	if _, err := m.Attest(t.Context(), "bob", nil); !errors.Is(err, errForged) || s.count.Load() != 3 {
		t.Errorf("after a while: %v", err)
	}
}

// TestRule62FewAtATime: however many accounts need a statement at once, the signer is asked for a few at a time, and works on nothing
// that was given up: each signature that it begins is kept, and all are made in the end. What a handshake waits for is not behind
// what is made ahead.
func TestRule62FewAtATime(t *testing.T) {
	const accounts = 40
	clock := newMovedClock()
	m, s := outside(t, clock)
	s.asked = make(chan *Statement, accounts)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	names := make([]string, accounts)
	for n := range names {
		names[n] = fmt.Sprintf("user%d", n)
		if _, err := m.Attest(over, names[n], nil); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	answer := func() *Statement {
		st := <-s.asked
		s.answer <- nil
		return st
	}
	if n := s.count.Load(); n > int64(usualLimits.signers) {
		t.Errorf("%d signatures are asked for at once", n)
	}
	// Who waits for its turn keeps it when lists are read anew.
	old := m.Credential()
	again, err := ParseCertificates(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Chain[0]}), s)
	if err == nil {
		err = m.Reload(again, m.Trust())
	}
	if err != nil {
		t.Fatal(err)
	}
	old.Wipe()
	for range accounts {
		seen[answer().Account] = true
	}
	for _, name := range names {
		settled(m, name)
		if !m.Attested(name, nil) || !seen[name] {
			t.Fatalf("%s has no statement", name)
		}
	}
	clock.move(40 * time.Minute)
	for _, name := range names {
		attest(t, m, name)
	}
	for range usualLimits.signers {
		<-s.asked
	}
	fresh := make(chan error, 1)
	go func() {
		_, err := m.Attest(t.Context(), "new", nil)
		fresh <- err
	}()
	if st := <-s.asked; st.Account != "new" {
		t.Errorf("what is made ahead, for %s, goes before what a handshake waits for", st.Account)
	}
	answered := 0
	for fresh != nil {
		select {
		case s.answer <- nil: // to whoever waits
			answered++
		case err := <-fresh:
			if err != nil {
				t.Error(err)
			}
			fresh = nil
		}
	}
	for ; answered < accounts+1; answered++ {
		s.answer <- nil
	}
	if n := s.count.Load(); n != 2*accounts+1 {
		t.Errorf("%d signatures were asked for", n)
	}
}

// TestRule62ReplacementFirst: while statements about the next static key are signed, those about the last one, which will soon be
// needless, are not made anew; but those that would end meanwhile are.
func TestRule62ReplacementFirst(t *testing.T) {
	for after, renews := range map[time.Duration]bool{40 * time.Minute: false, 58 * time.Minute: true} {
		clock := newMovedClock()
		m, s := outside(t, clock)
		first := attest(t, m, "alice")
		s.asked = make(chan *Statement, 2)
		clock.move(after)
		rotated := make(chan error)
		go func() { rotated <- m.RotateStatic() }()
		if st := <-s.asked; st.StaticKey == first.Public {
			t.Fatal("this is not the next static key")
		}
		if a := attest(t, m, "alice"); !bytes.Equal(a.Identity, first.Identity) {
			t.Errorf("after %v: the statement in hand was not used", after)
		}
		if renews {
			<-s.asked
			s.answer <- nil
		}
		s.answer <- nil
		if err := <-rotated; err != nil {
			t.Fatal(err)
		}
		want := int64(2)
		if renews {
			want++
		}
		if n := s.count.Load(); n != want {
			t.Errorf("after %v: %d signatures were asked for, want %d", after, n, want)
		}
	}
}

// TestRule62SignatureIsVerified: what a signer returns and is not the signature of that statement by the certificate's key never
// travels, and a credential whose signer returns it does not come into force.
func TestRule62SignatureIsVerified(t *testing.T) {
	var earlier []byte
	for what, lie := range map[string]func([]byte) []byte{
		"nothing":           func([]byte) []byte { return nil },
		"a bit off":         func(s []byte) []byte { return append(s[:len(s)-1:len(s)-1], s[len(s)-1]^1) },
		"a byte more":       func(s []byte) []byte { return append(s, 0) },
		"too much":          func(s []byte) []byte { return bytes.Repeat(s, 100) },
		"another statement": func(s []byte) []byte { e := earlier; earlier = s; return e },
	} {
		clock := newMovedClock()
		m, s := outside(t, clock)
		first := attest(t, m, "alice")
		s.lie = lie
		if what == "another statement" {
			earlier, _ = s.key.Sign(nil, make([]byte, 32), crypto.SHA256)
		}
		if _, err := m.Attest(t.Context(), "bob", nil); !errors.Is(err, errForged) {
			t.Errorf("%s: %v", what, err)
		}
		if err := m.RotateStatic(); !errors.Is(err, errForged) {
			t.Errorf("%s, at a rotation: %v", what, err)
		}
		clock.move(40 * time.Minute)
		attest(t, m, "alice")
		settled(m, "alice")
		if a := attest(t, m, "alice"); !bytes.Equal(a.Identity, first.Identity) {
			t.Errorf("%s: it is used", what)
		}
	}
}

// TestParseCertificates: the leaf is that of the signer's key, and no key may lie beside the certificates.
func TestParseCertificates(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i, other := issue(t, ca, testca.Leaf{Hosts: []string{alpha}}), issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	s := &outsideSigner{key: i.Key}
	c, err := ParseCertificates(append(bytes.Clone(other.CertPEM), i.CertPEM...), s)
	if err != nil || !c.Leaf.Equal(i.Cert) || !c.Outside() {
		t.Fatalf("%v, %v", c, err)
	}
	for want, pem := range map[string][]byte{
		"hold a private key": i.PEM(), "is empty": {}, "belongs to none": other.CertPEM,
	} {
		if _, err := ParseCertificates(pem, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A machine for which DNS vouches may have a common name alone.
func TestRule61MachineNames(t *testing.T) {
	ca := newCA(t, testca.Options{})
	twice := pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: alpha}, {Type: oidCommonName, Value: "b.test"}}}
	for _, tc := range []struct {
		want string
		leaf testca.Leaf
	}{
		{alpha, testca.Leaf{Subject: pkix.Name{CommonName: "ALPHA.example.com"}}},
		{"b.test", testca.Leaf{Subject: pkix.Name{CommonName: alpha}, Hosts: []string{"B.test", "*.b.test"}}},
		{"", testca.Leaf{Subject: pkix.Name{CommonName: alpha}, IPs: []net.IP{{127, 0, 0, 1}}}},
		{"", testca.Leaf{Subject: twice}},
	} {
		if got := strings.Join(MachineNames(issue(t, ca, tc.leaf).Cert), " "); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
