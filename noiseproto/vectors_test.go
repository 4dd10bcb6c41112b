package noiseproto

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
)

var update = flag.Bool("update", false, "write testdata/vectors.json: what it has no keys and certificates for is made")

// The vectors, docs/spec/vectors.md.
type vectorFile struct {
	Protocol string     `json:"protocol"`
	Version  byte       `json:"version"`
	Time     time.Time  `json:"time"`
	Vectors  []*vector  `json:"vectors"`
	Accepted []accepted `json:"accepted"`
	Negative []negative `json:"negative"`

	Verification *verification    `json:"verification"`
	DNS          *dnsVerification `json:"dns"`
}

type vector struct {
	Name        string       `json:"name"`
	Trust       hexBytes     `json:"trust"`
	Initiator   vectorSide   `json:"initiator"`
	Responder   vectorSide   `json:"responder"`
	Seed        hexBytes     `json:"mlkem_seed"`
	Randomness  hexBytes     `json:"mlkem_randomness"`
	Encaps      hexBytes     `json:"mlkem_encapsulation_key"`
	Ciphertext  hexBytes     `json:"mlkem_ciphertext"`
	PSK         hexBytes     `json:"psk"`
	Prologue    hexBytes     `json:"prologue"`
	Start       vectorState  `json:"start"`
	Messages    []vectorStep `json:"messages"`
	Status      hexBytes     `json:"status"`
	KeyData     hexBytes     `json:"key_data"`
	HandshakeID string       `json:"handshake_id"`
	Records     []record     `json:"records"`
}

type vectorSide struct {
	Machine          string       `json:"machine"`
	Account          string       `json:"account"`
	Certificate      hexBytes     `json:"certificate"`
	StaticPrivate    hexBytes     `json:"static_private"`
	StaticPublic     hexBytes     `json:"static_public"`
	EphemeralPrivate hexBytes     `json:"ephemeral_private"`
	EphemeralPublic  hexBytes     `json:"ephemeral_public"`
	Statement        hexBytes     `json:"statement"`
	SignatureInput   hexBytes     `json:"signature_input"`
	Signature        hexBytes     `json:"signature"`
	Identity         hexBytes     `json:"identity"`
	Params           vectorParams `json:"parameters"`
	Negotiation      hexBytes     `json:"negotiation"`
}

type vectorParams struct {
	ApplicationProtocols []string  `json:"application_protocols"`
	RecordProtocols      []string  `json:"record_protocols"`
	RPCMax               [2]uint32 `json:"rpc_max"`
	RPCMin               [2]uint32 `json:"rpc_min"`
	MaxFrameSize         uint32    `json:"max_frame_size"`
	TransportProtocols   []string  `json:"transport_protocols"`
}

func (p vectorParams) params() Params {
	return Params{p.ApplicationProtocols, p.RecordProtocols,
		RPCVersions{Version{p.RPCMax[0], p.RPCMax[1]},
			Version{p.RPCMin[0], p.RPCMin[1]}}, p.MaxFrameSize, p.TransportProtocols}
}

type vectorState struct {
	ChainingKey hexBytes `json:"chaining_key"`
	Hash        hexBytes `json:"hash"`
}

type vectorStep struct {
	Frame   hexBytes    `json:"frame"`
	Payload hexBytes    `json:"payload"`
	After   vectorState `json:"after"`
}

// An accepted case: as a negative one, but Input is taken, and ends the handshake if it completes it.
type accepted struct {
	Name  string   `json:"name"`
	Place int      `json:"place"`
	Input hexBytes `json:"input"`
	Done  bool     `json:"done"`
}

// A record is a frame of the record protocol: of which side, its number among that side's from 0, what is in it.
type record struct {
	From    string   `json:"from"`
	Number  uint64   `json:"number"`
	Payload hexBytes `json:"payload"`
	Frame   hexBytes `json:"frame"`
}

// A negative case: the receiver of Place (1 to 3 a message, 4 the status) of the first vector gets Input instead.
type negative struct {
	Name   string   `json:"name"`
	Place  int      `json:"place"`
	Target string   `json:"target,omitempty"` // whom the initiator's application asks for
	Input  hexBytes `json:"input"`
	Code   string   `json:"code"`
	ByPeer bool     `json:"by_peer"`
	Answer hexBytes `json:"answer"`
}

const vectorPath = "testdata/vectors.json"

