package noiseproto

import (
	"bytes"
	"crypto/mlkem"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
)

func sides(t testing.TB) (alpha, beta *side) {
	return newSide(t, "alpha.example.com", "alice"), newSide(t, "beta.example.com", "bob")
}

// run brings a handshake to its end and gives its four frames.
func run(t testing.TB, i, r *Handshake) (frames [4][]byte) {
	t.Helper()
	frames[0] = i.first(t)
	frames[1] = r.ok(t, frames[0])
	frames[2] = i.ok(t, frames[1])
	if i.Done() || i.Result() != nil {
		t.Fatal("an initiator has a result before the status")
	}
	frames[3] = r.ok(t, frames[2])
	if out := i.ok(t, frames[3]); out != nil {
		t.Fatalf("an answer to the status: %x", out)
	}
	checkResults(t, i, r)
	return frames
}

func checkResults(t testing.TB, i, r *Handshake) {
	t.Helper()
	if !i.Done() || !r.Done() {
		t.Fatal("not done")
	}
	a, b := i.Result(), r.Result()
	if a.KeyData != b.KeyData || a.KeyData == [64]byte{} || bytes.Equal(a.KeyData[:32], a.KeyData[32:]) {
		t.Fatal("bad key data")
	}
	if a.Sent != b.Received || a.Received != b.Sent {
		t.Fatalf("sizes differ: %d/%d and %d/%d", a.Sent, a.Received, b.Sent, b.Received)
	}
	if len(i.ID()) != 16 || i.ID() != r.ID() {
		t.Fatalf("IDs %q and %q", i.ID(), r.ID())
	}
}

func TestHandshake(t *testing.T) {
	alpha, beta := sides(t)
	i := alpha.start(t, true, func(c *Config) {
		c.Params.ApplicationProtocols = []string{"x", "grpc", "h2", "x"}
		c.Params.TransportProtocols = []string{"t9", "t2", "t1"}
		c.Params.RPCVersions = RPCVersions{Version{3, 0}, Version{2, 1}}
		c.Params.MaxFrameSize = 7
	})
	r := beta.start(t, false, func(c *Config) {
		c.Params.ApplicationProtocols = []string{"h2", "grpc"}
		c.Params.RecordProtocols = []string{"ALTSRP_GMAC_128", RecordProtocol}
		c.Params.TransportProtocols = []string{"t1", "t2"}
		c.Params.RPCVersions = RPCVersions{Version{2, 2}, Version{1, 9}}
		c.Params.MaxFrameSize = 0
	})
	if i.ID() != "" || r.ID() != "" || r.received != 0 {
		t.Fatal("a handshake that has not begun has an ID, or has received something")
	}
	if b, err := r.Start(); b != nil || err != nil {
		t.Fatalf("a responder starts with %x, %v", b, err)
	}
	static := i.static
	f := run(t, i, r)
	if static.Private != [32]byte{} {
		t.Error("the static key was not wiped")
	}
	a, b := i.Result(), r.Result()
	if a.Peer.String() != beta.name || b.Peer.String() != alpha.name {
		t.Errorf("peers %s and %s", a.Peer, b.Peer)
	}
	if a.ApplicationProtocol != "grpc" || b.ApplicationProtocol != "grpc" || a.RecordProtocol != RecordProtocol ||
		b.RecordProtocol != RecordProtocol || a.TransportProtocol != "t2" || b.TransportProtocol != "t2" {
		t.Errorf("chosen: %+v, %+v", a, b)
	}
	if a.PeerMaxFrameSize != 0 || b.PeerMaxFrameSize != 7 ||
		a.PeerRPCVersions != (RPCVersions{Version{2, 2}, Version{1, 9}}) ||
		b.PeerRPCVersions != (RPCVersions{Version{3, 0}, Version{2, 1}}) {
		t.Errorf("passed on: %+v, %+v", a, b)
	}
	if a.Sent != len(f[0])+len(f[2]) || a.Received != len(f[1])+len(f[3]) {
		t.Errorf("sent %d, received %d", a.Sent, a.Received)
	}
	if len(f[0]) != headerSize+message1Size || statusOf(t, f[3]) != reason.Accepted {
		t.Errorf("message 1 of %d bytes, status %x", len(f[0]), f[3])
	}
	if n, out, err := i.Feed([]byte("record")); n != 0 || out != nil || err != nil || i.received != a.Received {
		t.Errorf("bytes after the end: %d, %x, %v", n, out, err)
	}
	key := a.KeyData
	i.Close()
	i.Close()
	if i.Done() || i.Result() != nil || a.KeyData != key {
		t.Error("Close must drop the result but leave the caller's")
	}
	if _, _, err := i.Feed(nil); reason.Of(err) != reason.Internal {
		t.Errorf("Feed after Close: %v", err)
	}
	a.Wipe()
	if a.KeyData != [64]byte{} {
		t.Error("Wipe left the key data")
	}
}

// One static key may be in both roles of one handshake.
func TestSelfTalk(t *testing.T) {
	s, _ := sides(t)
	i, r := s.start(t, true), s.start(t, false)
	run(t, i, r)
	if i.Result().Peer.String() != s.name || r.Result().Peer.String() != s.name {
		t.Error("wrong peer")
	}
}

