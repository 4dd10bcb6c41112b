package certbind

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A gatedSigner makes so many signatures, and then waits for its gate to be closed, or fails.
type gatedSigner struct {
	crypto.Signer
	free  atomic.Int64
	gate  chan struct{} // nil: it fails instead
	asked chan struct{} // told of each that waits
}

var errPulled = errors.New("the token was pulled out")

func (s *gatedSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.free.Add(-1) < 0 {
		if s.gate == nil {
			return nil, errPulled
		}
		s.asked <- struct{}{}
		<-s.gate
	}
	return s.Signer.Sign(r, digest, o)
}

// gated makes a credential whose key signs so often before it waits, or fails if it is not to wait.
func gated(t testing.TB, ca *testca.CA, leaf testca.Leaf, free int64, waits bool) (*Credential, *gatedSigner) {
	t.Helper()
	leaf.Hosts = []string{alpha}
	c := credential(t, issue(t, ca, leaf))
	s := &gatedSigner{Signer: keyOf(c), asked: make(chan struct{}, 10000)}
	s.free.Store(free)
	if waits {
		s.gate = make(chan struct{})
	}
	c.Signer = SignerOf(s)
	return c, s
}

const enough = 1 << 40

// What statements are made for, and what is left alone, when something is replaced: two accounts were used, one of them with
// two sets of attributes, and a third one more than an hour ago.
func TestRule10Replace(t *testing.T) {
	ca := newCA(t, testca.Options{})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	sub := intermediate(t, ca, testca.Options{})
	long := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	revoking := trusting(ca)
	revoking.CRLs = []CRLFile{crlOf(t, ca, testca.CRLOptions{}, issue(t, ca, testca.Leaf{Hosts: []string{"x.example.com"}}).Cert)}
	for _, tc := range []struct {
		what    string
		replace func(*Machine) error
		fresh   bool
	}{
		{"nothing", func(*Machine) error { return nil }, false},
		{"the trust", func(m *Machine) error { return m.Reload(m.Credential(), newTrust(t, revoking)) }, false},
		{"the files, read again", func(m *Machine) error { return m.Reload(credential(t, i), newTrust(t, trusting(ca))) }, false},
		{"the certificate", func(m *Machine) error {
			return m.Reload(credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}})), m.Trust())
		}, true},
		{"the certificate of one key", func(m *Machine) error {
			return m.Reload(credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}, Key: i.Key})), m.Trust())
		}, true},
		{"the chain", func(m *Machine) error { return m.Reload(credential(t, long), m.Trust()) }, true},
		{"the static key", (*Machine).RotateStatic, true},
	} {
		clock := &testClock{time.Now().Truncate(time.Second)}
		m := newMachine(t, MachineConfig{Credential: credential(t, i), Name: alpha, Trust: newTrust(t, trusting(ca)), Now: clock.now})
		blue, plain := []Attribute{{"socket", "blue"}}, []Attribute{{"uid", "1"}}
		attest(t, m, "carol")
		clock.t = clock.t.Add(inUse + time.Second)
		first := attest(t, m, "alice", plain...)
		attest(t, m, "alice", blue...)
		attest(t, m, "bob")
		old, signed := m.Credential(), m.Stats().Signatures
		if err := tc.replace(m); err != nil {
			t.Fatalf("%s: %v", tc.what, err)
		}
		if c := m.Credential(); c != old {
			old.Wipe() // as the daemon does
		}
		want := uint64(0)
		if tc.fresh {
			want = 3
		}
		if n := m.Stats().Signatures - signed; n != want {
			t.Errorf("%s: %d signatures, want %d", tc.what, n, want)
		}
		if !m.Attested("alice", plain) || !m.Attested("alice", blue) || !m.Attested("bob", nil) {
			t.Errorf("%s: the statements are not ready", tc.what)
		}
		if ready := m.Attested("carol", nil); ready == tc.fresh {
			t.Errorf("%s: the statement of an account that is not in use is ready: %v", tc.what, ready)
		}
		if m.Attested("bob", plain) {
			t.Errorf("%s: other attributes are attested", tc.what)
		}
		for _, account := range []string{"alice", "bob", "carol", "dave"} {
			for _, attrs := range [][]Attribute{nil, plain, blue} {
				a := attest(t, m, account, attrs...)
				p, err := m.Verify(a.Identity, a.Public)
				if err != nil || p.Account != account || fmt.Sprint(p.Attributes) != fmt.Sprint(attrs) {
					t.Fatalf("%s: %s is %v (%v)", tc.what, account, p, err)
				}
				if (a.Public == first.Public) == tc.fresh {
					t.Fatalf("%s: the static key is as it was: %v", tc.what, !tc.fresh)
				}
			}
		}
	}
}

