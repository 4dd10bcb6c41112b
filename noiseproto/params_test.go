package noiseproto

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

var fullParams = Params{
	ApplicationProtocols: []string{"grpc", "h2"},
	RecordProtocols:      []string{RecordProtocol},
	RPCVersions:          RPCVersions{Version{2, 1}, Version{1, 0xffffffff}},
	MaxFrameSize:         0x01020304,
	TransportProtocols:   []string{"t"},
}

// The encodings, byte for byte.
func TestEncodings(t *testing.T) {
	offer := "\x02\x04grpc\x02h2" + "\x01\x17ALTSRP_GCM_AES128_REKEY" +
		"\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff" + "\x01\x02\x03\x04" + "\x01\x01t"
	if got, err := marshalOffer(fullParams); err != nil || string(got) != offer || string(rawOffer(fullParams)) != offer {
		t.Errorf("offer %q, %v", got, err)
	}
	if p, err := parseOffer([]byte(offer)); err != nil || !reflect.DeepEqual(p, fullParams) {
		t.Errorf("%+v, %v", p, err)
	}
	c := choice{"grpc", RecordProtocol, fullParams.RPCVersions, 0x01020304, ""}
	enc := "\x04grpc" + "\x17ALTSRP_GCM_AES128_REKEY" +
		"\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff" + "\x01\x02\x03\x04" + "\x00"
	if got, err := marshalChoice(c); err != nil || string(got) != enc || string(rawChoice(c)) != enc {
		t.Errorf("choice %q, %v", got, err)
	}
	if got, err := parseChoice([]byte(enc)); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for _, whole := range []string{offer, enc} { // cut anywhere, or longer
		parse := func(b []byte) error { _, err := parseOffer(b); return err }
		if whole == enc {
			parse = func(b []byte) error { _, err := parseChoice(b); return err }
		}
		for n := range whole {
			if err := parse([]byte(whole[:n])); reason.Of(err) != reason.Malformed {
				t.Errorf("cut at %d: %v", n, err)
			}
		}
		if err := parse([]byte(whole + "\x00")); reason.Of(err) != reason.Malformed ||
			!strings.Contains(err.Error(), "1 bytes follow") {
			t.Errorf("with a byte more: %v", err)
		}
	}
}

func TestBadLists(t *testing.T) {
	tail := "\x01\x01r" + strings.Repeat("\x00", 20) + "\x00"
	many := "\x11"
	for i := range 17 {
		many += "\x01" + string(rune('a'+i))
	}
	for list, want := range map[string]string{
		"\x00":                                 "has 0 entries, it must have 1 to 16",
		many:                                   "has 17 entries",
		"\x01\x00":                             "has 0 bytes, it must have 1 to 64",
		"\x01\x41" + strings.Repeat("a", 0x41): "has 65 bytes",
		"\x01\x01 ":                            "not printable",
		"\x01\x01\x7f":                         "not printable",
		"\x01\x01\xc3":                         "not printable",
		"\x02\x01a\x01a":                       "twice",
	} {
		_, err := parseOffer([]byte(list + tail))
		if reason.Of(err) != reason.Malformed || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", list, err, want)
		}
	}
	if _, err := parseOffer([]byte("\x01\x40" + strings.Repeat("~", 64) + tail)); err != nil {
		t.Errorf("the longest entry: %v", err)
	}
}

// What an application may name, and what is said of what it may not.
func TestProtocols(t *testing.T) {
	names := func(n int) (list []string) {
		for i := range n {
			list = append(list, string(rune('a'+i)))
		}
		return list
	}
	for _, c := range []struct {
		in   []string
		want string // of the error; none: in, without what is there twice
	}{
		{nil, ""},
		{[]string{"grpc", "h2", "grpc", "!~", "h2"}, ""},
		{[]string{strings.Repeat("a", 64)}, ""},
		{append(names(16), names(16)...), ""},
		{names(17), "more than 16 entries"},
		{[]string{"grpc", ""}, `the entry ""; each must be 1 to 64 printable ASCII characters`},
		{[]string{strings.Repeat("a", 65)}, "the entry"},
		{[]string{"a b"}, `the entry "a b"`},
		{[]string{"a\x7f"}, "the entry"},
		{[]string{"ä"}, "the entry"},
	} {
		got, err := Protocols(c.in)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		case c.want == "":
			var want []string
			for _, n := range c.in {
				if !slices.Contains(want, n) {
					want = append(want, n)
				}
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q: %q, %v, want %q", c.in, got, err, want)
			}
		}
	}
}

func TestCommonRPC(t *testing.T) {
	v := func(a, b uint32) Version { return Version{a, b} }
	for _, c := range []struct {
		a, b RPCVersions
		want bool
	}{
		{RPCVersions{v(2, 1), v(2, 1)}, RPCVersions{v(2, 1), v(2, 1)}, true},
		{RPCVersions{v(2, 1), v(2, 0)}, RPCVersions{v(2, 2), v(2, 1)}, true},
		{RPCVersions{v(2, 9), v(1, 0)}, RPCVersions{v(10, 0), v(2, 9)}, true},
		{RPCVersions{v(3, 0), v(1, 0)}, RPCVersions{v(2, 1), v(2, 0)}, true},
		{RPCVersions{v(2, 0), v(2, 0)}, RPCVersions{v(2, 1), v(2, 1)}, false},
		{RPCVersions{v(1, 99), v(1, 0)}, RPCVersions{v(2, 0), v(2, 0)}, false},
		{RPCVersions{v(1, 0), v(2, 0)}, RPCVersions{v(9, 0), v(0, 0)}, false}, // an empty range
	} {
		if c.a.common(c.b) != c.want || c.b.common(c.a) != c.want {
			t.Errorf("%v and %v: want %v", c.a, c.b, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	for c := reason.Accepted; c <= reason.OwnCertificate+1; c++ {
		f := StatusFrame(c)
		if statusOf(t, f) != c || !bytes.Equal(f[:8], []byte("salt\x01\x04\x00\x04")) {
			t.Errorf("%s: %x", c, f)
		}
	}
	for n := range 8 {
		if _, err := parseStatus(make([]byte, n)); (err == nil) != (n == statusSize) {
			t.Errorf("a status of %d bytes: %v", n, err)
		}
	}
	if s := (status{1, 2, 2}).refusal(1).Error(); !strings.Contains(s, "it serves version 2, this daemon spoke 1") {
		t.Error(s)
	}
}
