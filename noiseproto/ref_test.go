package noiseproto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
)

// refParty is a second implementation of Noise_XXpsk3_25519_AESGCM_SHA256, written from the Noise specification
// (revision 34, sections 5 and 9) with nothing but the standard library. It checks the library, and plays the peer
// that breaks the rules: it takes any psk, any key and any payload.
type refParty struct {
	initiator bool
	s, e      *ecdh.PrivateKey
	sPub      []byte // what is sent as s and e: the true public keys, unless a test lies
	ePub      []byte
	rs, re    []byte
	psk       []byte

	ck, h, k []byte
	n        uint64
}

var refTokens = [][]string{{"e"}, {"e", "ee", "s", "es"}, {"s", "se", "psk"}}

func newRef(initiator bool, name string, prologue []byte, s, e *ecdh.PrivateKey) *refParty {
	p := &refParty{initiator: initiator, s: s, e: e, sPub: s.PublicKey().Bytes(), ePub: e.PublicKey().Bytes()}
	p.h = make([]byte, 32)
	if copy(p.h, name) < len(name) {
		sum := sha256.Sum256([]byte(name))
		p.h = sum[:]
	}
	p.ck = p.h
	p.mixHash(prologue)
	return p
}

func refHMAC(key []byte, data ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(nil)
}

func refHKDF(ck, ikm []byte) (o1, o2, o3 []byte) {
	t := refHMAC(ck, ikm)
	o1 = refHMAC(t, []byte{1})
	o2 = refHMAC(t, o1, []byte{2})
	return o1, o2, refHMAC(t, o2, []byte{3})
}

func (p *refParty) mixHash(b []byte) {
	s := sha256.Sum256(append(bytes.Clone(p.h), b...))
	p.h = s[:]
}

func (p *refParty) mixKey(ikm []byte) { p.ck, p.k, _ = refHKDF(p.ck, ikm); p.n = 0 }

func (p *refParty) mixPSK() {
	var temp []byte
	p.ck, temp, p.k = refHKDF(p.ck, p.psk)
	p.mixHash(temp)
	p.n = 0
}

func (p *refParty) aead() (cipher.AEAD, []byte) {
	b, err := aes.NewCipher(p.k)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4, 12), p.n)
	p.n++
	return a, nonce
}

func (p *refParty) seal(b []byte) []byte {
	a, nonce := p.aead()
	c := a.Seal(nil, nonce, b, p.h)
	p.mixHash(c)
	return c
}

func (p *refParty) open(c []byte) ([]byte, error) {
	a, nonce := p.aead()
	b, err := a.Open(nil, nonce, c, p.h)
	p.mixHash(c)
	return b, err
}

// dh returns zeros where the point has low order: that is what an attacker would compute.
func dh(priv *ecdh.PrivateKey, pub []byte) []byte {
	k, err := ecdh.X25519().NewPublicKey(pub)
	if err != nil {
		panic(err)
	}
	b, err := priv.ECDH(k)
	if err != nil {
		return make([]byte, 32)
	}
	return b
}

func (p *refParty) mixToken(t string) {
	switch {
	case t == "ee":
		p.mixKey(dh(p.e, p.re))
	case t == "psk":
		p.mixPSK()
	case (t == "es") == p.initiator: // es for the initiator, se for the responder: my e, their s
		p.mixKey(dh(p.e, p.rs))
	default:
		p.mixKey(dh(p.s, p.re))
	}
}

// write makes message i (from 0).
func (p *refParty) write(i int, payload []byte) (msg []byte) {
	for _, t := range refTokens[i] {
		switch t {
		case "e":
			msg = append(msg, p.ePub...)
			p.mixHash(p.ePub)
			p.mixKey(p.ePub)
		case "s":
			msg = append(msg, p.seal(p.sPub)...)
		default:
			p.mixToken(t)
		}
	}
	return append(msg, p.seal(payload)...)
}

// read takes message i.
func (p *refParty) read(i int, msg []byte) (payload []byte, err error) {
	for _, t := range refTokens[i] {
		switch t {
		case "e":
			p.re, msg = msg[:32], msg[32:]
			p.mixHash(p.re)
			p.mixKey(p.re)
		case "s":
			if p.rs, err = p.open(msg[:48]); err != nil {
				return nil, err
			}
			msg = msg[48:]
		default:
			p.mixToken(t)
		}
	}
	return p.open(msg)
}

