package conformance

import (
	"bufio"
	"context"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/flynn/noise"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// TestDifferential gives the same mutated statements, identities, offers, choices, certificates and frames to the Go
// packages and to the second implementation. Both must accept or refuse alike, with the same code. By default it is
// brief and always the same; SHARED_ALTSD_DIFFERENTIAL=10m in the environment makes it so long, from another seed each
// time, which is logged. SHARED_ALTSD_SEED sets one.
func TestDifferential(t *testing.T) {
	needPython(t)
	t.Parallel()
	seed, end := uint64(1), time.Time{}
	if long := os.Getenv("SHARED_ALTSD_DIFFERENTIAL"); long != "" {
		d, err := time.ParseDuration(long)
		if err != nil {
			t.Fatal(err)
		}
		seed, end = rand.Uint64(), time.Now().Add(d)
	}
	if s := os.Getenv("SHARED_ALTSD_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	g := newGenerator(t, seed)
	j := newJudge(t, g)
	stats := map[string]map[string]int{}
	kinds := []struct {
		name  string
		share int // of the brief run, cases
		next  func() *question
	}{
		{"identity", 800, g.identityQuestion},
		{"certificate", 200, g.certificateQuestion},
		{"DNS", 500, g.dnsQuestion},
		{"payload 2", 300, func() *question { return g.payloadQuestion(2) }},
		{"payload 3", 300, func() *question { return g.payloadQuestion(3) }},
		{"frames", 200, g.framesQuestion},
	}
	failures := 0
	for round := 0; failures < 20 && (round == 0 || time.Now().Before(end)); round++ {
		for _, kind := range kinds {
			of := stats[kind.name]
			if of == nil {
				of = map[string]int{}
				stats[kind.name] = of
			}
			for range kind.share {
				q := kind.next()
				ours, theirs := q.ours, j.ask(t, q)
				of["cases"]++
				switch {
				case ours == theirs:
					of[ours.String()]++
				case q.parser && (ours.unparsed() || theirs.unparsed()):
					// What X.509 parsers let through differs, and section 5.5 leaves it to them ("each parses").
					of[fmt.Sprintf("parsers differ: %v here, %v there", ours, theirs)]++
				case q.paths && ours.ofPath() && theirs.ofPath():
					of["one path of several is blamed here, another there"]++
				default:
					of["DIFFERENT"]++
					if failures++; failures <= 20 {
						line, _ := json.Marshal(q)
						t.Errorf("%s: %v here (%v), %v there, on %s: %.5000s", kind.name, ours, q.why, theirs, q.what, line)
					}
				}
			}
		}
	}
	for _, kind := range kinds {
		for _, k := range slices.Sorted(maps.Keys(stats[kind.name])) {
			t.Logf("%-12s %6d %s", kind.name, stats[kind.name][k], k)
		}
		if end.IsZero() && stats[kind.name]["cases"] == stats[kind.name]["malformed"] {
			t.Errorf("all cases of the kind %s are malformed: they show nothing", kind.name)
		}
	}
}

// A verdict is what an implementation says of a question.
type verdict struct {
	Code   int    `json:"code"`
	ByPeer bool   `json:"by_peer"`
	Answer bool   `json:"answer"`
	Status string `json:"status"`
}

func verdictOf(err error) verdict {
	var e *reason.Error
	if err != nil && !errors.As(err, &e) {
		panic(err) // an error of another kind is a bug of the packages
	}
	return verdict{Code: int(reason.Of(err))}
}

func (v verdict) String() string {
	if code := reason.Code(v.Code); code.Known() {
		return code.String()
	}
	return "unknown code of the peer's"
}

// unparsed reports whether a certificate may not have parsed.
func (v verdict) unparsed() bool { return v.Code == int(reason.CertificateUnacceptable) }

// ofPath reports a refusal for want of a path, other than for a revocation: where several paths fail, section 5.5 says
// only that a revocation is named first.
func (v verdict) ofPath() bool {
	return slices.Contains([]reason.Code{reason.UnknownCA, reason.CertificateExpired, reason.CertificateNotYetValid,
		reason.RevocationUnknown, reason.CertificateUnacceptable, reason.MachineNameMismatch}, reason.Code(v.Code))
}

// A question is one line to the second implementation (interop/python/altsd_peer/judge.py), with our own verdict.
type question struct {
	Do        string   `json:"do"`
	Identity  string   `json:"identity"`
	Payload   string   `json:"payload"`
	Static    string   `json:"static,omitempty"`
	Now       float64  `json:"now,omitempty"`
	Initiator bool     `json:"initiator,omitempty"`
	Chunks    []string `json:"chunks,omitempty"`
	// TLSA is what DNS says of the machine, nil if nothing.
	TLSA *[]string `json:"tlsa,omitempty"`
	policy

	ours   verdict
	why    error
	what   string // what was done to it
	parser bool   // it has a certificate that a parser may or may not take
	paths  bool   // its certificates make several paths, or one to no trusted CA
}

type policy struct {
	Domain  bool   `json:"domain_accounts,omitempty"`
	StaleOK bool   `json:"stale_lists_accepted,omitempty"`
	EKU     string `json:"require_eku,omitempty"`
	DNS     bool   `json:"dns,omitempty"`
}

// A judge is the second implementation as a process.
type judge struct {
	in  io.Writer
	out *bufio.Reader
}

func newJudge(t *testing.T, g *generator) *judge {
	t.Helper()
	cmd := peer("judge")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, end := started(t, cmd)
	t.Cleanup(func() {
		in.Close()
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	j := &judge{in, out}
	j.say(t, g.setup)
	return j
}

func (j *judge) say(t *testing.T, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		_, err = j.in.Write(append(b, '\n'))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (j *judge) ask(t *testing.T, q *question) (v verdict) {
	t.Helper()
	j.say(t, q)
	line, err := j.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &v)
	}
	if err != nil {
		t.Fatalf("the judge says nothing to %s: %v", q.what, err)
	}
	return v
}

// identityQuestion asks certbind alone.
func (g *generator) identityQuestion() *question {
	return g.askIdentity(g.claim())
}

func (g *generator) newQuestion(c *claim) *question {
	return &question{Do: "identity", Identity: hex.EncodeToString(c.identity), Static: hex.EncodeToString(c.used[:]),
		Now: g.seconds(), policy: c.policy, what: c.what, parser: c.parser, paths: c.paths}
}

func (g *generator) askIdentity(c *claim) *question {
	q := g.newQuestion(c)
	_, q.why = g.machines[c.policy].Verify(c.identity, c.used)
	q.ours = verdictOf(q.why)
	return q
}

// payloadQuestion asks a state machine of noiseproto, through Noise: message 2 goes to an initiator, message 3 to a
// responder.
func (g *generator) payloadQuestion(message int) *question {
	c := g.mostlyGood()
	c.used = g.static
	var payload []byte
	if message == 2 {
		payload = make([]byte, mlkem.CiphertextSize768) // the peer cannot tell that it is none of its key
	}
	negotiation, what := g.negotiation(message)
	payload = opaque16(opaque16(payload, c.identity), negotiation)
	if g.chance(6) {
		payload, what = g.mutate(payload), what+", payload mutated"
		c.parser = true // the certificate may have been hit
	}
	payload = payload[:min(len(payload), 24576-200)]
	q := &question{Do: fmt.Sprint("payload", message), Payload: hex.EncodeToString(payload),
		Static: hex.EncodeToString(g.static[:]), Now: g.seconds(), policy: c.policy, what: c.what + ", " + what,
		parser: c.parser, paths: c.paths}
	h := g.handshake(c.policy, message == 2)
	defer h.Close()
	attacker := g.attacker(message == 3)
	if message == 2 {
		first := must(h.Start())
		must(attacker.read(first[8:]))
		_, _, q.why = h.Feed(frame(2, must(attacker.write(payload))))
	} else {
		dk := must(mlkem.GenerateKey768())
		_, second, err := h.Feed(frame(1, must(attacker.write(dk.EncapsulationKey().Bytes()))))
		if err != nil {
			panic(err)
		}
		plain := must(attacker.read(second[8:]))
		if err := attacker.SetPresharedKey(must(dk.Decapsulate(plain[:mlkem.CiphertextSize768]))); err != nil {
			panic(err)
		}
		_, _, q.why = h.Feed(frame(3, must(attacker.write(payload))))
	}
	q.ours = verdictOf(q.why)
	return q
}

// An attacker is the Noise library, whose payloads are anything.
type attacker struct{ *noise.HandshakeState }

func (g *generator) attacker(initiator bool) attacker {
	return attacker{must(noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256),
		Pattern:     noise.HandshakeXX, Initiator: initiator, Prologue: []byte("shared-altsd\x01"),
		PresharedKeyPlacement: 3,
		StaticKeypair:         noise.DHKey{Private: g.private[:], Public: g.static[:]},
	}))}
}