// Any segmentation gives the same result, and nothing past the last frame is taken.
func TestSegmentation(t *testing.T) {
	alpha, beta := sides(t)
	record := bytes.Repeat([]byte("record"), 100)
	for _, size := range []int{1, 16, 1000, 1 << 20} {
		i, r := alpha.start(t, true), beta.start(t, false)
		// feed returns b to h in segments and returns the answer and what was left.
		feed := func(h *Handshake, b []byte) (out, rest []byte) {
			for len(b) > 0 && !h.Done() {
				seg := b[:min(size, len(b))]
				n, o, err := h.Feed(slices.Clone(seg))
				if err != nil {
					t.Fatal(err)
				}
				if n != len(seg) && !h.Done() {
					t.Fatalf("took %d of %d bytes before the end", n, len(seg))
				}
				out, b = append(out, o...), b[n:]
			}
			return out, b
		}
		m2, _ := feed(r, i.first(t))
		m3, _ := feed(i, m2)
		st, rest := feed(r, slices.Concat(m3, record))
		if !bytes.Equal(rest, record) {
			t.Errorf("segments of %d: the responder left %d bytes of %d", size, len(rest), len(record))
		}
		if _, rest = feed(i, slices.Concat(st, record)); !bytes.Equal(rest, record) {
			t.Errorf("segments of %d: the initiator left %d bytes of %d", size, len(rest), len(record))
		}
		checkResults(t, i, r)
	}
}

// A frame that is cut anywhere gives neither an error nor a result, nor an answer.
func TestTruncated(t *testing.T) {
	alpha, beta := sides(t)
	i, r := alpha.start(t, true), beta.start(t, false)
	cut := func(h *Handshake, b []byte) {
		t.Helper()
		if out := h.ok(t, b[:len(b)-1]); out != nil || h.Done() {
			t.Fatal("something came of a frame without its last byte")
		}
		if out := h.ok(t, nil); out != nil || h.Done() {
			t.Fatal("something came of nothing")
		}
	}
	m1 := i.first(t)
	cut(r, m1)
	m2 := r.ok(t, m1[len(m1)-1:])
	cut(i, m2)
	m3 := i.ok(t, m2[len(m2)-1:])
	cut(r, m3)
	st := r.ok(t, m3[len(m3)-1:])
	cut(i, st)
	i.ok(t, st[len(st)-1:])
	checkResults(t, i, r)
}

// Every state, every wrong frame.
func TestOrderAndLength(t *testing.T) {
	alpha, beta := sides(t)
	m := run(t, alpha.start(t, true), beta.start(t, false))
	states := []struct {
		name string
		want frameType
		make func() *Handshake
	}{
		{"wait-1", frameMessage1, func() *Handshake { return beta.start(t, false) }},
		{"wait-2", frameMessage2, func() *Handshake { h := alpha.start(t, true); h.first(t); return h }},
		{"wait-3", frameMessage3, func() *Handshake { h := beta.start(t, false); h.ok(t, m[0]); return h }},
		{"wait-status", frameStatus, func() *Handshake {
			h := alpha.start(t, true)
			h.ok(t, beta.start(t, false).ok(t, h.first(t)))
			return h
		}},
	}
	for _, s := range states {
		t.Run(s.name, func(t *testing.T) {
			for typ := range 7 {
				head := make([]byte, headerSize)
				length := message1Size
				if typ == 4 {
					length = statusSize
				}
				putHeader(head, 1, frameType(typ), length)
				if frameType(typ) == s.want || typ == 4 {
					continue
				}
				out := s.make().refused(t, head, reason.Malformed, "where a "+s.want.String()+" must come")
				if statusOf(t, out) != reason.Malformed {
					t.Error("wrong status")
				}
			}
			lo, hi := s.want.bounds()
			for _, n := range []int{0, lo - 1, hi + 1, 65535} {
				head := make([]byte, headerSize)
				putHeader(head, 1, s.want, n)
				h := s.make()
				h.refused(t, head, reason.Malformed, fmt.Sprintf("%s of %d bytes, it must have %d to %d", s.want, n, lo, hi))
			}
			for _, n := range []int{lo, hi} { // within the bounds the header alone is no error, and costs nothing
				head := make([]byte, headerSize)
				putHeader(head, 1, s.want, n)
				h := s.make()
				h.ok(t, head)
				if h.reader.partial != nil {
					t.Error("a body was made room for before any of it came")
				}
			}
			if s.want != frameStatus {
				out := s.make().refused(t, StatusFrame(reason.Accepted), reason.Malformed, "accepting status")
				if statusOf(t, out) != reason.Malformed {
					t.Error("wrong status")
				}
			}
			head := make([]byte, headerSize)
			putHeader(head, 1, frameStatus, statusSize+1)
			s.make().refused(t, head, reason.Malformed, "status of 5 bytes")
			// A refusal ends it anywhere, in any version, and is not answered.
			for c := reason.Accepted + 1; c < reason.OwnCertificate+2; c++ {
				f := StatusFrame(c)
				f[4] = 77
				h := s.make()
				if out := h.refused(t, f, c, "the peer's daemon refused"); out != nil {
					t.Error("a refusal was answered")
				}
				if e := h.err.(*reason.Error); !e.ByPeer {
					t.Error("not marked as the peer's")
				}
			}
		})
	}
}

// fixedTranscript is one handshake with known keys, so that either side can be put before any damaged frame anew.
type fixedTranscript struct {
	alpha, beta *side
	frames      [4][]byte
}

func newFixedTranscript(t testing.TB) *fixedTranscript {
	f := &fixedTranscript{
		alpha: sideWithKey(t, "alpha.example.com", "alice", bytes.Repeat([]byte{1}, 32)),
		beta:  sideWithKey(t, "beta.example.com", "bob", bytes.Repeat([]byte{2}, 32)),
	}
	f.frames = run(t, f.initiator(t), f.responder(t))
	return f
}

func (f *fixedTranscript) initiator(t testing.TB) *Handshake {
	return f.alpha.startKeys(t, true,
		&fixedKeys{ephemeral: bytes.Repeat([]byte{3}, 32), seed: bytes.Repeat([]byte{4}, 64)})
}