// A statement that was made ahead and not used is not made ahead again after an hour.
func TestRule10AheadEnds(t *testing.T) {
	clock := &testClock{time.Now().Truncate(time.Second)}
	m, _, _ := pair(t, "", clock)
	attest(t, m, "alice")
	for range 10 {
		clock.t = clock.t.Add(20 * time.Minute)
		if err := m.RotateStatic(); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Stats().Signatures; n != 4 {
		t.Errorf("%d signatures for one use and three rotations within an hour of it", n)
	}
}

// TestRule10OldServes: while statements of the next key or certificate are made, handshakes go on with the old one, and the
// next one is in force with all of them at once.
func TestRule10OldServes(t *testing.T) {
	const accounts = 3 * 4
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	for _, what := range []string{"certificate", "static key"} {
		c, signer := gated(t, ca, testca.Leaf{}, enough, true)
		m := newMachine(t, MachineConfig{Credential: c, Name: alpha, Trust: trust})
		for n := range accounts {
			attest(t, m, "user"+strconv.Itoa(n))
		}
		before := attest(t, m, "user0")
		replaced := make(chan error)
		if what == "static key" {
			signer.free.Store(0)
			go func() { replaced <- m.RotateStatic() }()
		} else {
			c, signer = gated(t, ca, testca.Leaf{}, 0, true)
			go func() { replaced <- m.Reload(c, newTrust(t, trusting(ca))) }()
		}
		serves := func(account string) {
			t.Helper()
			a := attest(t, m, account)
			if a.Public != before.Public {
				t.Fatalf("%s: in force before its time", what)
			}
			if _, err := m.Verify(a.Identity, a.Public); err != nil {
				t.Fatal(err)
			}
		}
		<-signer.asked // the proof
		serves("user1")
		signer.free.Store(1)
		signer.gate <- struct{}{}
		for range 3 {
			<-signer.asked
		}
		for n := range accounts {
			serves("user" + strconv.Itoa(n))
		}
		if what == "certificate" {
			serves("new") // by the old key
			// A change of the static key meanwhile hinders nothing.
			if err := m.RotateStatic(); err != nil {
				t.Fatal(err)
			}
			before = attest(t, m, "user0")
			serves("user1")
		} else if err := m.Reload(m.Credential(), newTrust(t, trusting(newCA(t, testca.Options{})))); err != nil {
			t.Fatal(err)
		} else if _, err := m.Verify(before.Identity, before.Public); err == nil {
			t.Fatal("a change of the trust alone waited")
		}
		close(signer.gate)
		if err := <-replaced; err != nil {
			t.Fatal(err)
		}
		for n := range accounts {
			if !m.Attested("user"+strconv.Itoa(n), nil) {
				t.Fatalf("%s: a statement is missing", what)
			}
		}
		if a := attest(t, m, "user0"); a.Public == before.Public {
			t.Fatalf("%s: not in force", what)
		}
		if what == "certificate" && !m.Attested("new", nil) {
			t.Error("the statement of an account that came meanwhile is missing")
		}
	}
}

// TestRule10FailingReplacement: a key that does not sign does not come into force, and no static key under which nothing
// could be said; what was in force stays, with its statements. One that is slow, or fails now and then, does.
func TestRule10FailingReplacement(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	for _, tc := range []struct {
		what  string
		free  int64
		waits bool
		proof time.Duration
		end   time.Duration // of the old certificate, from now
		want  string        // "": it comes into force
	}{
		{"signs", enough, false, time.Hour, 0, ""},
		{"fails", 0, false, time.Hour, 0, errPulled.Error()},
		{"fails after its first signature", 1, false, time.Hour, 0, errPulled.Error()},
		{"fails halfway", 6, false, time.Hour, 0, errPulled.Error()},
		{"hangs", 0, true, time.Millisecond, 0, "no signature within 1ms; see"},
		{"hangs after its first signature", 1, true, time.Hour, 0, "not sign one statement within 500ms; see"},
		{"hangs halfway", 6, true, time.Hour, 0, ""},
		{"hangs while the old one ends", 1, true, time.Hour, 3 * time.Second, ""},
		{"signs when the old one has ended", 1, false, time.Hour, -time.Second, ""},
	} {
		for _, rotate := range []bool{false, true} {
			if rotate && tc.end != 0 {
				continue
			}
			leaf := testca.Leaf{NotBefore: time.Now().Add(-time.Hour)}
			if tc.end != 0 {
				leaf.NotAfter = time.Now().Add(tc.end)
			}
			old, signer := gated(t, ca, leaf, enough, tc.waits)
			m := newMachine(t, MachineConfig{Credential: old, Name: alpha, Trust: trust})
			m.limits.proof, m.limits.statements = tc.proof, 500*time.Millisecond
			if tc.end != 0 {
				m.limits.statements = time.Hour
			}
			var first *Attestation
			for n := range 10 {
				if tc.end >= 0 {
					first = attest(t, m, "user"+strconv.Itoa(n))
				}
			}
			next := old
			var err error
			if rotate {
				signer.free.Store(tc.free)
				err = m.RotateStatic()
			} else {
				next, signer = gated(t, ca, testca.Leaf{}, tc.free, tc.waits)
				err = m.Reload(next, trust)
			}
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s (rotate %v): %v", tc.what, rotate, err)
				}
				if a := attest(t, m, "user9"); !bytes.Equal(a.Identity, first.Identity) || m.Credential() != old ||
					m.state.Load().private == [32]byte{} {
					t.Errorf("%s (rotate %v): what was in force does not stay", tc.what, rotate)
				}
			} else if err != nil || m.Credential() != next || first != nil && m.state.Load().public == first.Public {
				t.Errorf("%s (rotate %v): not in force: %v", tc.what, rotate, err)
			}
			if rotate && tc.waits && tc.proof < time.Second {
				for range maxProofs {
					err = m.RotateStatic()
				}
				if err == nil || !strings.Contains(err.Error(), "earlier signatures are not there") {
					t.Errorf("%s: a key that hangs was asked once more: %v", tc.what, err)
				}
			}
			if tc.waits {
				close(signer.gate)
			}
		}
	}
	// One signature in three fails: what is missing is made at its handshake.
	c := credential(t, issue(t, ca, testca.Leaf{Hosts: []string{alpha}}))
	c.Signer = SignerOf(&everyThirdFails{Signer: keyOf(c)})
	m, _, _ := pair(t, "", nil)
	for n := range 9 {
		attest(t, m, "user"+strconv.Itoa(n))
	}
	if err := m.Reload(c, trust); err != nil {
		t.Fatal(err)
	}
	ready := 0
	for n := range 9 {
		if m.Attested("user"+strconv.Itoa(n), nil) {
			ready++
		}
	}
	if ready != 6 {
		t.Errorf("%d statements of 9 are ready", ready)
	}
}

