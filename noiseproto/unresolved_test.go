package noiseproto

import (
	"bytes"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A lateVerifier says of each peer that DNS is to be asked first, until it is told the answer.
type lateVerifier struct {
	Verifier
	known bool
	err   error // instead of the verification, once it is known
	calls int
}

func (v *lateVerifier) Verify(identity []byte, static [32]byte) (*certbind.Peer, error) {
	v.calls++
	if !v.known {
		return nil, &certbind.Unresolved{Claimed: &certbind.Peer{Machine: "claimed.example.com", Account: "eve"}}
	}
	if v.err != nil {
		return nil, v.err
	}
	return v.Verifier.Verify(identity, static)
}

// late makes a verifier of this kind out of the side's own.
func late(v **lateVerifier) func(*Config) {
	return func(c *Config) {
		*v = &lateVerifier{Verifier: c.Verifier}
		c.Verifier = *v
	}
}

// waits feeds b, of which the handshake takes n bytes, after which it waits, and says nothing to anybody.
func (h *Handshake) waits(t testing.TB, b []byte, n int) {
	t.Helper()
	took, out, err := h.Feed(b)
	if err != nil || out != nil || took != n {
		t.Fatalf("Feed took %d of %d bytes, wants to send %x, and says %v", took, n, out, err)
	}
	if u := h.Unresolved(); u == nil || u.Claimed.Machine != "claimed.example.com" {
		t.Fatalf("it waits for %v", u)
	}
	if h.Done() || h.Result() != nil || h.Want() != 0 || h.Completes(b) {
		t.Error("a handshake that waits is done, or wants something")
	}
}

// Rule 58: a handshake that waits for DNS has said nothing and gives nothing out; what stands behind the frame stays unread
// until it goes on, and then all is as if nobody had waited.
func TestRule58Waits(t *testing.T) {
	alpha, beta := sides(t)
	var vi, vr *lateVerifier
	i, r := alpha.start(t, true, late(&vi)), beta.start(t, false, late(&vr))
	if i.Unresolved() != nil || r.Unresolved() != nil {
		t.Fatal("a handshake waits that has not begun")
	}
	m2 := r.ok(t, i.first(t))
	// A status 0 behind message 2 is the answer to message 3, whenever it was sent (docs/spec/protocol.md, section 3).
	accepted := StatusFrame(reason.Accepted)
	i.waits(t, append(bytes.Clone(m2), accepted...), len(m2))
	if out, err := i.Resume(); out != nil || err != nil || i.Unresolved() == nil {
		t.Fatalf("resumed without an answer: %x, %v", out, err)
	}
	vi.known = true
	m3, err := i.Resume()
	if err != nil || i.Unresolved() != nil || i.Done() {
		t.Fatalf("resumed: %v", err)
	}
	records := []byte("\x10\x00\x00\x00\x06\x00\x00\x00")
	r.waits(t, append(bytes.Clone(m3), records...), len(m3))
	vr.known = true
	st, err := r.Resume()
	if err != nil || !bytes.Equal(st, accepted) || !r.Done() {
		t.Fatalf("resumed: %x, %v", st, err)
	}
	if out := i.ok(t, accepted); out != nil {
		t.Errorf("an answer to the status: %x", out)
	}
	checkResults(t, i, r)
	if i.Result().Peer.String() != beta.name || r.Result().Peer.String() != alpha.name {
		t.Errorf("peers %v and %v", i.Result().Peer, r.Result().Peer)
	}
	if vi.calls != 3 || vr.calls != 2 {
		t.Errorf("verified %d and %d times", vi.calls, vr.calls)
	}
	if i.resume != nil || r.resume != nil {
		t.Error("something is left by which to resume")
	}
}

// Rule 58: every error is final while a handshake waits, and what was kept for going on is gone with it.
func TestRule58EndsWhileItWaits(t *testing.T) {
	alpha, beta := sides(t)
	for _, initiator := range []bool{true, false} {
		for _, c := range []struct {
			name string
			do   func(h *Handshake, v *lateVerifier) (out []byte, err error)
			code reason.Code
			told bool // the peer is told
		}{
			{"fed", func(h *Handshake, _ *lateVerifier) ([]byte, error) {
				n, out, err := h.Feed(StatusFrame(reason.Accepted))
				if n != 0 {
					t.Errorf("%d bytes were taken", n)
				}
				return out, err
			}, reason.Internal, true},
			{"fed nothing", func(h *Handshake, _ *lateVerifier) ([]byte, error) { _, out, err := h.Feed(nil); return out, err }, reason.Internal, true},
			{"disowned", func(h *Handshake, v *lateVerifier) ([]byte, error) {
				v.known, v.err = true, reason.Errorf(reason.UnknownCA, "DNS has no record")
				return h.Resume()
			}, reason.UnknownCA, true},
			{"aborted", func(h *Handshake, _ *lateVerifier) ([]byte, error) {
				out := h.Abort(reason.DNSUnknown)
				_, err := h.Resume()
				return out, err
			}, reason.DNSUnknown, true},
			{"closed", func(h *Handshake, _ *lateVerifier) ([]byte, error) { h.Close(); _, err := h.Resume(); return nil, err }, reason.Internal, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				var v *lateVerifier
				var h *Handshake
				if initiator {
					h = alpha.start(t, true, late(&v))
					m2 := beta.start(t, false).ok(t, h.first(t))
					h.waits(t, m2, len(m2))
				} else {
					h = beta.start(t, false, late(&v))
					i := alpha.start(t, true)
					m3 := i.ok(t, h.ok(t, i.first(t)))
					h.waits(t, m3, len(m3))
				}
				static, ephemeral := h.static, h.dh.ephemeral
				out, err := c.do(h, v)
				if reason.Of(err) != c.code || c.told != (out != nil) || c.told && statusOf(t, out) != c.code {
					t.Errorf("says %x, %v", out, err)
				}
				if static.Private != [32]byte{} || ephemeral.Private != [32]byte{} || h.resume != nil || h.Unresolved() != nil || h.noise != nil {
					t.Error("something is left of it")
				}
				v.known, v.err = true, nil
				if out, again := h.Resume(); out != nil || again != err || h.Done() || h.Result() != nil {
					t.Errorf("and then it is resumed: %x, %v", out, again)
				}
				h.refused(t, []byte("x"), c.code, "")
			})
		}
	}
	// One that does not wait is not resumed, wherever it stands.
	for name, h := range map[string]*Handshake{"before": alpha.start(t, true), "responder": beta.start(t, false)} {
		if _, err := h.Resume(); reason.Of(err) != reason.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	i, r := alpha.start(t, true), beta.start(t, false)
	run(t, i, r)
	if _, err := i.Resume(); err == nil || i.Done() || i.Result() != nil {
		t.Errorf("resumed when it was done: %v", err)
	}
}