func (p *refParty) split() []byte {
	k1, k2, _ := refHKDF(p.ck, nil)
	return append(k1, k2...)
}

// refRecord is frame number n, from 0, that a side sends by ALTSRP_GCM_AES128_REKEY (docs/spec/protocol.md, section 7.3).
func refRecord(keyData []byte, responder bool, n uint64, payload []byte) []byte {
	counter := append(binary.LittleEndian.AppendUint64(nil, n), 0, 0, 0, 0)
	if responder {
		counter[11] = 0x80
	}
	block, err := aes.NewCipher(refHMAC(keyData[:32], counter[2:8], []byte{1})[:16])
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	for i := range counter {
		counter[i] ^= keyData[32+i]
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(4+len(payload)+a.Overhead()))
	frame = binary.LittleEndian.AppendUint32(frame, 6)
	return a.Seal(frame, counter, payload, nil)
}

const refName = "Noise_XXpsk3_25519_AESGCM_SHA256"

func x25519Key(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The vectors of cacophony hold for the library as it is configured here, with this package's DH, and for refParty.
func TestPublicVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			ProtocolName  string   `json:"protocol_name"`
			Prologue      hexBytes `json:"init_prologue"`
			PSKs          []hexBytes
			InitPSKs      []hexBytes `json:"init_psks"`
			InitStatic    hexBytes   `json:"init_static"`
			InitEphemeral hexBytes   `json:"init_ephemeral"`
			RespStatic    hexBytes   `json:"resp_static"`
			RespEphemeral hexBytes   `json:"resp_ephemeral"`
			HandshakeHash hexBytes   `json:"handshake_hash"`
			Messages      []struct{ Payload, Ciphertext hexBytes }
		}
	}
	b, err := os.ReadFile("testdata/cacophony.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, v := range file.Vectors {
		if v.ProtocolName != refName {
			continue // the plain XX is there for the comparison that the benchmarks make
		}
		seen++
		state := func(initiator bool, static, ephemeral []byte) *noise.HandshakeState {
			d := &dh25519{DHFunc: noise.DH25519, source: &fixedKeys{ephemeral: ephemeral}, static: &certbind.Attestation{
				Private: [32]byte(static), Public: [32]byte(x25519Key(t, static).PublicKey().Bytes())}}
			hs, err := noise.NewHandshakeState(noise.Config{
				CipherSuite: noise.NewCipherSuite(d, noise.CipherAESGCM, noise.HashSHA256), Pattern: noise.HandshakeXX,
				Initiator: initiator, Prologue: v.Prologue, PresharedKeyPlacement: 3,
				StaticKeypair: d.staticKeypair(),
			})
			if err != nil {
				t.Fatal(err)
			}
			return hs
		}
		hs := [2]*noise.HandshakeState{state(true, v.InitStatic, v.InitEphemeral),
			state(false, v.RespStatic, v.RespEphemeral)}
		ref := [2]*refParty{
			newRef(true, refName, v.Prologue, x25519Key(t, v.InitStatic), x25519Key(t, v.InitEphemeral)),
			newRef(false, refName, v.Prologue, x25519Key(t, v.RespStatic), x25519Key(t, v.RespEphemeral)),
		}
		for i, m := range v.Messages[:3] {
			w, r := i%2, 1-i%2
			if i == 2 { // the psk is set as late as a Handshake sets it
				for j := range hs {
					if err := hs[j].SetPresharedKey(v.InitPSKs[0]); err != nil {
						t.Fatal(err)
					}
					ref[j].psk = v.InitPSKs[0]
				}
			}
			msg, k1, k2, err := hs[w].WriteMessage(nil, m.Payload)
			if err != nil || !bytes.Equal(msg, m.Ciphertext) {
				t.Fatalf("message %d: library wrote %x, %v", i, msg, err)
			}
			payload, c1, c2, err := hs[r].ReadMessage(nil, msg)
			if err != nil || !bytes.Equal(payload, m.Payload) {
				t.Fatalf("message %d: library read %x, %v", i, payload, err)
			}
			if got := ref[w].write(i, m.Payload); !bytes.Equal(got, m.Ciphertext) {
				t.Fatalf("message %d: reference wrote %x", i, got)
			}
			if got, err := ref[r].read(i, msg); err != nil || !bytes.Equal(got, m.Payload) {
				t.Fatalf("message %d: reference read %x, %v", i, got, err)
			}
			if i == 2 {
				a, b := splitKeys(k1, k2), splitKeys(c1, c2)
				if a != b || !bytes.Equal(a[:], ref[0].split()) || !bytes.Equal(a[:], ref[1].split()) {
					t.Fatal("the keys differ")
				}
				enc, err := k1.Encrypt(nil, nil, v.Messages[4].Payload) // cacophony goes on with the responder
				if err != nil || !bytes.Equal(enc, v.Messages[4].Ciphertext) {
					t.Fatalf("transport message: %x, %v", enc, err)
				}
				enc, err = k2.Encrypt(nil, nil, v.Messages[3].Payload)
				if err != nil || !bytes.Equal(enc, v.Messages[3].Ciphertext) {
					t.Fatalf("transport message: %x, %v", enc, err)
				}
			}
		}
		if !bytes.Equal(hs[0].ChannelBinding(), v.HandshakeHash) || !bytes.Equal(ref[1].h, v.HandshakeHash) {
			t.Fatal("the handshake hash differs")
		}
	}
	if seen == 0 {
		t.Fatal("no vector of " + refName)
	}
}

