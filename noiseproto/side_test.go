package noiseproto

import (
	"crypto/subtle"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
)

// keyTable is a Verifier with no certificates: the identity is the static key and the name that it speaks for. It is
// for handshakes that must come out the same every time, or whose identity has a size that no certificates give.
type keyTable struct{}

func (keyTable) Verify(identity []byte, static [32]byte) (*certbind.Peer, error) {
	if len(identity) < 32 || subtle.ConstantTimeCompare(identity[:32], static[:]) != 1 {
		return nil, reason.Errorf(reason.StatementInvalid, "the identity names another static key")
	}
	account, machine, _ := strings.Cut(string(identity[32:]), "@")
	return &certbind.Peer{Machine: machine, Account: account}, nil
}

// A side is one machine and one of its accounts.
type side struct {
	name     string
	verifier Verifier
	attest   func() *certbind.Attestation // a new copy each time
}

// newSide makes a machine with its certificate and takes an account of it.
func newSide(t testing.TB, machine, account string) *side {
	t.Helper()
	return sideOf(t, testmachine.New(t, machine, testmachine.Options{}), account)
}

func sideOf(t testing.TB, m *certbind.Machine, account string) *side {
	return &side{account + "@" + m.Name(), m, func() *certbind.Attestation {
		a, err := m.Attest(t.Context(), account, []certbind.Attribute{{Name: "uid", Value: "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}}
}

// sideWithKey makes a side that keyTable judges.
func sideWithKey(t testing.TB, machine, account string, private []byte) *side {
	a := certbind.Attestation{Private: [32]byte(private), Public: [32]byte(x25519Key(t, private).PublicKey().Bytes())}
	a.Identity = append(a.Public[:len(a.Public):len(a.Public)], account+"@"+machine...)
	return &side{account + "@" + machine, keyTable{}, func() *certbind.Attestation { b := a; return &b }}
}

var testParams = Params{
	ApplicationProtocols: []string{"grpc"},
	RecordProtocols:      []string{RecordProtocol},
	RPCVersions:          RPCVersions{Version{2, 1}, Version{2, 1}},
	MaxFrameSize:         1 << 20,
}

func (s *side) config(initiator bool) Config {
	return Config{Initiator: initiator, Static: s.attest(), Verifier: s.verifier, Params: testParams}
}

// start returns a handshake in the role, changed by edit.
func (s *side) start(t testing.TB, initiator bool, edit ...func(*Config)) *Handshake {
	t.Helper()
	return s.startKeys(t, initiator, systemRandom{FreshKeys{}}, edit...)
}

func (s *side) startKeys(t testing.TB, initiator bool, keys keySource, edit ...func(*Config)) *Handshake {
	t.Helper()
	c := s.config(initiator)
	for _, e := range edit {
		e(&c)
	}
	h, err := newHandshake(c, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// first returns message 1.
func (h *Handshake) first(t testing.TB) []byte {
	t.Helper()
	b, err := h.Start()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ok feeds b, which must be taken whole and well, and gives the answer.
func (h *Handshake) ok(t testing.TB, b []byte) []byte {
	t.Helper()
	n, out, err := h.Feed(b)
	if err != nil || n != len(b) {
		t.Fatalf("Feed took %d of %d bytes: %v", n, len(b), err)
	}
	return out
}

// refused feeds b, which must end the handshake with the code and with an error that holds want. It gives the answer.
func (h *Handshake) refused(t testing.TB, b []byte, code reason.Code, want string) []byte {
	t.Helper()
	_, out, err := h.Feed(b)
	e, isReason := err.(*reason.Error)
	if !isReason || e.Code != code || !strings.Contains(e.Error(), want) {
		t.Fatalf("Feed says %v; want %s and %q", err, code, want)
	}
	if h.Done() || h.Result() != nil || h.noise != nil || h.static != nil || h.dh != nil || h.decapsulation != nil {
		t.Fatal("something is left of a handshake that failed")
	}
	if n, again, err2 := h.Feed(b); n != 0 || again != nil || err2 != err {
		t.Fatalf("a second Feed gives %d, %x, %v", n, again, err2)
	}
	return out
}

// statusOf reads one status frame.
func statusOf(t testing.TB, b []byte) reason.Code {
	t.Helper()
	if len(b) != headerSize+statusSize || string(b[:4]) != magic || b[5] != byte(frameStatus) || b[10] != 1 || b[11] != 1 {
		t.Fatalf("%x is not a status frame", b)
	}
	s, err := parseStatus(b[headerSize:])
	if err != nil {
		t.Fatal(err)
	}
	return s.code
}