func (f *fixedTranscript) responder(t testing.TB) *Handshake {
	return f.beta.startKeys(t, false,
		&fixedKeys{ephemeral: bytes.Repeat([]byte{5}, 32), randomness: bytes.Repeat([]byte{6}, 32)})
}

// receiver returns the side that takes frame i, in the state that expects it.
func (f *fixedTranscript) receiver(t testing.TB, i int) *Handshake {
	if i%2 == 0 {
		r := f.responder(t)
		if i == 2 {
			r.ok(t, f.frames[0])
		}
		return r
	}
	h := f.initiator(t)
	h.first(t)
	if i == 3 {
		h.ok(t, f.frames[1])
	}
	return h
}

// Each flipped bit of a header, and a sample of those of the bodies, is an error of the side that receives it.
func TestBitFlips(t *testing.T) {
	f := newFixedTranscript(t)
	junk := make([]byte, 1<<16) // so that a greater length is filled
	rng := rand.New(rand.NewPCG(1, 2))
	for i, whole := range f.frames {
		bits := make([]int, 0, 200)
		for b := range headerSize * 8 {
			bits = append(bits, b)
		}
		if i == 3 {
			for b := headerSize * 8; b < (headerSize+2)*8; b++ { // the code; the versions after it are informative
				bits = append(bits, b)
			}
		} else {
			for range 120 {
				bits = append(bits, headerSize*8+rng.IntN((len(whole)-headerSize)*8))
			}
			bits = append(bits, headerSize*8+255, len(whole)*8-1)
		}
		for _, bit := range bits {
			bad := slices.Concat(whole, junk)
			bad[bit/8] ^= 1 << (bit % 8)
			h := f.receiver(t, i)
			_, _, err := h.Feed(bad)
			if i == 3 && bit/8 == 4 { // a status is taken in any version
				if err != nil || !h.Done() {
					t.Errorf("a status of another version: %v", err)
				}
				continue
			}
			if err == nil || h.Done() || h.Result() != nil {
				t.Errorf("frame %d with bit %d flipped was taken", i+1, bit)
			}
		}
	}
}

// A message sent back to its sender, or taken into another handshake, is refused.
func TestReflectedAndCrossed(t *testing.T) {
	alpha, beta := sides(t)
	i := alpha.start(t, true)
	i.refused(t, i.first(t), reason.Malformed, "sent a message 1 where a message 2 must come")
	i = alpha.start(t, true)
	m1 := i.first(t)
	i.refused(t, frame(1, frameMessage2, m1[headerSize:]), reason.DecryptionFailed, "message 2")

	i, r := alpha.start(t, true), beta.start(t, false)
	m2 := r.ok(t, i.first(t))
	r.refused(t, frame(1, frameMessage3, m2[headerSize:]), reason.DecryptionFailed, "message 3")

	i1, i2, r1, r2 := alpha.start(t, true), alpha.start(t, true), beta.start(t, false), beta.start(t, false)
	a2, b2 := r1.ok(t, i1.first(t)), r2.ok(t, i2.first(t))
	a3, b3 := i1.ok(t, a2), i2.ok(t, b2)
	i1, i2 = alpha.start(t, true), alpha.start(t, true)
	i1.first(t)
	i2.first(t)
	i1.refused(t, b2, reason.DecryptionFailed, "message 2")
	i2.refused(t, a2, reason.DecryptionFailed, "message 2")
	r1.refused(t, b3, reason.DecryptionFailed, "message 3")
	r2.refused(t, a3, reason.DecryptionFailed, "message 3")
}

// A repeated message is refused on its header.
func TestRepeated(t *testing.T) {
	alpha, beta := sides(t)
	i, r := alpha.start(t, true), beta.start(t, false)
	m1 := i.first(t)
	m2 := r.ok(t, m1)
	r.refused(t, m1, reason.Malformed, "sent a message 1 where a message 3 must come")
	i.ok(t, m2)
	i.refused(t, m2, reason.Malformed, "sent a message 2 where a status must come")
	out := beta.start(t, false).refused(t, slices.Concat(m1, m1), reason.Malformed, "message 1 where a message 3")
	if statusOf(t, out) != reason.Malformed { // alone: message 2 is kept back
		t.Error("wrong answer")
	}
}

// lowOrder holds points on the curve and its twist whose order divides 8, in every encoding below 2^255.
var lowOrder = func() (points [][]byte) {
	for _, p := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		var h hexBytes
		if err := h.UnmarshalText([]byte(p)); err != nil {
			panic(err)
		}
		points = append(points, h)
	}
	return points
}()

// A peer whose keys are of low order knows all DH results. It is refused wherever it puts them.
func TestLowOrderPoints(t *testing.T) {
	alpha, beta := sides(t)
	for _, p := range lowOrder {
		ref := newRefInitiator(t, alpha)
		ref.ePub = p
		h := beta.start(t, false)
		out := h.refused(t, frame(1, frameMessage1, ref.write(0, ref.dk.EncapsulationKey().Bytes())),
			reason.DecryptionFailed, "low order")
		if statusOf(t, out) != reason.DecryptionFailed {
			t.Error("wrong status")
		}

		ref = newRefInitiator(t, alpha)
		ref.sPub = p
		h = beta.start(t, false)
		ref.toMessage3(t, h)
		// The reference computes se with its true key; the responder computes zero first, so it refuses before it decrypts.
		h.refused(t, frame(1, frameMessage3, ref.write(2, ref.payload3(t, alpha, nil))), reason.DecryptionFailed, "low order")

		for _, lie := range []string{"e", "s"} {
			i := alpha.start(t, true)
			r := newRefResponder(t, beta, i.first(t))
			if lie == "e" {
				r.ePub = p
			} else {
				r.sPub = p
			}
			i.refused(t, r.message2(t, nil, nil), reason.DecryptionFailed, "low order")
		}
	}
}

