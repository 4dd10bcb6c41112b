//go:build cgo

package pkcs11

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"os"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
	"github.com/shared-altsd/shared-altsd/internal/testdevice"
)

// newToken makes a token that this process sees as well.
func newToken(t *testing.T) *testdevice.Token {
	t.Helper()
	k := testdevice.NewToken(t)
	name, value, _ := strings.Cut(k.Env[0], "=")
	t.Setenv(name, value)
	return k
}

func tryOpen(t *testing.T, uri string, pin *device.Secret) (*device.Key, error) {
	t.Helper()
	u, err := ParseURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	return Open(t.Context(), u, pin)
}

func open(t *testing.T, uri string, pin *device.Secret) *device.Key {
	t.Helper()
	k, err := tryOpen(t, uri, pin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign has the key sign a statement.
func sign(k signer.Key) error { return testdevice.Sign(context.Background(), k) }

// TestRule63TokenKeys: keys as an administrator makes them sign as the protocol has it.
func TestRule63TokenKeys(t *testing.T) {
	token := newToken(t)
	pin := device.NewSecret(token.Write("pin", testdevice.PIN+"\n"))
	for _, test := range []struct{ label, keyType, more string }{
		{"p256", "EC:prime256v1", "--usage-sign"},
		{"p384", "EC:secp384r1", "--usage-sign"},
		{"ed25519", "EC:edwards25519", "--usage-sign"},
		{"rsa", "rsa:2048", "--usage-sign"},
		{"always", "EC:prime256v1", "--always-auth"},
	} {
		t.Run(test.label, func(t *testing.T) {
			token.Generate(test.label, test.keyType, test.more)
			k := open(t, token.URI(test.label, ""), pin)
			defer k.Close()
			for range 3 {
				if err := sign(k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("raw RSA", func(t *testing.T) {
		// SoftHSM has PSS; without it this is how the signature is made.
		raw := open2(t, token.URI("rsa", ""), pin)
		defer raw.Close()
		raw.mechanism = p11.NewMechanism(p11.CKM_RSA_X_509, nil)
		digest := sha256.Sum256([]byte("a statement"))
		s, err := raw.Sign(digest[:], nil)
		if err != nil || !device.VerifyPSS(raw.public.(*rsa.PublicKey), digest[:], s) {
			t.Errorf("%x, %v", s, err)
		}
	})
	t.Run("a certificate alone beside it", func(t *testing.T) {
		token.Generate("bare", "EC:prime256v1", "--usage-sign")
		id := testdevice.HexID("bare")
		token.Run("pkcs11-tool", "--module", token.Module, "--token-label", "machine", "--login", "--pin", testdevice.PIN, "--delete-object", "--type", "pubkey", "--id", id)
		if _, err := tryOpen(t, token.URI("bare", ""), pin); err == nil || !strings.Contains(err.Error(), "no public key or certificate") {
			t.Errorf("without a public key: %v", err)
		}
	})
}

func open2(t *testing.T, uri string, pin *device.Secret) *key {
	t.Helper()
	u, err := ParseURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	k := &key{uri: u, pin: pin}
	if err := k.open(); err != nil {
		k.Close()
		t.Fatal(err)
	}
	return k
}

// TestRefusedTokens: what is not there, or is not what was meant, is said.
func TestRefusedTokens(t *testing.T) {
	token := newToken(t)
	pin := device.NewSecret(token.Write("pin", testdevice.PIN))
	token.Generate("one", "EC:prime256v1")
	token.Generate("p521", "EC:secp521r1")
	token.Run("softhsm2-util", "--init-token", "--free", "--label", "machine", "--so-pin", "87654321", "--pin", "0000")
	token.Run("softhsm2-util", "--init-token", "--free", "--label", "other", "--so-pin", "87654321", "--pin", testdevice.PIN)
	loose := token.Path("module.so")
	for _, path := range []string{loose, token.Path("text.so")} {
		if err := os.WriteFile(path, []byte("no module"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(loose, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, uri, want string }{
		{"no such key", "pkcs11:token=other;object=two?module-path=" + token.Module, "no such private key"},
		{"no such token", "pkcs11:token=third;object=one?module-path=" + token.Module, "the token is not there (there are"},
		{"two tokens of one name", "pkcs11:token=machine;object=one?module-path=" + token.Module, "2 tokens are meant"},
		{"no module", "pkcs11:object=one?module-path=/nowhere/module.so", "/nowhere"},
		{"no module there", "pkcs11:object=one?module-path=" + token.Path("nothing.so"), "there is no module at"},
		{"a module that all may write", "pkcs11:object=one?module-path=" + loose, "may be changed by others"},
		{"a module that is none", "pkcs11:object=one?module-path=" + token.Path("text.so"), "is not one of PKCS #11"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, err := tryOpen(t, test.uri, pin)
			if err == nil {
				k.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	t.Run("no PIN", func(t *testing.T) {
		if _, err := tryOpen(t, "pkcs11:token=other;object=one?module-path="+token.Module, device.NewSecret("")); err == nil || !strings.Contains(err.Error(), "name it by --pin-file") {
			t.Error(err)
		}
	})
}

// TestRule63TokenLost: a token that was pulled out and put back costs no restart.
func TestRule63TokenLost(t *testing.T) {
	token := newToken(t)
	token.Generate("one", "EC:prime256v1", "--usage-sign")
	k := open(t, token.URI("one", ""), device.NewSecret(token.Write("pin", testdevice.PIN)))
	defer k.Close()
	if err := sign(k); err != nil {
		t.Fatal(err)
	}
	token.PullOut()
	for range 2 {
		if err := sign(k); err == nil || !strings.Contains(err.Error(), "plug it in") {
			t.Errorf("with the token pulled out: %v", err)
		}
	}
	token.PutBack()
	if err := sign(k); err != nil {
		t.Errorf("with the token put back: %v", err)
	}
	// Another key of the same name is not taken for this one.
	token.Run("pkcs11-tool", "--module", token.Module, "--token-label", "machine", "--login", "--pin", testdevice.PIN, "--delete-object", "--type", "privkey", "--label", "one")
	token.Run("pkcs11-tool", "--module", token.Module, "--token-label", "machine", "--login", "--pin", testdevice.PIN, "--delete-object", "--type", "pubkey", "--label", "one")
	token.Generate("one", "EC:prime256v1", "--usage-sign")
	if err := sign(k); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("with another key in its place: %v", err)
	}
}

// TestRule63PIN: a wrong PIN is tried once, and not again before the file changes.
func TestRule63PIN(t *testing.T) {
	token := newToken(t)
	token.Generate("one", "EC:prime256v1", "--usage-sign")
	pin := device.NewSecret(token.Write("pin", "9999"))
	for i, want := range []string{"refuses what", "has refused what", "has refused what"} {
		if _, err := tryOpen(t, token.URI("one", ""), pin); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "9999") {
			t.Errorf("opening %d: %v, want %q", i, err, want)
		}
	}
	token.Write("pin", testdevice.PIN)
	k := open(t, token.URI("one", ""), pin)
	defer k.Close()
	if err := sign(k); err != nil {
		t.Error(err)
	}
	// Tokens that say that they are near their lock are not asked at all.
	for _, test := range []struct {
		flags uint
		want  string
	}{
		{p11.CKF_USER_PIN_LOCKED | p11.CKF_USER_PIN_INITIALIZED, "is locked"},
		{p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_INITIALIZED, "the next wrong PIN would lock"},
		{0, "has no PIN yet"},
	} {
		if err := new(key).login(p11.TokenInfo{Flags: test.flags}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("flags %#x: %v, want %q", test.flags, err, test.want)
		}
	}
}