// The library reads a message 3 that mixed an empty psk, if none is set: that is why a Handshake never lets it.
func TestLibraryTakesEmptyPSK(t *testing.T) {
	alpha, beta := newSide(t, "alpha.example.com", "alice"), newSide(t, "beta.example.com", "bob")
	a, b := alpha.attest(), beta.attest()
	hs, _, err := newNoise(1, false, b, FreshKeys{})
	if err != nil {
		t.Fatal(err)
	}
	e, _ := FreshKeys{}.X25519()
	ref := newRef(true, refName, prologue(1), x25519Key(t, a.Private[:]), x25519Key(t, e.Private[:]))
	if _, _, _, err := hs.ReadMessage(nil, ref.write(0, nil)); err != nil {
		t.Fatal(err)
	}
	m2, _, _, err := hs.WriteMessage(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ref.read(1, m2); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := hs.ReadMessage(nil, ref.write(2, nil)); err != nil {
		t.Fatalf("flynn/noise now refuses it: %v; setPSK before stateWait3 is then only one of two safeguards", err)
	}
}

// A refInitiator drives a Handshake in the responder's role by the reference implementation.
type refInitiator struct {
	*refParty
	dk *mlkem.DecapsulationKey768
}

func newRefInitiator(t testing.TB, s *side) *refInitiator {
	a := s.attest()
	e, err := FreshKeys{}.X25519()
	if err != nil {
		t.Fatal(err)
	}
	dk, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	return &refInitiator{newRef(true, refName, prologue(1), x25519Key(t, a.Private[:]), x25519Key(t, e.Private[:])), dk}
}

// toMessage3 runs messages 1 and 2 against h and sets the psk.
func (r *refInitiator) toMessage3(t testing.TB, h *Handshake) message2 {
	t.Helper()
	_, out, err := h.Feed(frame(1, frameMessage1, r.write(0, r.dk.EncapsulationKey().Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := r.read(1, out[headerSize:])
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMessage2(payload)
	if err != nil {
		t.Fatal(err)
	}
	if r.psk, err = r.dk.Decapsulate(m.ciphertext); err != nil {
		t.Fatal(err)
	}
	return m
}

func frame(version byte, typ frameType, body []byte) []byte {
	f := make([]byte, headerSize, headerSize+len(body))
	putHeader(f, version, typ, len(body))
	return append(f, body...)
}

// hexBytes is hexadecimal in JSON.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	if *h, err = hex.DecodeString(string(b)); err != nil {
		return errors.New("not hexadecimal")
	}
	return nil
}