type everyThirdFails struct {
	crypto.Signer
	n atomic.Int64
}

func (s *everyThirdFails) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.n.Add(1)%3 == 0 {
		return nil, errPulled
	}
	return s.Signer.Sign(r, digest, o)
}

// TestRule34WipeWaitsForNobody: a key that is at a signature is wiped after it, and the wiping does not wait.
func TestRule34WipeWaitsForNobody(t *testing.T) {
	c, signer := gated(t, newCA(t, testca.Options{}), testca.Leaf{}, 0, true)
	signed := make(chan error)
	go func() {
		signed <- c.Prove(context.Background())
	}()
	<-signer.asked
	c.Wipe()
	close(signer.gate)
	if err := <-signed; err != nil {
		t.Errorf("a signature that was being made: %v", err)
	}
	if err := c.Prove(t.Context()); !errors.Is(err, errWiped) {
		t.Errorf("it signs after it was wiped: %v", err)
	}
}

func TestStatementsBounds(t *testing.T) {
	now := time.Now()
	s := newStatements()
	use := func(account string, set int) { s.use(account, []byte(strconv.Itoa(set)), nil, now) }
	has := func(account string, set int) bool { return s.get(account, []byte(strconv.Itoa(set))) != nil }
	use("bob", 0)
	for set := range 3 * maxStatementsPerAccount {
		use("alice", 0) // in use all the time
		use("alice", set)
	}
	if s.len() != maxStatementsPerAccount+1 || !has("bob", 0) || !has("alice", 0) || has("alice", 1) ||
		!has("alice", 3*maxStatementsPerAccount-1) {
		t.Errorf("%d statements of one account and one of another", s.len())
	}
	for n := range 2 * maxStatements {
		use("user"+strconv.Itoa(n), 0)
		use("bob", 0)
	}
	if s.len() != maxStatements || len(s.entries) != maxStatements || len(s.accounts) != maxStatements || has("alice", 0) ||
		!has("bob", 0) {
		t.Errorf("%d statements, of %d accounts", s.len(), len(s.accounts))
	}
	// Who has many sets does not get ahead of who has one, and nothing is asked for twice.
	old, next := newStatements(), newStatements()
	s = old
	use("bob", 0)
	for set := range 5 {
		use("alice", set)
	}
	var order []string
	for _, k := range next.follow(old, now.Add(inUse)) {
		order = append(order, k.account+k.attributes)
	}
	if got := strings.Join(order, " "); got != "alice4 bob0 alice3 alice2 alice1 alice0" {
		t.Errorf("in the order %s", got)
	}
	use("carol", 0)
	if more := next.follow(old, now); len(more) != 1 || more[0].account != "carol" || next.len() != 7 {
		t.Errorf("then %d more", len(more))
	}
	if late := newStatements().follow(old, now.Add(inUse+1)); len(late) != 0 {
		t.Errorf("%d of an earlier hour", len(late))
	}
}