// payload3 is a well-formed payload of message 3, its choice changed by edit.
func (r *refInitiator) payload3(t testing.TB, s *side, edit func(*choice)) []byte {
	c := choice{"grpc", RecordProtocol, testParams.RPCVersions, 0, ""}
	if edit != nil {
		edit(&c)
	}
	return opaque16(opaque16(nil, s.attest().Identity), rawChoice(c))
}

// A refResponder answers a message 1 by the reference implementation.
type refResponder struct {
	*refParty
	identity, ciphertext []byte
}

func newRefResponder(t testing.TB, s *side, m1 []byte) *refResponder {
	t.Helper()
	a := s.attest()
	e, err := FreshKeys{}.X25519()
	if err != nil {
		t.Fatal(err)
	}
	r := &refResponder{refParty: newRef(false, refName, prologue(1), x25519Key(t, a.Private[:]), e), identity: a.Identity}
	b, err := r.read(0, m1[headerSize:])
	if err != nil {
		t.Fatal(err)
	}
	ek, err := mlkem.NewEncapsulationKey768(b)
	if err != nil {
		t.Fatal(err)
	}
	r.psk, r.ciphertext = ek.Encapsulate()
	return r
}

// payload2 is a payload of message 2 with an offer as it is given.
func (r *refResponder) payload2(offer []byte) []byte {
	return opaque16(opaque16(bytes.Clone(r.ciphertext), r.identity), offer)
}

// message2 returns the frame with the payload, or with a good one whose offer edit changed.
func (r *refResponder) message2(t testing.TB, payload []byte, edit func(*Params)) []byte {
	if payload == nil {
		p := testParams
		if edit != nil {
			edit(&p)
		}
		payload = r.payload2(rawOffer(p))
	}
	return frame(1, frameMessage2, r.write(1, payload))
}

// The reference implementation completes a handshake with the package in both roles.
func TestReferencePeers(t *testing.T) {
	alpha, beta := sides(t)
	ref := newRefInitiator(t, alpha)
	h := beta.start(t, false)
	ref.toMessage3(t, h)
	st := h.ok(t, frame(1, frameMessage3, ref.write(2, ref.payload3(t, alpha, nil))))
	if statusOf(t, st) != reason.Accepted || !bytes.Equal(h.Result().KeyData[:], ref.split()) {
		t.Error("the reference initiator has another key")
	}
	i := alpha.start(t, true)
	resp := newRefResponder(t, beta, i.first(t))
	m3 := i.ok(t, resp.message2(t, nil, nil))
	if _, err := resp.read(2, m3[headerSize:]); err != nil {
		t.Fatal(err)
	}
	i.ok(t, StatusFrame(reason.Accepted))
	if !bytes.Equal(i.Result().KeyData[:], resp.split()) {
		t.Error("the reference responder has another key")
	}
}

// The psk is what ML-KEM gave: neither an empty psk nor one of zeros passes, nor message 3 without it, and a
// responder that sent another ciphertext cannot read message 3.
func TestPSKIsDemanded(t *testing.T) {
	alpha, beta := sides(t)
	for _, psk := range [][]byte{nil, make([]byte, 32)} {
		ref := newRefInitiator(t, alpha)
		h := beta.start(t, false)
		if h.state != stateWait1 || h.noise != nil {
			t.Fatal("a fresh responder has a Noise state")
		}
		ref.toMessage3(t, h)
		ref.psk = psk
		out := h.refused(t, frame(1, frameMessage3, ref.write(2, ref.payload3(t, alpha, nil))), reason.DecryptionFailed,
			"message 3")
		if statusOf(t, out) != reason.DecryptionFailed {
			t.Error("wrong status")
		}
	}
	i := alpha.start(t, true)
	resp := newRefResponder(t, beta, i.first(t))
	resp.ciphertext[0] ^= 1
	m3 := i.ok(t, resp.message2(t, nil, nil))
	if _, err := resp.read(2, m3[headerSize:]); err == nil {
		t.Error("message 3 was read without the psk")
	}
}

// FIPS 203, section 7.2: coefficients are below 3329.
func TestBadEncapsulationKey(t *testing.T) {
	alpha, beta := sides(t)
	for _, at := range []int{0, 384*3 - 3} {
		ref := newRefInitiator(t, alpha)
		ek := ref.dk.EncapsulationKey().Bytes()
		ek[at], ek[at+1], ek[at+2] = 0xff, 0xff, 0xff
		out := beta.start(t, false).refused(t, frame(1, frameMessage1, ref.write(0, ek)), reason.DecryptionFailed,
			"encapsulation key is not valid")
		if statusOf(t, out) != reason.DecryptionFailed {
			t.Error("wrong status")
		}
	}
}

