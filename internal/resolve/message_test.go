package resolve

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/companion"
)

// What one end writes the other reads.
func TestMessages(t *testing.T) {
	for _, a := range []Answer{
		{Outcome: Secure, TTL: time.Hour, Records: [][]byte{{3, 1, 1, 7}, {}}},
		{Outcome: Absent, TTL: MaxTTL, Detail: "NXDOMAIN"},
		{Outcome: Bogus, Detail: "DNSSEC Bogus: signature expired"},
		{Outcome: Unsigned}, {Outcome: Silent}, {Outcome: Malformed},
	} {
		if got, err := ParseAnswer(a.Marshal()); err != nil || !reflect.DeepEqual(*got, a) {
			t.Errorf("%+v became %+v, %v", a, got, err)
		}
	}
	p := Probe{Outcome: Unsigned, Resolver: "127.0.0.1:53", Since: time.Unix(1, 0), Last: time.Unix(1<<33, 0), Detail: "no AD"}
	if got, err := ParseProbe(p.Marshal()); err != nil || !reflect.DeepEqual(*got, p) {
		t.Errorf("%+v became %+v, %v", p, got, err)
	}
	req, err := LookupRequest("alpha.example.com")
	if err != nil || string(req) != "\x01\x11alpha.example.com" {
		t.Errorf("%q, %v", req, err)
	}
	if machine, err := parseRequest(req); machine != "alpha.example.com" || err != nil {
		t.Errorf("%q, %v", machine, err)
	}
	if machine, err := parseRequest(ProbeRequest()); machine != "" || err != nil {
		t.Errorf("%q, %v", machine, err)
	}
}

// What does not fit is an answer of its own, and what a resolver says never harms a log.
func TestAnswersThatDoNotFit(t *testing.T) {
	for name, a := range map[string]Answer{
		"17 records": {Outcome: Secure, Records: make([][]byte, MaxRecords+1)},
		"too much":   {Outcome: Secure, Records: [][]byte{make([]byte, companion.MaxBody-10), make([]byte, 10)}},
		"a giant":    {Outcome: Secure, Records: [][]byte{make([]byte, 1<<17)}},
	} {
		if got, err := ParseAnswer(a.Marshal()); err != nil || got.Outcome != Malformed || got.Records != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	a := Answer{Outcome: Bogus, TTL: -1, Detail: "line\nbreak \x1b[31m \xff" + strings.Repeat("x", 300)}
	got, err := ParseAnswer(a.Marshal())
	if err != nil || got.TTL != 0 || len(got.Detail) != maxDetail || !strings.HasPrefix(got.Detail, "line?break ?[31m ?x") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBrokenMessages(t *testing.T) {
	for in, want := range map[string]string{
		"": "ends inside", "\x03": "unknown request", "\x01": "ends inside", "\x01\x00": "0 bytes", "\x01\x01a\x00": "follow",
		"\x01\x0bEXAMPLE.com": "lower-case", "\x01\x09127.0.0.1": "address", "\x01\x09localhost": "localhost", "\x02\x00": "follow",
		"\x01\x0d*.example.com": "name",
	} {
		if _, err := parseRequest([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                                  "ends inside",
		"\x06\x00\x00\x00\x00\x00\x00":      "unknown outcome",
		"\x00\x00\x00\x00\x01\x00\x00":      "0 records with the outcome secure",
		"\x01\x00\x00\x00\x01\x01\x00\x00":  "1 records with the outcome absent",
		"\x00\x00\x00\x00\x01\x11\x00":      "17 records",
		"\x00\xff\x00\x00\x01\x01\x00\x00":  "a ttl of",
		"\x02\x00\x00\x00\x00\x00\x01\n":    "not plain text",
		"\x02\x00\x00\x00\x00\x00\xc9":      "201 bytes",
		"\x02\x00\x00\x00\x00\x00\x00\x00":  "follow",
		"\x00\x00\x00\x00\x01\x01\x00\x02a": "ends inside",
	} {
		if _, err := ParseAnswer([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	good := (&Probe{Resolver: "127.0.0.1:53"}).Marshal()
	for name, in := range map[string][]byte{
		"nothing": nil, "a time": append(append([]byte("\x00\x00"), bytes.Repeat([]byte{0xff}, 16)...), 0), "more": append(good, 0),
		"outcome": append([]byte{9}, good[1:]...), "address": []byte("\x00\x01\x07" + strings.Repeat("\x00", 17)),
	} {
		if _, err := ParseProbe(in); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// What is read of either kind is written again as it was.
func FuzzMessages(f *testing.F) {
	req, _ := LookupRequest("alpha.example.com")
	f.Add(req)
	f.Add(ProbeRequest())
	f.Add((&Answer{Outcome: Secure, TTL: time.Hour, Records: [][]byte{{3, 1, 1, 7}}, Detail: "x"}).Marshal())
	f.Add((&Probe{Resolver: "127.0.0.1:53", Since: time.Unix(1, 0), Last: time.Unix(2, 0)}).Marshal())
	f.Fuzz(func(t *testing.T, in []byte) {
		if machine, err := parseRequest(in); err == nil {
			again := ProbeRequest()
			if machine != "" {
				again, err = LookupRequest(machine)
			}
			if err != nil || !bytes.Equal(again, in) {
				t.Errorf("request %x became %x, %v", in, again, err)
			}
		}
		if a, err := ParseAnswer(in); err == nil && len(in) <= companion.MaxBody && !bytes.Equal(a.Marshal(), in) {
			t.Errorf("answer %x became %x", in, a.Marshal())
		}
		if p, err := ParseProbe(in); err == nil && !bytes.Equal(p.Marshal(), in) {
			t.Errorf("probe %x became %x", in, p.Marshal())
		}
	})
}
