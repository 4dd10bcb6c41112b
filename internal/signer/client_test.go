package signer

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// serve serves the handle at a socket until the test, or stop, ends it.
func serve(t *testing.T, path string, handle func(context.Context, []byte) []byte) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server := &companion.Server{Protocol: Protocol, InFlight: 64, Handle: handle, Log: slog.New(slog.DiscardHandler)}
	go func() { ended <- server.Serve(ctx, l.(*net.UnixListener)) }()
	stop = func() {
		if ctx.Err() == nil {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestClient: a daemon's end and a signer, over a socket: a machine's accounts are attested by it, and what goes wrong is told
// with its cure.
func TestClient(t *testing.T) {
	b := newBench(t, testca.Leaf{Hosts: []string{alpha}, KeyType: testca.RSA2048}, 0)
	path := filepath.Join(testprog.Dir(t), "socket")
	client := NewClient(path)
	defer client.Close()
	if _, err := client.Key(t.Context()); err == nil || !strings.Contains(err.Error(), "systemctl start shared-altsd-signer") {
		t.Errorf("no signer: %v", err)
	}
	if k := client.Known(); k != nil {
		t.Errorf("a key is known: %v", k)
	}
	stop := serve(t, path, b.Handle)
	key, err := client.Key(t.Context())
	if err != nil || client.Known() != key || client.Where() != "a file" {
		t.Fatal(err)
	}
	credential, err := certbind.ParseCertificates(b.issued.CertPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := certbind.NewTrust(certbind.TrustConfig{CAs: []certbind.CA{{PEM: b.ca.PEM()}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: credential, Name: alpha, Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.Attest(t.Context(), "alice", []certbind.Attribute{{Name: "uid", Value: "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := m.Verify(a.Identity, a.Public); err != nil || p.String() != "alice@"+alpha {
		t.Errorf("%v, %v", p, err)
	}
	if err := m.RotateStatic(); err != nil {
		t.Error(err)
	}
	if again, err := client.Key(t.Context()); err != nil || again != key {
		t.Errorf("the key is another: %v", err)
	}
	stop()
	if _, err := m.Attest(t.Context(), "bob", nil); err == nil || !strings.Contains(err.Error(), "is away") {
		t.Errorf("the signer has gone: %v", err)
	}
	if _, err := m.Attest(t.Context(), "alice", []certbind.Attribute{{Name: "uid", Value: "1"}}); err != nil {
		t.Errorf("the statement in hand: %v", err)
	}
	for _, tc := range []struct {
		want   string
		handle func(context.Context, []byte) []byte
	}{
		{"ask", b.Handle},
		{"refuses the statement: x", func(context.Context, []byte) []byte { return (&answer{outcome: notOurs, text: "x"}).encode() }},
		{"makes no signature now: x", func(context.Context, []byte) []byte { return (&answer{outcome: tooMany, text: "x"}).encode() }},
		{"cannot sign: x", func(context.Context, []byte) []byte { return (&answer{outcome: keyFailed, text: "x"}).encode() }},
		{"fails (77): x", func(context.Context, []byte) []byte { return (&answer{outcome: 77, text: "x"}).encode() }},
		{"of one release", func(context.Context, []byte) []byte { return []byte("x") }},
		{"public key that cannot be used", func(context.Context, []byte) []byte { return (&answer{value: []byte("x"), public: true}).encode() }},
		{"is away", func(context.Context, []byte) []byte { return nil }},
		{"see whether what holds its key works", func(ctx context.Context, _ []byte) []byte { <-ctx.Done(); return nil }},
	} {
		stop := serve(t, path, tc.handle)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := client.Key(ctx)
		cancel()
		if (err == nil) != (tc.want == "ask") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want %q", err, tc.want)
		}
		if client.Known() != key {
			t.Error("what was known is forgotten")
		}
		stop()
	}
	// Another key in the signer's place signs for nobody.
	other := newBench(t, testca.Leaf{Hosts: []string{alpha}}, 0)
	serve(t, path, other.Handle)
	if _, err := m.Attest(t.Context(), "carol", nil); err == nil || !strings.Contains(err.Error(), "none of this key in "+other.certFile) {
		t.Errorf("another key: %v", err)
	}
	if err := credential.Prove(t.Context()); err == nil || !strings.Contains(err.Error(), "name the key that the certificate was made for") {
		t.Errorf("another key's proof: %v", err)
	}
	if k, err := client.Key(t.Context()); err != nil || k == key {
		t.Errorf("the other key: %v", err)
	}
}