// Payloads that decrypt but break their format.
func TestBadPayloads(t *testing.T) {
	alpha, beta := sides(t)
	id := beta.attest().Identity
	offer := rawOffer(testParams)
	ct := make([]byte, mlkem.CiphertextSize768)
	pad := make([]byte, 100)
	for want, payload := range map[string][]byte{
		`inside the field "identity"`:                           slices.Concat(ct, []byte{0x50, 0}, pad),
		`"identity" has 0 bytes`:                                slices.Concat(ct, []byte{0, 0}, pad),
		`"identity" has 21505 bytes`:                            slices.Concat(ct, []byte{0x54, 1}, pad),
		`inside the field "offer"`:                              slices.Concat(opaque16(ct[:len(ct):len(ct)], id), []byte{1, 0}),
		`"offer" has 0 bytes`:                                   slices.Concat(opaque16(ct[:len(ct):len(ct)], id), []byte{0, 0}),
		`"offer" has 2049 bytes`:                                slices.Concat(opaque16(ct[:len(ct):len(ct)], id), []byte{8, 1}, make([]byte, 2049)),
		"message 2 is malformed: 1 bytes follow its last field": slices.Concat(opaque16(opaque16(ct[:len(ct):len(ct)], id), offer), []byte{0}),
		`"application protocols" has 0 entries`:                 slices.Concat(opaque16(opaque16(ct[:len(ct):len(ct)], id), []byte{0})),
	} {
		i := alpha.start(t, true)
		out := i.refused(t, newRefResponder(t, beta, i.first(t)).message2(t, payload, nil), reason.Malformed, want)
		if statusOf(t, out) != reason.Malformed {
			t.Error("wrong status")
		}
	}
	id = alpha.attest().Identity
	good := rawChoice(choice{"grpc", RecordProtocol, testParams.RPCVersions, 0, ""})
	for want, payload := range map[string][]byte{
		`inside the field "identity"`:                                   slices.Concat([]byte{0x50, 0}, pad),
		`"identity" has 0 bytes`:                                        slices.Concat([]byte{0, 0}, pad),
		`"choice" has 2049 bytes`:                                       slices.Concat(opaque16(nil, id), []byte{8, 1}, make([]byte, 2049)),
		"message 3 is malformed: 1 bytes follow its last field":         slices.Concat(opaque16(opaque16(nil, id), good), []byte{0}),
		"the peer's choice is malformed: 1 bytes follow its last field": opaque16(opaque16(nil, id), append(slices.Clone(good), 0)),
	} {
		ref := newRefInitiator(t, alpha)
		h := beta.start(t, false)
		ref.toMessage3(t, h)
		h.refused(t, frame(1, frameMessage3, ref.write(2, payload)), reason.Malformed, want)
	}
}

// The initiator refuses what it has nothing in common with, and then message 3 was never written.
func TestOffers(t *testing.T) {
	alpha, beta := sides(t)
	for _, c := range []struct {
		edit func(*Params)
		code reason.Code
		want string
	}{
		{func(p *Params) { p.ApplicationProtocols = []string{"h3"} }, reason.NoApplicationProtocol, `speaks ["grpc"], the peer's ["h3"]`},
		{func(p *Params) { p.RecordProtocols = []string{"ALTSRP_GMAC_128"} }, reason.NoRecordProtocol, "ALTSRP_GMAC_128"},
		{func(p *Params) { p.RPCVersions = RPCVersions{Version{2, 0}, Version{1, 0}} }, reason.NoRPCVersion, "2.1 to 2.1, the peer's 1.0 to 2.0"},
		{func(p *Params) { p.RPCVersions = RPCVersions{Version{9, 0}, Version{3, 0}} }, reason.NoRPCVersion, "upgrade"},
	} {
		i := alpha.start(t, true)
		out := i.refused(t, newRefResponder(t, beta, i.first(t)).message2(t, nil, c.edit), c.code, c.want)
		if statusOf(t, out) != c.code {
			t.Error("wrong status")
		}
	}
}

// The responder refuses what it did not offer.
func TestBadChoices(t *testing.T) {
	alpha, beta := sides(t)
	for _, c := range []struct {
		edit func(*choice)
		code reason.Code
	}{
		{func(c *choice) { c.application = "h3" }, reason.BadChoice},
		{func(c *choice) { c.record = "ALTSRP_GMAC_128" }, reason.BadChoice},
		{func(c *choice) { c.transport = "t" }, reason.BadChoice},
		{func(c *choice) { c.rpcVersions = RPCVersions{Version{2, 0}, Version{1, 0}} }, reason.NoRPCVersion},
	} {
		ref := newRefInitiator(t, alpha)
		h := beta.start(t, false)
		ref.toMessage3(t, h)
		out := h.refused(t, frame(1, frameMessage3, ref.write(2, ref.payload3(t, alpha, c.edit))), c.code, "")
		if statusOf(t, out) != c.code {
			t.Error("wrong status")
		}
	}
}

type verifierFunc func([]byte, [32]byte) (*certbind.Peer, error)

func (f verifierFunc) Verify(b []byte, k [32]byte) (*certbind.Peer, error) { return f(b, k) }

