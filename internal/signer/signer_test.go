package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const alpha = "alpha.example.com"

// A bench is a signer with its files.
type bench struct {
	*Signer
	t             *testing.T
	ca            *testca.CA
	issued        *testca.Issued
	key, certFile string
	now           time.Time
	log           bytes.Buffer
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newBench makes a signer for a leaf, whose key lies in a file.
func newBench(t *testing.T, leaf testca.Leaf, rate int) *bench {
	t.Helper()
	dir := testprog.Dir(t)
	b := &bench{t: t, ca: testca.MustCA(t, testca.Options{}), now: time.Now().Truncate(time.Second)}
	b.issued = testca.MustIssue(t, b.ca, leaf)
	b.key = write(t, filepath.Join(dir, "key.pem"), b.issued.KeyPEM)
	b.certFile = write(t, filepath.Join(dir, "machine.pem"), append(b.ca.PEM(), b.issued.CertPEM...))
	key, err := OpenFile(b.key)
	if err != nil {
		t.Fatal(err)
	}
	b.Signer, err = New(Config{Key: key, Certificates: b.certFile, Rate: rate, Where: "a file", Now: func() time.Time { return b.now },
		Log: slog.New(slog.NewTextHandler(&b.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testlog.Load(t, "../..").Sections["shared-altsd-signer"].CheckText(t, b.log.String()) })
	return b
}

// good returns a statement that the daemon has need of now.
func (b *bench) good() certbind.Statement {
	return certbind.Statement{StaticKey: [32]byte{1}, Leaf: sha256.Sum256(b.issued.Cert.Raw), Machine: alpha, Account: "alice",
		Attributes: []certbind.Attribute{{Name: "uid", Value: "1001"}},
		NotBefore:  b.now.Add(-5 * time.Minute), NotAfter: b.now.Add(6 * time.Hour)}
}

// ask has a statement signed.
func (b *bench) ask(st certbind.Statement) *answer {
	b.t.Helper()
	return b.send(&request{askSign, st})
}

func (b *bench) send(r *request) *answer {
	b.t.Helper()
	a, err := parseAnswer(r.operation, b.Handle(b.t.Context(), mustEncode(b.t, r)))
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// TestRule61StatementsAlone: a statement of this machine for now is signed, whatever the key, and it is the signed bytes of the
// signer's own making; each that is of another time, certificate or name is refused, with why.
func TestRule61StatementsAlone(t *testing.T) {
	for _, kind := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048} {
		b := newBench(t, testca.Leaf{Hosts: []string{alpha, "www.example.com"}, KeyType: kind, NotAfter: time.Now().Add(20 * time.Hour)}, 0)
		st := b.good()
		a := b.ask(st)
		statement, err := st.Marshal()
		if err != nil || a.outcome != done || !certbind.ValidSignature(b.issued.Cert.PublicKey, statement, a.value) {
			t.Fatalf("%s: %+v, %v", kind, a, err)
		}
		if a = b.send(&request{operation: askProof}); a.outcome != done || !certbind.ValidSignature(b.issued.Cert.PublicKey, nil, a.value) {
			t.Fatalf("%s: a proof: %+v", kind, a)
		}
		if err := b.Prove(t.Context()); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if !strings.Contains(b.log.String(), "msg=signed account=alice machine="+alpha) {
			t.Errorf("the log says %s", b.log.String())
		}
	}
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}, NotAfter: time.Now().Add(20 * time.Hour)}, 0)
	other := testca.MustIssue(t, b.ca, testca.Leaf{Hosts: []string{alpha}})
	for _, tc := range []struct {
		what, want string
		change     func(*certbind.Statement)
	}{
		{"begins 10 minutes ago", "", func(s *certbind.Statement) { s.NotBefore = b.now.Add(-maxSkew) }},
		{"begins in 10 minutes", "", func(s *certbind.Statement) { s.NotBefore = b.now.Add(maxSkew) }},
		{"ends with the leaf", "", func(s *certbind.Statement) { s.NotAfter = b.issued.Cert.NotAfter }},
		{"no attributes", "", func(s *certbind.Statement) { s.Attributes = nil }},
		{"an account of a domain", "", func(s *certbind.Statement) { s.Account = `alice@corp` }},
		{"began earlier", "more than 10m0s apart", func(s *certbind.Statement) { s.NotBefore = b.now.Add(-maxSkew - time.Second) }},
		{"begins later", "more than 10m0s apart", func(s *certbind.Statement) { s.NotBefore = b.now.Add(maxSkew + time.Second) }},
		{"of next year", "more than 10m0s apart", func(s *certbind.Statement) {
			s.NotBefore, s.NotAfter = b.now.AddDate(1, 0, 0), b.now.AddDate(1, 0, 1)
		}},
		{"ends before it begins", "is over", func(s *certbind.Statement) { s.NotAfter = s.NotBefore.Add(-time.Second) }},
		{"has ended", "is over", func(s *certbind.Statement) { s.NotAfter = b.now.Add(-time.Second) }},
		{"outlives the leaf", "after the certificate", func(s *certbind.Statement) { s.NotAfter = b.issued.Cert.NotAfter.Add(time.Second) }},
		{"of two days", "more than 24h0m0s", func(s *certbind.Statement) { s.NotAfter = s.NotBefore.Add(maxWindow + time.Second) }},
		{"another leaf", "none of this key", func(s *certbind.Statement) { s.Leaf = sha256.Sum256(other.Cert.Raw) }},
		{"the CA's leaf", "none of this key", func(s *certbind.Statement) { s.Leaf = sha256.Sum256(b.ca.Cert.Raw) }},
		{"no leaf", "none of this key", func(s *certbind.Statement) { s.Leaf = [32]byte{} }},
		{"another machine", "none of the names", func(s *certbind.Statement) { s.Machine = "beta.example.com" }},
		{"a machine above", "none of the names", func(s *certbind.Statement) { s.Machine = "example.com" }},
		{"in capitals", "none of the names", func(s *certbind.Statement) { s.Machine = strings.ToUpper(alpha) }},
		{"no account's name", "must begin with", func(s *certbind.Statement) { s.Account = "Alice" }},
		{"an account with a line", "may hold only", func(s *certbind.Statement) { s.Account = "a\nb" }},
		{"an attribute of the verifier", "is reserved", func(s *certbind.Statement) { s.Attributes[0].Name = "user" }},
		{"a uid that is none", "decimal number", func(s *certbind.Statement) { s.Attributes[0].Value = "0x1" }},
		{"attributes twice", "ascending", func(s *certbind.Statement) { s.Attributes = append(s.Attributes, s.Attributes[0]) }},
	} {
		st := b.good()
		tc.change(&st)
		a := b.ask(st)
		if tc.want == "" && a.outcome != done || tc.want != "" && (a.outcome != notOurs || !strings.Contains(a.text, tc.want)) {
			t.Errorf("%s: %+v, want %q", tc.what, a, tc.want)
		}
	}
	for _, raw := range [][]byte{nil, {0}, {4}, {1, 0}, []byte("sign this")} {
		if a := b.Handle(t.Context(), raw); a != nil {
			t.Errorf("%q was answered by %q", raw, a)
		}
	}
	if strings.Count(b.log.String(), "a statement was refused") != 1 || strings.Contains(b.log.String(), `\n`) {
		t.Errorf("the log of refusals: %s", b.log.String())
	}
}

