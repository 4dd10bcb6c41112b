package noiseproto

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// The transcripts that the fuzzer starts from are a fixed handshake's, so that mutated ones reach far.

func FuzzResponderFeed(f *testing.F) {
	tr := newFixedTranscript(f)
	good := slices.Concat(tr.frames[0], tr.frames[2])
	fuzzFeed(f, tr, good, func(t *testing.T) *Handshake { return tr.responder(t) })
}

func FuzzInitiatorFeed(f *testing.F) {
	tr := newFixedTranscript(f)
	good := slices.Concat(tr.frames[1], tr.frames[3])
	fuzzFeed(f, tr, good, func(t *testing.T) *Handshake { h := tr.initiator(t); h.first(t); return h })
}

// fuzzFeed feeds in, cut by the lengths in cuts, to a side whose good input is good. Only good and what differs from it
// in bytes that mean nothing (the rest after the end, version and versions of a status) may lead to a result.
func fuzzFeed(f *testing.F, tr *fixedTranscript, good []byte, fresh func(*testing.T) *Handshake) {
	f.Add(good, []byte{})
	f.Add(good, []byte{1, 2, 3, 250})
	f.Add(append(slices.Clone(good), "record"...), []byte{16})
	f.Add(good[:len(good)-1], []byte{255})
	for i := range tr.frames {
		f.Add(tr.frames[i], []byte{7})
	}
	f.Add(StatusFrame(reason.UnknownCA), []byte{1})
	f.Add([]byte("salt\x02\x01\xff\xff"), []byte{1})
	f.Add([]byte("\x16\x03\x01"), []byte{1})
	last := headerSize + statusSize // of the initiator's input is a status
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		h := fresh(t)
		var err error
		total := 0
		for rest := in; len(rest) > 0 && err == nil && !h.Done(); {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, max(1, int(cuts[0])))
				cuts = cuts[1:]
			}
			var took int
			took, _, err = h.Feed(rest[:n])
			if err == nil && took != n && !h.Done() || took > n {
				t.Fatalf("took %d of %d bytes", took, n)
			}
			total, rest = total+took, rest[took:]
		}
		if err != nil {
			var e *reason.Error
			if !errors.As(err, &e) || e.Detail == "" && !e.ByPeer || h.Done() || h.Result() != nil {
				t.Fatalf("a bad error or a result beside it: %v", err)
			}
			if _, out, again := h.Feed(in); again != err || out != nil {
				t.Fatal("an error that is not final")
			}
			return
		}
		same := len(in) >= len(good) && (bytes.Equal(in[:len(good)], good) ||
			h.initiator && bytes.Equal(in[:len(good)-last], good[:len(good)-last]))
		if h.Done() != same || h.Done() && total != len(good) {
			t.Fatalf("done %v after %d bytes, same %v", h.Done(), total, same)
		}
	})
}

func FuzzOffer(f *testing.F) {
	f.Add(rawOffer(testParams))
	f.Add(rawOffer(fullParams))
	f.Add([]byte("\x02\x01a\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseOffer(b)
		if err != nil {
			if reason.Of(err) != reason.Malformed {
				t.Fatal(err)
			}
			return
		}
		if back, err := marshalOffer(p); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("an offer with two encodings: %x, %v", back, err)
		}
		if c, err := choose(fullParams, p); err == nil {
			if err := c.check(p); err != nil {
				t.Fatalf("chosen, but not offered: %v", err)
			}
		}
	})
}

func FuzzChoice(f *testing.F) {
	c := choice{"grpc", RecordProtocol, testParams.RPCVersions, 7, ""}
	f.Add(rawChoice(c))
	c.transport = "t"
	f.Add(rawChoice(c))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseChoice(b)
		if err != nil {
			if reason.Of(err) != reason.Malformed {
				t.Fatal(err)
			}
			return
		}
		if back, err := marshalChoice(c); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("a choice with two encodings: %x, %v", back, err)
		}
		if c.check(fullParams) == nil && (c.record != RecordProtocol || c.transport != "" && c.transport != "t") {
			t.Fatalf("%+v was not offered", c)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("salt\x01\x04\x00\x04abcdsalt\x01\x01\x00\x00"), uint8(3))
	f.Add([]byte("salt\x01\x04\x00\x04ab"), uint8(0))
	f.Add([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, segment uint8) {
		check := func(h header) error {
			if h.length > 100 {
				return errors.New("long")
			}
			return nil
		}
		// Whole and in segments, the same frames and the same end come out.
		read := func(segment int) (frames [][]byte, failed bool) {
			var r frameReader
			for rest := in; ; {
				n, body, whole, err := r.read(rest[:min(segment, len(rest))], check)
				if n > segment || len(r.partial) > 100 || cap(r.partial) > 100 {
					t.Fatal("more than there was")
				}
				if rest = rest[n:]; err != nil {
					return frames, true
				}
				if whole {
					frames = append(frames, slices.Concat(r.raw[:], body))
				} else if len(rest) == 0 {
					return frames, false
				}
			}
		}
		a, aFailed := read(max(1, len(in)))
		b, bFailed := read(max(1, int(segment)))
		if aFailed != bFailed || !slices.EqualFunc(a, b, bytes.Equal) {
			t.Fatalf("%q, %v and %q, %v", a, aFailed, b, bFailed)
		}
		if !aFailed && !bytes.HasPrefix(in, slices.Concat(a...)) {
			t.Fatal("frames that were not there")
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1})
	f.Add([]byte{0xff, 0xff, 9, 3})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStatus(b)
		if (err == nil) != (len(b) == statusSize) {
			t.Fatal(err)
		}
		if err == nil && s.code != reason.Accepted && (s.refusal(1).Error() == "" || !s.refusal(1).ByPeer) {
			t.Fatal("a refusal without words")
		}
	})
}