// What the verifier or the caller refuses is told to the peer, and an initiator that refuses has not written message 3.
func TestRefusals(t *testing.T) {
	alpha, beta := sides(t)
	asked := 0
	verify := func(p *certbind.Peer, err error) func(*Config) {
		return func(c *Config) {
			c.Verifier = verifierFunc(func([]byte, [32]byte) (*certbind.Peer, error) { return p, err })
			c.Authorize = func(*certbind.Peer) error { asked++; return nil }
		}
	}
	authorize := func(err error) func(*Config) {
		return func(c *Config) { c.Authorize = func(p *certbind.Peer) error { return err } }
	}
	permit := func(err error) func(*Config) {
		return func(c *Config) { c.Permit = func(*certbind.Peer, string) error { return err } }
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
		code reason.Code
		want string
	}{
		{"reason", verify(nil, reason.Errorf(reason.UnknownCA, "no CA")), reason.UnknownCA, "no CA (unknown_ca)"},
		{"wrapped reason", verify(nil, fmt.Errorf("so: %w", reason.Errorf(reason.CertificateExpired, "old"))), reason.CertificateExpired, "old"},
		{"other error", verify(&certbind.Peer{}, errors.New("broken")), reason.Internal, "broken"},
		{"nil reason", verify(&certbind.Peer{}, (*reason.Error)(nil)), reason.Internal, "without saying why"},
		{"no peer", verify(nil, nil), reason.Internal, "no peer"},
		{"accepting error", verify(nil, reason.Errorf(reason.Accepted, "odd")), reason.Internal, "odd"},
		{"target", authorize(reason.Errorf(reason.TargetMismatch, "not alice")), reason.TargetMismatch, "not alice"},
		{"authorize fails", authorize(errors.New("broken")), reason.Internal, "broken"},
		{"policy", permit(reason.Errorf(reason.DeniedByPolicy, "by line 7")), reason.DeniedByPolicy, "by line 7"},
		{"policy fails", permit(errors.New("broken")), reason.Internal, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = 0
			i, r := alpha.start(t, true, c.edit), beta.start(t, false)
			out := i.refused(t, r.ok(t, i.first(t)), c.code, c.want)
			if len(out) != headerSize+statusSize || statusOf(t, out) != c.code {
				t.Errorf("the initiator says %x", out)
			}
			r.refused(t, out, c.code, "the peer's daemon refused")

			i, r = alpha.start(t, true), beta.start(t, false, c.edit)
			out = r.refused(t, i.ok(t, r.ok(t, i.first(t))), c.code, c.want)
			if statusOf(t, out) != c.code {
				t.Errorf("the responder says %x", out)
			}
			i.refused(t, out, c.code, "the peer's daemon refused")
			if asked != 0 {
				t.Error("Authorize was asked about a peer that was not verified")
			}
		})
	}
}

// Who the peer is comes before what it offers or chose: an identity that is refused hides a malformed negotiation.
func TestIdentityBeforeNegotiation(t *testing.T) {
	alpha, beta := sides(t)
	for code, edit := range map[reason.Code]func(*Config){
		reason.Malformed: func(*Config) {},
		reason.TargetMismatch: func(c *Config) {
			c.Authorize = func(*certbind.Peer) error { return reason.Errorf(reason.TargetMismatch, "not alice") }
		},
	} {
		i := alpha.start(t, true, edit)
		r := newRefResponder(t, beta, i.first(t))
		i.refused(t, r.message2(t, r.payload2([]byte{0xff}), nil), code, "")

		ref := newRefInitiator(t, alpha)
		h := beta.start(t, false, edit)
		ref.toMessage3(t, h)
		m3 := opaque16(opaque16(nil, alpha.attest().Identity), []byte{0xff})
		h.refused(t, frame(1, frameMessage3, ref.write(2, m3)), code, "")
	}
}

// Policy comes last: it hears of a peer who is verified and wanted, and of the protocol that was chosen, on each side.
func TestPermitIsLast(t *testing.T) {
	alpha, beta := sides(t)
	var heard []string
	note := func(c *Config) {
		c.Authorize = func(p *certbind.Peer) error { heard = append(heard, "authorize "+p.String()); return nil }
		c.Permit = func(p *certbind.Peer, application string) error {
			heard = append(heard, "permit "+p.String()+" "+application)
			return nil
		}
	}
	two := func(first, second string) func(*Config) {
		return func(c *Config) { c.Params.ApplicationProtocols = []string{first, second} }
	}
	i, r := alpha.start(t, true, note, two("grpc", "6432")), beta.start(t, false, note, two("6432", "grpc"))
	if i.ok(t, r.ok(t, i.ok(t, r.ok(t, i.first(t))))); !i.Done() || !r.Done() {
		t.Fatal("the handshake is not done")
	}
	want := []string{"authorize " + beta.name, "permit " + beta.name + " grpc", "authorize " + alpha.name, "permit " + alpha.name + " grpc"}
	if !slices.Equal(heard, want) {
		t.Errorf("asked %q, want %q", heard, want)
	}
	heard = nil
	alone := func(name string) func(*Config) {
		return func(c *Config) { c.Params.ApplicationProtocols = []string{name} }
	}
	i, r = alpha.start(t, true, note, alone("grpc")), beta.start(t, false, note, alone("6432"))
	i.refused(t, r.ok(t, i.first(t)), reason.NoApplicationProtocol, "")
	if want := []string{"authorize " + beta.name}; !slices.Equal(heard, want) {
		t.Errorf("without a choice: asked %q, want %q", heard, want)
	}
}

// The verifier gets the key that Noise authenticated, so another's identity is of no use.
func TestStolenIdentity(t *testing.T) {
	alpha, beta := sides(t)
	mallory := newSide(t, "mallory.example.com", "mallory")
	i := mallory.start(t, true, func(c *Config) { c.Static.Identity = alpha.attest().Identity })
	r := beta.start(t, false)
	r.refused(t, i.ok(t, r.ok(t, i.first(t))), reason.StatementInvalid, "static key")
}

func TestVersions(t *testing.T) {
	_, beta := sides(t)
	for _, v := range []byte{0, 2, 255} {
		head := make([]byte, headerSize)
		putHeader(head, v, 9, 65535) // of another version, neither type nor length means anything
		out := beta.start(t, false).refused(t, head, reason.UnsupportedVersion,
			fmt.Sprintf("the peer speaks version %d of the protocol, this daemon serves version 1; upgrade", v))
		if want := []byte("salt\x01\x04\x00\x04\x00\x01\x01\x01"); !bytes.Equal(out, want) {
			t.Errorf("answer %x, want %x", out, want)
		}
	}
	alpha, _ := sides(t)
	i := alpha.start(t, true)
	m2 := beta.start(t, false).ok(t, i.first(t))
	m2[4] = 2
	i.refused(t, m2[:headerSize], reason.UnsupportedVersion, "answered in version 2 of the protocol, version 1 was begun")

	i = alpha.start(t, true)
	i.first(t)
	out := i.refused(t, []byte("salt\x09\x04\x00\x04\x00\x01\x03\x09"), reason.UnsupportedVersion,
		"it serves versions 3 to 9, this daemon spoke 1;")
	if out != nil || !i.err.(*reason.Error).ByPeer {
		t.Error("a refusal was answered, or is not marked as the peer's")
	}
}