// TestRule61SignedBytes: whatever the fields, what is signed begins as no TLS handshake and no certificate does.
func TestRule61SignedBytes(t *testing.T) {
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}, KeyType: testca.Ed25519}, 0)
	var signed []byte
	b.Signer.key = &watchedKey{Key: b.Signer.key, watch: func(message []byte) { signed = message }}
	b.ask(b.good())
	if !bytes.HasPrefix(signed, append(bytes.Repeat([]byte(" "), 64), "shared-altsd v1 machine statement\x00"...)) {
		t.Errorf("signed %q", signed)
	}
}

// A watchedKey tells what it signs, and then signs, or does what it is told to.
type watchedKey struct {
	Key
	watch func([]byte)
	do    func(context.Context) ([]byte, error)
}

func (k *watchedKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.watch != nil {
		k.watch(digest)
	}
	if k.do != nil {
		return k.do(ctx)
	}
	return k.Key.Sign(ctx, digest, opts)
}

// TestRule61Certificates: the signer follows the file; what was in it until just now is signed for, so that the daemon can change
// to the next one; a file that is worse than before changes nothing, and is said only where its certificate is asked for.
func TestRule61Certificates(t *testing.T) {
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}}, 0)
	old := b.good()
	signs := func(what string, st certbind.Statement, want string) {
		t.Helper()
		if a := b.ask(st); (a.outcome == done) != (want == "") || !strings.Contains(a.text, want) {
			t.Errorf("%s: %+v, want %q", what, a, want)
		}
	}
	replace := func(pem []byte, mode os.FileMode) {
		t.Helper()
		next := write(t, b.certFile+".next", pem)
		if err := errors.Join(os.Chmod(next, mode), os.Rename(next, b.certFile)); err != nil {
			t.Fatal(err)
		}
	}
	next := testca.MustIssue(t, b.ca, testca.Leaf{Hosts: []string{alpha, "new.example.com"}, Key: b.issued.Key, NotAfter: b.now.Add(time.Hour * 9999)})
	renewed := old
	renewed.Leaf, renewed.Machine = sha256.Sum256(next.Cert.Raw), "new.example.com"
	signs("a certificate to come", renewed, "none of this key")
	replace(next.CertPEM, 0o644)
	signs("the next certificate", renewed, "")
	signs("the last one, for now", old, "")
	if !b.Leaf().Equal(next.Cert) {
		t.Errorf("the leaf is %v", b.Leaf().DNSNames)
	}
	b.now = b.now.Add(keptOn)
	old.NotBefore, old.NotAfter, renewed.NotBefore, renewed.NotAfter = b.now, b.now.Add(time.Hour), b.now, b.now.Add(time.Hour)
	signs("the last one, later", old, "none of this key")
	other := testca.MustIssue(t, b.ca, testca.Leaf{Hosts: []string{alpha}})
	for want, file := range map[string]struct {
		pem  []byte
		mode os.FileMode
	}{
		"is of the signer's key":   {other.CertPEM, 0o644},
		"holds a private key":      {b.issued.PEM(), 0o600},
		"does not parse":           {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o644},
		"none of its 0":            {nil, 0o644},
		"may be written by its":    {append(b.issued.CertPEM, next.CertPEM...), 0o666},
		"than 1048576 bytes":       {bytes.Repeat([]byte("x"), maxFile+1), 0o644},
		"16 certificates of the k": {bytes.Repeat(next.CertPEM, maxLeaves+1), 0o644},
	} {
		replace(file.pem, file.mode)
		signs(want, renewed, "")
		signs(want, old, want)
		if _, err := New(Config{Key: b.Signer.key, Certificates: b.certFile}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("at the start: %v, want %q", err, want)
		}
	}
	os.Remove(b.certFile)
	signs("no file", renewed, "")
	signs("no file", old, "give the right path")
	// A machine for which DNS vouches may have a common name alone.
}