func (a attacker) read(message []byte) ([]byte, error) {
	payload, _, _, err := a.ReadMessage(nil, message)
	return payload, err
}

func (a attacker) write(payload []byte) ([]byte, error) {
	message, _, _, err := a.WriteMessage(nil, payload)
	return message, err
}

// handshake returns a state machine of ours, of either role.
func (g *generator) handshake(p policy, initiator bool) *noiseproto.Handshake {
	return must(noiseproto.New(noiseproto.Config{Initiator: initiator, Static: must(g.machines[p].Attest(context.Background(), "alice", nil)),
		Verifier: g.machines[p], Params: g.params}))
}

// framesQuestion gives bytes to a state machine that expects its first frame.
func (g *generator) framesQuestion() *question {
	q := &question{Do: "frames", Initiator: g.chance(2), what: "frames"}
	h := g.handshake(policy{}, q.Initiator)
	defer h.Close()
	if q.Initiator {
		must(h.Start())
	}
	data := g.frames(q.Initiator)
	for len(data) > 0 {
		n := len(data)
		if g.chance(2) {
			n = 1 + g.IntN(min(n, 20))
		}
		q.Chunks = append(q.Chunks, hex.EncodeToString(data[:n]))
		var out []byte
		if q.why == nil {
			_, out, q.why = h.Feed(data[:n])
		}
		q.ours.Answer = q.ours.Answer || len(out) > 0
		if len(out) > 5 && out[5] == 4 {
			q.ours.Status = hex.EncodeToString(out)
		}
		data = data[n:]
	}
	q.ours.Code = verdictOf(q.why).Code
	var e *reason.Error
	q.ours.ByPeer = errors.As(q.why, &e) && e.ByPeer
	return q
}

func frame(kind byte, body []byte) []byte {
	return opaque16([]byte{'s', 'a', 'l', 't', 1, kind}, body)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The interface that noiseproto takes is what certbind gives.
var _ noiseproto.Verifier = (*certbind.Machine)(nil)