func TestForeignPeers(t *testing.T) {
	alpha, beta := sides(t)
	for _, c := range []struct{ bytes, want string }{
		{"\x16\x03\x01\x02\x00\x01\x00", "speaks TLS, not ALTS: use ALTS credentials"},
		{"\x16", "speaks TLS"},
		{"\x15\x03\x03\x00\x02\x02\x16", "speaks TLS"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "insecure gRPC"},
		{"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", "insecure gRPC"},
		{"\x00\x00\x08\x07\x00\x00\x00\x00\x00", "insecure gRPC"},
		{"GET / HTTP/1.1\r\n", "speaks HTTP, not"},
		{"POST /x HTTP/1.1\r\n", "speaks HTTP, not"},
		{"P", "speaks HTTP, not"},
		{"HTTP/1.1 400 Bad Request\r\n", "speaks HTTP, not"},
		{"SSH-2.0-OpenSSH_9.9\r\n", "speaks SSH, not ALTS: check the port"},
		{"S", "speaks SSH"},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "speaks zero bytes"},
		{"\x20\x00\x00\x00\x06\x00\x00\x00abcdefgh", "ALTS record protocol"},
		{"hello, world", "something unknown (its first bytes are 68 65 6c 6c)"},
		{"salsa", "something unknown (its first bytes are 73 61 6c 73)"},
		{"\xff", "something unknown"},
	} {
		for role, h := range map[string]*Handshake{"the client": beta.start(t, false), "the server": alpha.start(t, true)} {
			_, _ = h.Start()
			if out := h.refused(t, []byte(c.bytes), reason.Malformed, c.want); out != nil {
				t.Errorf("%q was answered by %x", c.bytes, out)
			}
			if !errors.Is(h.err, ErrForeign) ||
				!bytes.HasPrefix([]byte(h.err.Error()), []byte(role+" at the other end speaks ")) {
				t.Errorf("%q: %v", c.bytes, h.err)
			}
			if h.Abort(reason.TimedOut) != nil {
				t.Error("Abort gives a frame for a peer that is not ours")
			}
		}
	}
	// In one piece with the beginning of a magic, and behind a message that was ours.
	h := beta.start(t, false)
	h.ok(t, []byte("sa"))
	h.refused(t, []byte("mba"), reason.Malformed, "first bytes are 73 61 6d 62")
	h = beta.start(t, false)
	if out := h.refused(t, append(alpha.start(t, true).first(t), "GET / HTTP/1.1"...), reason.Malformed,
		"HTTP"); out != nil {
		t.Errorf("answered by %x", out)
	}
}

// The shared secret is wiped as soon as Noise has it.
func TestSecretIsWiped(t *testing.T) {
	alpha, beta := sides(t)
	keys := &fixedKeys{ephemeral: bytes.Repeat([]byte{5}, 32), randomness: bytes.Repeat([]byte{6}, 32)}
	r := beta.startKeys(t, false, keys)
	i := alpha.start(t, true)
	m2 := r.ok(t, i.first(t))
	if !bytes.Equal(keys.secret, make([]byte, 32)) {
		t.Error("the shared secret was left")
	}
	i.ok(t, r.ok(t, i.ok(t, m2)))
	checkResults(t, i, r)
}

func TestMisuse(t *testing.T) {
	alpha, beta := sides(t)
	i := alpha.start(t, true)
	i.first(t)
	if _, err := i.Start(); reason.Of(err) != reason.Internal {
		t.Errorf("second Start: %v", err)
	}
	if _, _, err := i.Feed(nil); reason.Of(err) != reason.Internal {
		t.Errorf("Feed after it: %v", err)
	}
	i = alpha.start(t, true)
	i.refused(t, StatusFrame(reason.Accepted), reason.Internal, "before the handshake was started")
	if _, err := i.Start(); err == nil {
		t.Error("Start after a failure")
	}

	r := beta.start(t, false)
	static := r.static
	r.ok(t, alpha.start(t, true).first(t))
	dh := r.dh
	if statusOf(t, r.Abort(reason.TimedOut)) != reason.TimedOut || r.Abort(reason.TimedOut) != nil {
		t.Error("Abort must give one status")
	}
	if static.Private != [32]byte{} || static.Key != nil || dh.ephemeral != nil {
		t.Error("Abort left private keys")
	}
	r.refused(t, []byte("x"), reason.TimedOut, "")
	if alpha.start(t, true).Abort(reason.ShuttingDown) != nil {
		t.Error("Abort before the start has nobody to tell")
	}
	i, r = alpha.start(t, true), beta.start(t, false)
	run(t, i, r)
	if r.Abort(reason.TimedOut) != nil || r.Done() || r.Result() != nil {
		t.Error("Abort after the end must say nothing and drop the result")
	}
}

