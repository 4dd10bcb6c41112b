package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

// Protocol is the hello of companion and daemon (docs/spec/companions.md, section 2).
const Protocol = "shared-altsd resolve 1"

// What is asked for.
const (
	opLookup = 1
	opProbe  = 2
)

const (
	// MaxRecords bounds the records of an answer.
	MaxRecords = certbind.MaxAnswerRecords
	// MaxTTL bounds for how long an answer may be kept.
	MaxTTL = 24 * time.Hour

	maxMachine = 253
	maxDetail  = 200
	maxAddress = 64
	timeSize   = 8
)

// An Outcome is what came of a question. Its numbers are the protocol's.
type Outcome byte

// The outcomes. Only the first two are DNS' own word.
const (
	Secure    Outcome = iota // records, and the resolver has verified them
	Absent                   // none, and the resolver has verified that
	Bogus                    // the resolver answers SERVFAIL: what it got does not verify, or it got nothing
	Unsigned                 // an answer that the resolver has not verified: the zone is not signed, or it does not validate
	Silent                   // no answer in time
	Malformed                // an answer that is none, or has too many records
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"secure", "absent", "bogus", "unsigned", "silent", "malformed"}

// String returns the outcome's name in logs and metrics.
func (o Outcome) String() string {
	if o < numOutcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// Outcomes returns all of them.
func Outcomes() (all []Outcome) {
	for o := range numOutcomes {
		all = append(all, o)
	}
	return all
}

// LookupRequest asks for the TLSA records of a machine, whose name is a valid one.
func LookupRequest(machine string) ([]byte, error) {
	var w wire.Writer
	w.U8(opLookup)
	w.Opaque8("machine", []byte(machine), 1, maxMachine)
	return w.Bytes()
}

// ProbeRequest asks how the resolver is.
func ProbeRequest() []byte { return []byte{opProbe} }

// parseRequest returns the machine of a lookup, or "" for a probe.
func parseRequest(b []byte) (machine string, err error) {
	r := wire.NewReader(b)
	switch r.U8("op") {
	case opLookup:
		machine = string(r.Opaque8("machine", 1, maxMachine))
		if r.Err() == nil {
			if err := certbind.ValidMachineName(machine); err != nil {
				r.Fail(err)
			}
		}
	case opProbe:
	default:
		r.Fail(errors.New("an unknown request"))
	}
	return machine, r.End()
}

// An Answer is what DNS says of a machine, as the companion understood its resolver.
type Answer struct {
	Outcome Outcome
	TTL     time.Duration // for how long Secure and Absent hold, whole seconds
	Records [][]byte      // rdata of TLSA records, with Secure alone
	Detail  string        // for the log: visible ASCII and blanks
}

// Marshal returns the answer's bytes. What does not fit into an answer becomes one that says so.
func (a *Answer) Marshal() []byte {
	var w wire.Writer
	w.U8(byte(a.Outcome))
	w.U32(uint32(min(max(a.TTL, 0), MaxTTL) / time.Second))
	if len(a.Records) <= MaxRecords {
		w.U8(byte(len(a.Records)))
		for _, r := range a.Records {
			w.Opaque16("record", r, 0, companion.MaxBody)
		}
		w.Opaque8("detail", []byte(plain(a.Detail)), 0, maxDetail)
		if b, err := w.Bytes(); err == nil && len(b) <= companion.MaxBody {
			return b
		}
	}
	return (&Answer{Outcome: Malformed, Detail: "more records than an answer holds"}).Marshal()
}

// ParseAnswer reads the answer to a LookupRequest.
func ParseAnswer(b []byte) (*Answer, error) {
	r := wire.NewReader(b)
	a := &Answer{Outcome: outcome(r), TTL: time.Duration(r.U32("ttl")) * time.Second}
	n := int(r.U8("count"))
	switch {
	case r.Err() != nil:
	case a.TTL > MaxTTL:
		r.Fail(fmt.Errorf("a ttl of %v, at most %v", a.TTL, MaxTTL))
	case n > MaxRecords:
		r.Fail(fmt.Errorf("%d records, at most %d", n, MaxRecords))
	case (n > 0) != (a.Outcome == Secure):
		r.Fail(fmt.Errorf("%d records with the outcome %v", n, a.Outcome))
	}
	for range n {
		if rdata := r.Opaque16("record", 0, companion.MaxBody); r.Err() == nil {
			a.Records = append(a.Records, rdata)
		}
	}
	a.Detail = detail(r)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("an answer of shared-altsd resolve: %w", err)
	}
	return a, nil
}

// A Probe is how the resolver is.
type Probe struct {
	Outcome  Outcome // Secure if it validates
	Resolver string  // its address
	Since    time.Time
	Last     time.Time
	Detail   string
}

// Marshal returns the probe's bytes.
func (p *Probe) Marshal() []byte {
	var w wire.Writer
	w.U8(byte(p.Outcome))
	w.Opaque8("resolver", []byte(plain(p.Resolver)), 0, maxAddress)
	for _, t := range []time.Time{p.Since, p.Last} {
		w.Put("time", binary.BigEndian.AppendUint64(nil, uint64(max(t.Unix(), 0))), timeSize)
	}
	w.Opaque8("detail", []byte(plain(p.Detail)), 0, maxDetail)
	b, err := w.Bytes()
	if err != nil {
		return nil
	}
	return b
}

// ParseProbe reads the answer to a ProbeRequest.
func ParseProbe(b []byte) (*Probe, error) {
	r := wire.NewReader(b)
	p := &Probe{Outcome: outcome(r), Resolver: text(r, "resolver", maxAddress)}
	for _, t := range []*time.Time{&p.Since, &p.Last} {
		if b := r.Take("time", timeSize); b != nil {
			seconds := binary.BigEndian.Uint64(b)
			if seconds > 1<<40 {
				r.Fail(errors.New("a time beyond all times"))
			}
			*t = time.Unix(int64(seconds), 0)
		}
	}
	p.Detail = detail(r)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("an answer of shared-altsd resolve: %w", err)
	}
	return p, nil
}

func outcome(r *wire.Reader) Outcome {
	o := Outcome(r.U8("outcome"))
	if o >= numOutcomes {
		r.Fail(fmt.Errorf("an unknown outcome %d", o))
	}
	return o
}

func detail(r *wire.Reader) string { return text(r, "detail", maxDetail) }

// text reads a field that may stand in a log.
func text(r *wire.Reader, name string, most int) string {
	s := string(r.Opaque8(name, 0, most))
	if s != plain(s) {
		r.Fail(fmt.Errorf("the field %q is not plain text", name))
	}
	return s
}

// plain returns at most maxDetail bytes of s, as a log may have them.
func plain(s string) string { return ascii.Plain(s[:min(len(s), maxDetail)]) }
