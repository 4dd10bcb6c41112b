package device

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A soft is a key in memory that does as it is told.
type soft struct {
	crypto.Signer
	before func() error
	closed *int
}

func (s *soft) Sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.before(); err != nil {
		return nil, err
	}
	return s.Signer.Sign(rand.Reader, digest, opts)
}

func (s *soft) Close() error { *s.closed++; return nil }

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var digest = sha256.Sum256([]byte("a statement"))

func sign(ctx context.Context, k *Key) error {
	_, err := k.Sign(ctx, digest[:], crypto.SHA256)
	return err
}

// TestRule63DeviceHangs: who asks waits no longer than he may, one operation alone is under way, and it goes on once the device
// answers.
func TestRule63DeviceHangs(t *testing.T) {
	private, closed, hold := newKey(t), 0, make(chan struct{})
	began := make(chan struct{}, 100)
	k, err := Open(t.Context(), func() (Opened, error) {
		return &soft{Signer: private, closed: &closed, before: func() error { began <- struct{}{}; <-hold; return nil }}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- sign(ctx, k) }()
	<-began
	cancel()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Error(err)
	}
	for range 50 {
		if err := sign(ctx, k); !errors.Is(err, errBusy) {
			t.Fatal(err)
		}
	}
	if len(began) != 0 {
		t.Errorf("%d operations were begun while one hung", len(began))
	}
	if err := k.Close(); !errors.Is(err, errBusy) {
		t.Errorf("closing: %v", err)
	}
	close(hold)
	if err := sign(t.Context(), k); err != nil {
		t.Error(err)
	}
	if err := k.Close(); err != nil || closed != 1 {
		t.Errorf("closing: %v, %d times", err, closed)
	}
	if _, err := Open(ctx, func() (Opened, error) { select {} }); err == nil {
		t.Error("a device that does not open was waited for")
	}
}

// TestOpenedAnew: a device that was lost is opened anew once for each signature, and never as another key.
func TestOpenedAnew(t *testing.T) {
	lost := errors.New("the device was lost")
	for _, test := range []struct {
		name     string
		fails    int // so many signatures
		other    bool
		want     string
		wantOpen int
	}{
		{name: "lost once", fails: 1, wantOpen: 2},
		{name: "lost for good", fails: 9, want: "lost", wantOpen: 2},
		{name: "another key", fails: 1, other: true, want: "another key", wantOpen: 2},
	} {
		private, opens, closed := newKey(t), 0, 0
		k, err := Open(t.Context(), func() (Opened, error) {
			opens++
			s := &soft{Signer: private, closed: &closed, before: func() error {
				if test.fails--; test.fails >= 0 {
					return lost
				}
				return nil
			}}
			if test.other && opens > 1 {
				s.Signer = newKey(t)
			}
			return s, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = sign(t.Context(), k)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		k.Close()
		if opens != test.wantOpen || closed != opens {
			t.Errorf("%s: opened %d times and closed %d times, want %d", test.name, opens, closed, test.wantOpen)
		}
	}
}

// TestRule63Padding: the padding is that of the standard library, with exactly 32 bytes of salt, for moduli of any length.
func TestRule63Padding(t *testing.T) {
	for _, bits := range []int{2048, 2049, 2050, 2055, 3072} {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		padded, err := PadPSS(&private.PublicKey, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		m := private.N.Bytes()
		if len(padded) != len(m) {
			t.Fatalf("%d bits: %d bytes, want %d", bits, len(padded), len(m))
		}
		signature := raw(private, padded)
		if !VerifyPSS(&private.PublicKey, digest[:], signature) {
			t.Errorf("%d bits: the signature does not verify", bits)
		}
		other, err := rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: 33})
		if err != nil || VerifyPSS(&private.PublicKey, digest[:], other) {
			t.Errorf("%d bits: a salt of 33 bytes is taken (%v)", bits, err)
		}
	}
	if _, err := PadPSS(&rsa.PublicKey{}, digest[:20]); err == nil {
		t.Error("a digest that is none was padded")
	}
	if _, err := padPSS(512, digest[:], make([]byte, 32)); err == nil {
		t.Error("a modulus that is too short was padded for")
	}
}

// TestSecretFiles: the file of a PIN is the signer's alone, and holds one line.
func TestSecretFiles(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, "pin")
	for _, test := range []struct {
		name, content string
		mode          os.FileMode
		want          string // "" for the PIN 1234
	}{
		{"a line", "1234\n", 0o600, ""},
		{"no end of line", "1234", 0o400, ""},
		{"a line of another system", "1234\r\n", 0o440, ""},
		{"for all to read", "1234\n", 0o604, "may be read by everybody"},
		{"for its group to write", "1234\n", 0o620, "may be written by its group"},
		{"nothing", "", 0o600, "has no PIN in it"},
		{"an empty line", "\n", 0o600, "has no PIN in it"},
		{"two lines", "1234\n5678\n", 0o600, "has no PIN in it"},
		{"too long", strings.Repeat("1", maxSecret+1), 0o600, "has no PIN in it"},
		{"much too long", strings.Repeat("1", maxSecret+3), 0o600, "not the file that was meant"},
	} {
		os.Remove(path)
		if err := errors.Join(os.WriteFile(path, []byte(test.content), 0o600), os.Chmod(path, test.mode)); err != nil {
			t.Fatal(err)
		}
		got := ""
		err := NewSecret(path).Use(func(pin []byte) (bool, error) { got = string(pin); return false, nil })
		if test.want == "" && (err != nil || got != "1234") || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || got != "") {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "nothing"), ""} {
		if err := NewSecret(path).Use(func([]byte) (bool, error) { return false, nil }); err == nil {
			t.Errorf("%q is taken for a PIN's file", path)
		}
	}
}

// raw is RSA without a padding, as a device does it.
func raw(private *rsa.PrivateKey, padded []byte) []byte {
	m := new(big.Int).SetBytes(padded)
	return m.Exp(m, private.D, private.N).FillBytes(make([]byte, len(padded)))
}
