package service

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// holds tells in which form text has any 16 bytes of the key in a row that begin at a multiple of 8, "" if in none.
func holds(text string, key []byte) string {
	lower := strings.ToLower(text)
	for i := 0; i+16 <= len(key); i += 8 {
		part := key[i : i+16]
		decimal := strings.Trim(fmt.Sprint(part), "[]") // as %v prints bytes
		for form, s := range map[string]string{"raw": string(part), "decimal": decimal,
			"Go syntax":           strings.TrimSuffix(fmt.Sprintf("%#v", part)[7:], "}"),
			"decimal with commas": strings.ReplaceAll(decimal, " ", ", "), "quoted": strings.Trim(fmt.Sprintf("%q", part), `"`)} {
			if strings.Contains(text, s) {
				return form
			}
		}
		if strings.Contains(lower, hex.EncodeToString(part)) {
			return "hex"
		}
		// Within a longer base64 text the part may begin at any of three places; its ends mix with what is beside it.
		for before := range 3 {
			for form, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				s := e.EncodeToString(append(make([]byte, before), part...))
				if strings.Contains(text, s[(before*8+5)/6:len(s)-1]) {
					return form
				}
			}
		}
	}
	return ""
}

// The test below is worth what its search is worth.
func TestKeySearchFinds(t *testing.T) {
	key := make([]byte, 64)
	rand.Read(key)
	for _, text := range []string{
		string(key), fmt.Sprintf("%x", key), fmt.Sprintf("%X", key), fmt.Sprint(key), fmt.Sprintf("%q", key), fmt.Sprintf("%#v", key[:32]),
		fmt.Sprint(key[32:]), base64.StdEncoding.EncodeToString(key),
		base64.StdEncoding.EncodeToString(append([]byte("x"), key...)), base64.URLEncoding.EncodeToString(append([]byte("xy"), key...)),
	} {
		logs := new(testprog.Log)
		slog.New(slog.NewJSONHandler(logs, nil)).Info("x", "key", fmt.Sprintf("%x", key))
		if holds("a"+text+"b", key) == "" || holds(logs.String(), key) == "" {
			t.Errorf("not found in %q", text)
		}
	}
	other := make([]byte, 64)
	rand.Read(other)
	if form := holds(fmt.Sprintf("%x %v %q", other, other, other), key); form != "" {
		t.Errorf("found, %s, where it is not", form)
	}
}

// No key is in the log at any level, nor in an error that a caller gets: not the certificate's, no static key, no key data.
// Handshakes that succeed, that are refused at either end and that break off all run.
func TestNoKeyBytesInLogs(t *testing.T) {
	logs := new(testprog.Log)
	logger := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug - 4, AddSource: true}))
	secrets := map[string][]byte{}
	machine := func(name string, keyType string) *certbind.Machine {
		key, err := testca.NewKey(keyType)
		if err != nil {
			t.Fatal(err)
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			secrets["certificate key of "+name] = k.Primes[0].Bytes()
		case ed25519.PrivateKey:
			secrets["certificate key of "+name] = k.Seed()
		}
		return testmachine.New(t, name, testmachine.Options{Leaf: testca.Leaf{Key: key},
			Config: certbind.MachineConfig{Logger: logger, NewStatic: func() (pub, priv [32]byte, err error) {
				k, err := ecdh.X25519().GenerateKey(rand.Reader)
				if err != nil {
					return pub, priv, err
				}
				secrets[fmt.Sprintf("static key %d", len(secrets))] = k.Bytes()
				return [32]byte(k.PublicKey().Bytes()), [32]byte(k.Bytes()), nil
			}}})
	}
	serve := func(name, keyType, account string) *daemon {
		server, err := New(Config{Machine: machine(name, keyType), Accounts: named(account), Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		d := &daemon{Server: server}
		d.socket = d.listen(t, nil)
		return d
	}
	alpha, beta := serve("alpha.test", "rsa2048", "alice"), serve("beta.test", "ed25519", "bob")
	var errs strings.Builder

	for i := range 3 {
		c, s := join(t, open(t, alpha, ""), open(t, beta, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
		if !bytes.Equal(c.KeyData, s.KeyData) || len(c.KeyData) != 64 {
			t.Fatal("no key data")
		}
		secrets[fmt.Sprintf("key data %d", i)] = c.KeyData
		if err := alpha.cfg.Machine.RotateStatic(); err != nil {
			t.Fatal(err)
		}
	}
	// The initiator refuses: another target. The responder refuses: message 3 is damaged. Nonsense comes.
	wrong := clientStart(func(r *clientReq) { r.TargetIdentities = []*altspb.Identity{hostnameID("gamma.test")} })
	for _, start := range []func() error{
		func() error {
			c, s := open(t, alpha, ""), open(t, beta, "")
			_, err := c.do(next(s.must(t, serverStart(c.must(t, wrong).OutFrames, nil)).OutFrames))
			return err
		},
		func() error {
			c, s := open(t, alpha, ""), open(t, beta, "")
			m3 := c.must(t, next(s.must(t, serverStart(c.must(t, clientStart(nil)).OutFrames, nil)).OutFrames)).OutFrames
			m3[len(m3)-1] ^= 1
			_, err := s.do(next(m3))
			return err
		},
		func() error {
			_, err := open(t, beta, "").do(serverStart([]byte("GET / HTTP/1.1\r\n"), nil))
			return err
		},
	} {
		fmt.Fprintln(&errs, start())
	}
	for _, line := range []string{"statement signed", "peer verified", "handshake done", "handshake failed"} {
		if !strings.Contains(logs.String(), line) {
			t.Errorf("no line %q in the log:\n%s", line, logs)
		}
	}
	for _, text := range []string{logs.String(), errs.String()} {
		for what, key := range secrets {
			if form := holds(text, key); form != "" {
				t.Errorf("%s is there, %s", what, form)
			}
		}
	}
}