func TestNew(t *testing.T) {
	alpha, _ := sides(t)
	long := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%064d", i))
		}
		return list
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
		code reason.Code
	}{
		{"no verifier", func(c *Config) { c.Verifier = nil }, reason.Internal},
		{"no attestation", func(c *Config) { c.Static = nil }, reason.Internal},
		{"wiped attestation", func(c *Config) { c.Static.Wipe() }, reason.Internal},
		{"no identity", func(c *Config) { c.Static.Identity = nil }, reason.Internal},
		{"long identity", func(c *Config) { c.Static.Identity = make([]byte, maxIdentitySize+1) }, reason.Internal},
		{"unknown version", func(c *Config) { c.MinVersion = 2 }, reason.Internal},
		{"no record protocol", func(c *Config) { c.Params.RecordProtocols = []string{"ALTSRP_GMAC_128"} }, reason.NoRecordProtocol},
		{"no application protocol", func(c *Config) { c.Params.ApplicationProtocols = nil }, reason.NoApplicationProtocol},
		{"empty protocol", func(c *Config) { c.Params.ApplicationProtocols = []string{""} }, reason.LocalAccount},
		{"long protocol", func(c *Config) { c.Params.ApplicationProtocols = []string{fmt.Sprintf("%065d", 1)} }, reason.LocalAccount},
		{"space", func(c *Config) { c.Params.TransportProtocols = []string{"a b"} }, reason.LocalAccount},
		{"too many", func(c *Config) { c.Params.ApplicationProtocols = long(17) }, reason.LocalAccount},
		{"long offer", func(c *Config) { c.Params.ApplicationProtocols = long(16); c.Params.TransportProtocols = long(16) }, reason.LocalAccount},
		{"long message 2", func(c *Config) {
			c.Params.ApplicationProtocols, c.Params.TransportProtocols = long(16), long(14)
			c.Static.Identity = make([]byte, maxIdentitySize)
		}, reason.LocalAccount},
	} {
		cfg := alpha.config(false)
		c.edit(&cfg)
		static := cfg.Static
		_, err := New(cfg)
		if _, isReason := err.(*reason.Error); !isReason || reason.Of(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
		if static != nil && static.Private != [32]byte{} {
			t.Errorf("%s: the static key was not wiped", c.name)
		}
	}
	cfg := alpha.config(true)
	cfg.MinVersion = 1
	if h, err := New(cfg); err != nil {
		t.Error(err)
	} else {
		h.Close()
	}
}

// The largest frames that the protocol allows go through.
func TestLargestIdentity(t *testing.T) {
	alpha := sideWithKey(t, "alpha.example.com", "alice", bytes.Repeat([]byte{1}, 32))
	beta := sideWithKey(t, "beta.example.com", "bob", bytes.Repeat([]byte{2}, 32))
	big := func(c *Config) {
		c.Static.Identity = append(slices.Clone(c.Static.Identity), make([]byte, maxIdentitySize-len(c.Static.Identity))...)
	}
	run(t, alpha.start(t, true, big), beta.start(t, false, big))
}

// The binding as the handshake meets it: the second time a peer comes it is in the cache, and one under another CA,
// or with another's identity, is refused.
func TestBinding(t *testing.T) {
	other := testca.MustCA(t, testca.Options{})
	alice, bob := newSide(t, "alpha.example.com", "alice"), newSide(t, "beta.example.com", "bob")
	for n := range 2 {
		i, r := alice.start(t, true), bob.start(t, false)
		run(t, i, r)
		a, b := i.Result().Peer, r.Result().Peer
		if a.String() != bob.name || b.String() != alice.name || b.Attributes[0].Value != "1000" {
			t.Errorf("peers %s and %s", a, b)
		}
		if cached := n == 1; a.Cached != cached || b.Cached != cached {
			t.Errorf("handshake %d: cached %v and %v", n, a.Cached, b.Cached)
		}
	}
	// An identity under another CA, and alice's identity with another key.
	mallory := sideOf(t, testmachine.New(t, "mallory.example.com", testmachine.Options{Issuer: other}), "alice")
	i, r := mallory.start(t, true), bob.start(t, false)
	st := r.refused(t, i.ok(t, r.ok(t, i.first(t))), reason.UnknownCA, "")
	i.refused(t, st, reason.UnknownCA, "the peer's daemon refused")
	i, r = alice.start(t, true), mallory.start(t, false)
	i.refused(t, r.ok(t, i.first(t)), reason.UnknownCA, "")

	i = mallory.start(t, true, func(c *Config) { c.Static.Identity = alice.attest().Identity })
	r = bob.start(t, false)
	r.refused(t, i.ok(t, r.ok(t, i.first(t))), reason.StatementInvalid, "")
}

// A responder that refuses for its own sake does so in answer to the whole of message 1, however it comes, without
// reading it, and has the handshake's ID.
func TestRefuse(t *testing.T) {
	for _, at := range []int{1, headerSize, headerSize + message1Size} { // bytes at a time
		alpha, _ := sides(t)
		i := alpha.start(t, true)
		m1 := i.first(t)
		r := NewRefusal(reason.OwnCertificate)
		for in := m1; ; in = in[at:] {
			at = min(at, len(in))
			n, out, err := r.Feed(in[:at])
			if n != at {
				t.Fatalf("%d of %d bytes are consumed", n, at)
			}
			if len(in) > at {
				if out != nil || err != nil {
					t.Fatalf("with %d bytes to come: %x, %v", len(in)-at, out, err)
				}
				continue
			}
			if reason.Of(err) != reason.OwnCertificate || !bytes.Equal(out, StatusFrame(reason.OwnCertificate)) {
				t.Errorf("got %x, %v", out, err)
			}
			break
		}
		if r.ID() != i.ID() || r.ID() == "" {
			t.Errorf("the responder calls it %q, the initiator %q", r.ID(), i.ID())
		}
		i.refused(t, StatusFrame(reason.OwnCertificate), reason.OwnCertificate, "its own certificate")
	}
	// What speaks something else is not answered.
	if _, out, err := NewRefusal(reason.OwnCertificate).Feed([]byte("GET /")); out != nil || !errors.Is(err, ErrForeign) {
		t.Errorf("got %x, %v", out, err)
	}
}
