package signer

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// someStatement is one with each field filled.
func someStatement() certbind.Statement {
	return certbind.Statement{
		StaticKey: [32]byte{1, 2, 3}, Leaf: [32]byte{4, 5, 6}, Machine: "alpha.example.com", Account: "alice",
		Attributes: []certbind.Attribute{{Name: "socket", Value: "blue"}, {Name: "uid", Value: "1001"}},
		NotBefore:  time.Unix(1800000000, 0).UTC(), NotAfter: time.Unix(1800021600, 0).UTC(),
	}
}

func mustEncode(t testing.TB, r *request) []byte {
	t.Helper()
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is asked is read as it was asked, and nothing shorter or longer.
func TestRequests(t *testing.T) {
	bare := someStatement()
	bare.Attributes = nil
	for _, req := range []*request{{operation: askPublic}, {operation: askProof}, {askSign, someStatement()}, {askSign, bare}} {
		b := mustEncode(t, req)
		got, err := parseRequest(b)
		if err != nil || !reflect.DeepEqual(got, req) {
			t.Errorf("%+v came back as %+v, %v", req, got, err)
		}
		for n := range b {
			if _, err := parseRequest(b[:n]); err == nil {
				t.Errorf("the first %d bytes of %d were taken", n, len(b))
			}
		}
		if _, err := parseRequest(append(bytes.Clone(b), 0)); err == nil {
			t.Error("a byte more was taken")
		}
	}
	late := someStatement()
	late.NotAfter = time.Unix(maxUnixTime+1, 0)
	for want, b := range map[string][]byte{
		"operation 4, which is not known": {4}, "operation 0, which is not known": {0},
		"17 attributes":   append(mustEncode(t, &request{askSign, bare})[:1+64+1+len(bare.Machine)+1+len(bare.Account)], 17),
		"the year 9999":   mustEncode(t, &request{askSign, late}),
		"more than 8192":  make([]byte, maxRequest+1),
		"ends inside the": {},
	} {
		if _, err := parseRequest(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	long := someStatement()
	long.Attributes = make([]certbind.Attribute, maxAttributes+1)
	if _, err := (&request{askSign, long}).encode(); err == nil {
		t.Error("too many attributes were encoded")
	}
}

func TestAnswers(t *testing.T) {
	for _, a := range []*answer{{outcome: done, value: []byte("signature")}, {outcome: done, value: []byte("key"), public: true, where: "a token"},
		{outcome: tooMany, text: "wait"}, {outcome: 99, text: ""}} {
		to := askSign
		if a.public {
			to = askPublic
		}
		b := a.encode()
		got, err := parseAnswer(to, b)
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v came back as %+v, %v", a, got, err)
		}
		for n := range b {
			if _, err := parseAnswer(to, b[:n]); err == nil {
				t.Errorf("the first %d bytes of %d were taken", n, len(b))
			}
		}
	}
	// A text is for a log: nothing that a device says ends its line, or has no end.
	a, err := parseAnswer(askSign, (&answer{outcome: keyFailed, text: "a\nb\x1b[31m" + strings.Repeat("é", maxText)}).encode())
	if err != nil || len(a.text) != maxText || !strings.HasPrefix(a.text, "a?b?[31m?") {
		t.Errorf("%d bytes, %.20q, %v", len(a.text), a.text, err)
	}
	if a, err = parseAnswer(askSign, []byte("\x03\x00\x03x\ny")); err != nil || a.text != "x?y" {
		t.Errorf("%q, %v", a.text, err)
	}
	// What is no answer is not sent as one.
	if a, err = parseAnswer(askSign, (&answer{value: make([]byte, maxValue+1)}).encode()); err != nil || a.outcome != keyFailed {
		t.Errorf("%+v, %v", a, err)
	}
}

// FuzzRequest: what is taken as a request is that request alone, and what it asks to have signed is a statement or is refused.
func FuzzRequest(f *testing.F) {
	for _, req := range []*request{{operation: askPublic}, {operation: askProof}, {askSign, someStatement()}} {
		f.Add(mustEncode(f, req))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := parseRequest(b)
		if err != nil {
			return
		}
		if again := mustEncode(t, req); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
		statement, err := req.statement.Marshal()
		if req.operation != askSign || err != nil {
			return
		}
		if got, err := certbind.ParseStatement(statement); err != nil || !reflect.DeepEqual(*got, req.statement) {
			t.Fatalf("%+v was encoded as %+v, %v", req.statement, got, err)
		}
	})
}

// FuzzAnswer: whatever a signer sends, the daemon reads within bounds, and its words are plain.
func FuzzAnswer(f *testing.F) {
	f.Add(byte(askSign), (&answer{value: []byte("signature")}).encode())
	f.Add(byte(askPublic), (&answer{value: []byte("key"), public: true, where: "a token"}).encode())
	f.Add(byte(askProof), (&answer{outcome: keyFailed, text: "the token is gone"}).encode())
	f.Fuzz(func(t *testing.T, to byte, b []byte) {
		a, err := parseAnswer(operation(to), b)
		if err != nil {
			return
		}
		if a.outcome == done && (len(a.value) == 0 || len(a.value) > maxValue) || len(a.text) > maxText || len(a.where) > maxWhere ||
			ascii.Plain(a.text+a.where) != a.text+a.where {
			t.Fatalf("%x was read as %+v", b, a)
		}
	})
}