var vectorTime = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// pattern returns n bytes that begin with first and count up, as fixed keys.
func pattern(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func vectorTrust(t *testing.T, der []byte) *certbind.Trust {
	t.Helper()
	trust, err := certbind.NewTrust(certbind.TrustConfig{CAs: []certbind.CA{{
		PEM: certPEM(der), Source: "vectors"}}})
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// newVector makes certificates and statements of the key type; everything else follows from fixed bytes.
func newVector(t *testing.T, keyType string) *vector {
	ca := testca.MustCA(t, testca.Options{Name: "vectors " + keyType,
		NotBefore: vectorTime.AddDate(-1, 0, 0), NotAfter: vectorTime.AddDate(20, 0, 0)})
	v := &vector{Name: keyType, Trust: ca.Cert.Raw, Seed: pattern(0x20, 64), Randomness: pattern(0x80, 32),
		Prologue: []byte("shared-altsd\x01")}
	rpc := [2]uint32{2, 1}
	record := []string{RecordProtocol}
	v.Initiator = vectorSide{Machine: "alpha.example.com", Account: "alice", StaticPrivate: pattern(0x01, 32),
		EphemeralPrivate: pattern(0x41, 32), Params: vectorParams{[]string{"h2", "grpc"}, record, rpc, rpc, 1 << 20,
			[]string{}}}
	v.Responder = vectorSide{Machine: "beta.example.com", Account: "bob", StaticPrivate: pattern(0x61, 32),
		EphemeralPrivate: pattern(0xa1, 32),
		Params:           vectorParams{[]string{"grpc"}, record, rpc, [2]uint32{1, 0}, 0, []string{"tcp"}}}
	for _, s := range []*vectorSide{&v.Initiator, &v.Responder} {
		if keyType == testca.RSA2048 && s == &v.Responder {
			keyType = testca.RSA3072 // testca has one key of each size
		}
		s.StaticPublic = x25519Key(t, s.StaticPrivate).PublicKey().Bytes()
		m := testmachine.New(t, s.Machine, testmachine.Options{Issuer: ca,
			Leaf: testca.Leaf{KeyType: keyType, NotBefore: vectorTime.AddDate(0, -1, 0), NotAfter: vectorTime.AddDate(0, 2, 0)},
			Config: certbind.MachineConfig{
				Trust: vectorTrust(t, v.Trust),
				Now:   func() time.Time { return vectorTime },
				NewStatic: func() (pub, priv [32]byte, err error) {
					return [32]byte(s.StaticPublic), [32]byte(s.StaticPrivate), nil
				}}})
		a, err := m.Attest(t.Context(), s.Account, []certbind.Attribute{{Name: "uid", Value: "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := certbind.ParseIdentity(a.Identity)
		if err != nil {
			t.Fatal(err)
		}
		s.Certificate, s.Identity, s.Statement, s.Signature = m.Credential().Leaf.Raw, a.Identity, id.Statement, id.Signature
		s.SignatureInput = certbind.SignatureInput(id.Statement)
		s.EphemeralPublic = x25519Key(t, s.EphemeralPrivate).PublicKey().Bytes()
	}
	return v
}

// handshake returns the side in its role, verifying by a real certbind.Machine at the time of the vectors.
func (v *vector) handshake(t *testing.T, initiator bool) *Handshake {
	t.Helper()
	s, keys := &v.Responder, &fixedKeys{randomness: v.Randomness}
	if initiator {
		s, keys = &v.Initiator, &fixedKeys{seed: v.Seed}
	}
	keys.ephemeral = s.EphemeralPrivate
	h, err := newHandshake(Config{
		Initiator: initiator,
		Static: &certbind.Attestation{Public: [32]byte(s.StaticPublic), Private: [32]byte(s.StaticPrivate),
			Identity: s.Identity},
		Verifier: vectorVerifier(t, vectorTrust(t, v.Trust)),
		Params:   s.Params.params(),
	}, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// vectorVerifier is a third machine, with the trust given.
func vectorVerifier(t *testing.T, trust *certbind.Trust) *certbind.Machine {
	t.Helper()
	return testmachine.New(t, "judge.example.com", testmachine.Options{
		Leaf:   testca.Leaf{NotBefore: vectorTime.Add(-time.Hour)},
		Config: certbind.MachineConfig{Trust: trust, Now: func() time.Time { return vectorTime }}})
}

// fill computes what follows from the keys: the package writes the frames, the reference implementation reads each and
// gives chaining keys and hashes.
func (v *vector) fill(t *testing.T) {
	t.Helper()
	i, r := v.handshake(t, true), v.handshake(t, false)
	frames := run(t, i, r)
	ref := [2]*refParty{
		newRef(true, refName, v.Prologue, x25519Key(t, v.Initiator.StaticPrivate),
			x25519Key(t, v.Initiator.EphemeralPrivate)),
		newRef(false, refName, v.Prologue, x25519Key(t, v.Responder.StaticPrivate),
			x25519Key(t, v.Responder.EphemeralPrivate)),
	}
	dk, err := mlkem.NewDecapsulationKey768(v.Seed)
	if err != nil {
		t.Fatal(err)
	}
	v.Encaps = dk.EncapsulationKey().Bytes()
	if v.PSK, v.Ciphertext, err = mlkemtest.Encapsulate768(dk.EncapsulationKey(), v.Randomness); err != nil {
		t.Fatal(err)
	}
	ref[0].psk, ref[1].psk = v.PSK, v.PSK
	v.Responder.Negotiation = rawOffer(v.Responder.Params.params())
	v.Initiator.Negotiation = rawChoice(
		choice{"grpc", RecordProtocol, v.Initiator.Params.params().RPCVersions, 1 << 20, ""})
	payloads := [][]byte{
		v.Encaps,
		opaque16(opaque16(slices.Clone(v.Ciphertext), v.Responder.Identity), v.Responder.Negotiation),
		opaque16(opaque16(nil, v.Initiator.Identity), v.Initiator.Negotiation),
	}
	v.Start = vectorState{ref[0].ck, ref[0].h}
	v.Messages = nil
	for n, f := range frames[:3] {
		w, rd := ref[n%2], ref[1-n%2]
		if msg := w.write(n, payloads[n]); !bytes.Equal(msg, f[headerSize:]) {
			t.Fatalf("%s: the reference writes another message %d", v.Name, n+1)
		}
		if got, err := rd.read(n, f[headerSize:]); err != nil || !bytes.Equal(got, payloads[n]) {
			t.Fatalf("%s: the reference cannot read message %d: %v", v.Name, n+1, err)
		}
		if !bytes.Equal(w.h, rd.h) || !bytes.Equal(w.ck, rd.ck) {
			t.Fatalf("%s: the sides differ after message %d", v.Name, n+1)
		}
		v.Messages = append(v.Messages, vectorStep{f, payloads[n], vectorState{w.ck, w.h}})
	}
	if !bytes.Equal(ref[0].split(), i.result.KeyData[:]) {
		t.Fatalf("%s: the reference has other key data", v.Name)
	}
	id := sha256.Sum256(frames[0])
	v.Status, v.KeyData, v.HandshakeID = frames[3], ref[0].split(), fmt.Sprintf("%x", id[:8])
	v.Records = nil
	for _, r := range []record{{From: "initiator"}, {From: "responder"}, {From: "initiator", Number: 1},
		{From: "responder", Number: 0x1ffff}} {
		r.Payload = fmt.Appendf(nil, "record %d of the %s", r.Number, r.From)
		r.Frame = refRecord(v.KeyData, r.From == "responder", r.Number, r.Payload)
		v.Records = append(v.Records, r)
	}
	if v.HandshakeID != i.ID() {
		t.Fatalf("%s: the handshake ID is %s", v.Name, i.ID())
	}
	if p := r.result.Peer; p.Machine != v.Initiator.Machine || p.Account != v.Initiator.Account {
		t.Fatalf("%s: the responder's peer is %s", v.Name, p)
	}
}

// at returns the receiver of the frame in that place, everything before it received.
func (v *vector) at(t *testing.T, place int) *Handshake {
	h := v.handshake(t, place%2 == 0)
	switch place {
	case 2, 4:
		h.first(t)
		if place == 4 {
			h.ok(t, v.Messages[1].Frame)
		}
	case 3:
		h.ok(t, v.Messages[0].Frame)
	}
	return h
}

// accepteds returns what must be taken though it looks odd.
func (v *vector) accepteds(t *testing.T) []accepted {
	m2, status := v.Messages[1].Frame, v.Status
	other := func(b []byte) []byte {
		b = slices.Clone(b)
		b[4] = 2
		return b
	}
	odd := newRef(true, refName, v.Prologue, x25519Key(t, v.Initiator.StaticPrivate), x25519Key(t, v.Initiator.EphemeralPrivate))
	odd.ePub[31] |= 0x80
	m1 := slices.Concat(v.Messages[0].Frame[:headerSize], odd.write(0, v.Encaps))
	return []accepted{
		{Name: "status 0 right behind message 2", Place: 2, Input: slices.Concat(m2, status)},
		{Name: "status 0 of another version", Place: 4, Input: other(status)},
		{Name: "status 0 and a byte that belongs to the record protocol", Place: 4, Input: append(slices.Clone(status), 0x10)},
		{Name: "an ephemeral key with its top bit set", Place: 1, Input: m1},
	}
}

// negatives returns the inputs of the negative cases: frames, then payloads under valid encryption.
func (v *vector) negatives(t *testing.T) []negative {
	return append(v.badFrames(), v.badPayloads(t)...)
}

func (v *vector) badFrames() (list []negative) {
	frames := [][]byte{v.Messages[0].Frame, v.Messages[1].Frame, v.Messages[2].Frame, v.Status}
	for n, f := range frames {
		add := func(name string, input []byte) {
			list = append(list, negative{Name: fmt.Sprintf("frame %d: %s", n+1, name), Place: n + 1, Input: input})
		}
		edit := func(name string, at int, to byte) {
			b := slices.Clone(f)
			b[at] = to
			add(name, b)
		}
		edit("magic", 3, 'T')
		edit("type 0", 5, 0)
		edit("type 5", 5, 5)
		edit("length 0", 7, 0)
		list[len(list)-1].Input[6] = 0
		add("length 65535", slices.Concat(f[:6], []byte{0xff, 0xff}))
		add("the frame of the place before", slices.Clone(frames[(n+3)%4]))
		if n < 3 {
			edit("version 0", 4, 0)
			edit("version 2", 4, 2)
			edit("first byte of the body", 8, f[8]^1)
			edit("last bit", len(f)-1, f[len(f)-1]^1)
		}
		for _, c := range []reason.Code{reason.UnsupportedVersion, reason.UnknownCA, reason.OwnCertificate, 65535} {
			add("status "+c.String(), StatusFrame(c))
		}
		if n < 3 {
			add("status accepted", StatusFrame(reason.Accepted))
		}
		odd := StatusFrame(reason.UnknownCA)
		odd[4] = 2
		add("status unknown_ca of version 2", slices.Clone(odd))
		odd[7]++
		add("status of version 2 and of 5 bytes", append(odd, 0))
		odd = slices.Clone(f)
		odd[4], odd[5], odd[6] = 2, 5, 0xff
		add("version 2, type 5 and a length over the bounds", odd)
		odd = slices.Clone(f)
		odd[5], odd[6] = 5, 0xff
		add("type 5 and a length over the bounds", odd)
	}
	for _, s := range []string{"\x16\x03\x01\x00\x05hello", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n",
		"SSH-2.0-x\r\n",
		"\x00\x00\x00\x00\x00\x00\x00\x00", "\x10\x00\x00\x00\x06\x00\x00\x00"} {
		list = append(list, negative{Name: fmt.Sprintf("%.4q first", s), Place: 1, Input: []byte(s)})
	}
	return list
}

// The file is what this package and the reference implementation compute from its keys and identities.
func TestVectors(t *testing.T) {
	f := vectorFile{Protocol: refName, Version: 1, Time: vectorTime}
	was, err := os.ReadFile(vectorPath)
	if err == nil {
		err = json.Unmarshal(was, &f)
	}
	if *update && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		f.makeMissing(t)
		was = f.compute(t)
		err = os.WriteFile(vectorPath, was, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if is := f.compute(t); !bytes.Equal(is, was) {
		t.Fatalf("%s is not what its keys give: %d bytes computed, %d in the file", vectorPath, len(is), len(was))
	}
}

// makeMissing makes the certificates and signatures of those parts that the file does not have.
func (f *vectorFile) makeMissing(t *testing.T) {
	if len(f.Vectors) == 0 {
		for _, keyType := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048} {
			f.Vectors = append(f.Vectors, newVector(t, keyType))
		}
	}
	if f.Verification == nil {
		f.Verification = newVerification(t)
	}
	if f.DNS == nil {
		f.DNS = newDNSVerification(t)
	}
}

// compute fills in all that follows and gives the file.
func (f *vectorFile) compute(t *testing.T) []byte {
	t.Helper()
	for _, v := range f.Vectors {
		v.fill(t)
	}
	v := f.Vectors[0]
	f.Negative = v.negatives(t)
	f.Accepted = v.accepteds(t)
	for n := range f.Accepted {
		c := &f.Accepted[n]
		h := v.at(t, c.Place)
		if _, _, err := h.Feed(c.Input); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		c.Done = h.Done()
	}
	for n := range f.Negative {
		c := &f.Negative[n]
		h := v.at(t, c.Place)
		if c.Target != "" {
			h.authorize = func(p *certbind.Peer) error {
				if p.String() != c.Target {
					return reason.Errorf(reason.TargetMismatch, "it is %s", p)
				}
				return nil
			}
		}
		_, out, err := h.Feed(c.Input)
		e, ok := err.(*reason.Error)
		if !ok {
			t.Fatalf("%s: %v", c.Name, err)
		}
		c.Code, c.ByPeer, c.Answer = e.Code.String(), e.ByPeer, out
	}
	f.Verification.compute(t)
	f.DNS.compute(t)
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}