// TestRule61Rate: beyond a burst so many signatures a second are made and no more, whoever asks; who waits too long is told.
func TestRule61Rate(t *testing.T) {
	began := time.Now()
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}, KeyType: testca.Ed25519}, 1)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	made := 0
	for ; ; made++ {
		a, err := parseAnswer(askSign, b.Handle(over, mustEncode(t, &request{askSign, b.good()})))
		if err != nil {
			t.Fatal(err)
		}
		if a.outcome == tooMany {
			break
		}
		if most := burst + 2 + int(time.Since(began).Seconds()); a.outcome != done || made > most {
			t.Fatalf("%+v, after %d signatures, of at most %d", a, made, most)
		}
	}
	if made < burst {
		t.Errorf("%d signatures at once, want %d", made, burst)
	}
	if a := b.send(&request{operation: askPublic}); a.outcome != done {
		t.Errorf("the public key: %+v", a)
	}
}

// TestRule61KeyFails: what a device says of itself reaches the daemon, in one plain line; a signature that is none does not.
func TestRule61KeyFails(t *testing.T) {
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}}, 0)
	key := &watchedKey{Key: b.Signer.key}
	b.Signer.key = key
	for _, tc := range []struct {
		want string
		do   func(context.Context) ([]byte, error)
	}{
		{"the token is gone?put it back", func(context.Context) ([]byte, error) { return nil, errors.New("the token is gone\nput it back") }},
		{"no signature of the key", func(context.Context) ([]byte, error) { return []byte("nonsense"), nil }},
	} {
		key.do = tc.do
		if a := b.ask(b.good()); a.outcome != keyFailed || !strings.Contains(a.text, tc.want) {
			t.Errorf("%+v, want %q", a, tc.want)
		}
		if err := b.Prove(t.Context()); err == nil {
			t.Error("a proof by a key that fails")
		}
	}
	key.do = nil
	if a := b.ask(b.good()); a.outcome != done {
		t.Errorf("once it is back: %+v", a)
	}
}

func TestOpenFile(t *testing.T) {
	dir := testprog.Dir(t)
	i := testca.MustIssue(t, testca.MustCA(t, testca.Options{}), testca.Leaf{Hosts: []string{alpha}})
	path := write(t, filepath.Join(dir, "key.pem"), i.KeyPEM)
	for want, file := range map[string]struct {
		pem  []byte
		mode os.FileMode
	}{
		"": {i.KeyPEM, 0o640}, "read by everybody": {i.KeyPEM, 0o644}, "written by its group": {i.KeyPEM, 0o660},
		"2 PEM blocks": {i.PEM(), 0o600}, "PEM type is": {i.CertPEM, 0o600}, "is empty": {nil, 0o600},
	} {
		os.Remove(path)
		if err := os.Chmod(write(t, path, file.pem), file.mode); err != nil {
			t.Fatal(err)
		}
		k, err := OpenFile(path)
		if got := fmt.Sprint(err); !strings.Contains(got, want) || (err == nil) != (want == "") {
			t.Errorf("%v, want %q", err, want)
		}
		if k != nil && k.Close() != nil {
			t.Error("it cannot be closed")
		}
	}
	if _, err := OpenFile(filepath.Join(dir, "nothing")); err == nil || !strings.Contains(err.Error(), "give the right path") {
		t.Errorf("no file: %v", err)
	}
}
