package main

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A slowKey is a key whose device hangs when the test says so.
type slowKey struct {
	signer.Key
	hangs atomic.Bool
}

func (k *slowKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return k.Key.Sign(ctx, digest, opts)
}

// serveSigner serves the key in a file at a socket until stop is called.
func serveSigner(t testing.TB, socket, key, certificates string) (k *slowKey, stop func()) {
	t.Helper()
	file, err := signer.OpenFile(key)
	if err != nil {
		t.Fatal(err)
	}
	k = &slowKey{Key: file}
	s, err := signer.New(signer.Config{Key: k, Certificates: certificates, Where: "a drawer", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server := &companion.Server{Protocol: signer.Protocol, InFlight: 32, Handle: s.Handle, Log: slog.New(slog.DiscardHandler)}
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
	return k, stop
}

// TestRule62Daemon: a daemon whose key is with a signer, while that is there, gone, back, hangs, and has another key. Whoever has
// a statement notices nothing, lists come into force, and what does not work says why.
func TestRule62Daemon(t *testing.T) {
	t.Parallel()
	dir, ca := testprog.Dir(t), newCA(t, testca.Options{})
	path := func(name string) string { return filepath.Join(dir, name) }
	leaf := issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	serial := func(i *testca.Issued) string { return fmt.Sprintf("%x", i.Cert.SerialNumber) }
	list := func(number int64) {
		der := testca.MustCRL(t, ca, nil, testca.CRLOptions{Number: big.NewInt(number)})
		write(t, path("next"), der)
		if err := os.Rename(path("next"), path("crl")); err != nil {
			t.Fatal(err)
		}
	}
	list(1)
	write(t, path("key.pem"), leaf.KeyPEM)
	write(t, path("a.pem"), leaf.CertPEM)
	_, stop := serveSigner(t, path("signer"), path("key.pem"), path("a.pem"))
	key := "signer:" + path("signer")
	flags := []string{"--credentials", path("a.pem"), "--key", key, "--ca", write(t, path("ca.pem"), ca.PEM()), "--crl", path("crl")}
	args := append(flags, "--metrics", "unix:"+path("metrics"), "--handshake-timeout", "5s")
	account := func(n int) string { return fmt.Sprintf("box%d+", n) }
	for n := range 5 {
		args = append(args, "--socket", fmt.Sprintf("%s,uids=%d,account=%s", path(account(n)), os.Geteuid(), account(n)))
	}
	p := start(t, args...)
	works := func(what, account string) {
		t.Helper()
		if s, c, err := talk(t, path(account), path(account), account+"@a.test"); err != nil || s != c || s != account+"@a.test" {
			t.Errorf("%s: %s talks as %q and %q: %v", what, account, s, c, err)
		}
	}
	fails := func(what, account, want string) {
		t.Helper()
		if _, _, err := talk(t, path(account), path(account), account+"@a.test"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s: %v, want %q", what, account, err, want)
		}
	}
	commands := func(what string, code int, want string) {
		t.Helper()
		for _, command := range [][]string{{"status", "--socket", p.socket}, append([]string{"check"}, flags...)} {
			if got, out, errs := altsd(t, command...); got != code || !strings.Contains(out+errs, want) {
				t.Errorf("%s: %s: exit status %d, want %d and %q in:\n%s%s", what, command[0], got, code, want, out, errs)
			}
		}
		if fails := !strings.Contains(scrape(t, path("metrics")), `shared_altsd_key_fails_since_seconds{machine="a.test"} 0`+"\n"); fails != (code != 0) {
			t.Errorf("%s: the metric says that the key fails: %v", what, fails)
		}
	}
	statements := func() string {
		_, out, _ := altsd(t, "status", "--socket", p.socket)
		return regexp.MustCompile(`\d+ statements signed`).FindString(out)
	}
	works("the signer is there", account(0))
	commands("the signer is there", 0, "in a drawer, with the signer at "+path("signer"))
	signed := statements()

	stop()
	works("no signer, a statement in hand", account(0))
	fails("no signer", account(1), "the companion shared-altsd-signer is away")
	commands("no signer", 1, "the companion shared-altsd-signer is away")
	list(2)
	p.log.waitAfter(t, 0, "msg=reloaded")
	if code, out, errs := altsd(t, "reload", "--socket", p.socket); code != 0 || !strings.Contains(out, serial(leaf)) {
		t.Errorf("a reload without a signer: %d %s %s", code, out, errs)
	}
	p.log.waitAfter(t, 0, "is taken to have the one of before")
	if n := statements(); n != signed {
		t.Errorf("lists that were read anew made signatures: %s, and %s before", n, signed)
	}
	renewed := issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}, Key: leaf.Key})
	write(t, path("a.pem"), renewed.CertPEM)
	if code, _, errs := altsd(t, "reload", "--socket", p.socket); code != 1 || !strings.Contains(errs, "does not sign") {
		t.Errorf("a certificate that nobody signs for: %d %s", code, errs)
	}
	works("no signer, a certificate refused", account(0))

	k, again := serveSigner(t, path("signer"), path("key.pem"), path("a.pem"))
	stop = again
	handed := []string{"reload", "--socket", p.socket, "--credentials", path("a.pem")}
	if code, out, errs := altsd(t, handed...); code != 0 || !strings.Contains(out, serial(renewed)) {
		t.Errorf("handed over, with the signer back: %d %s %s", code, out, errs)
	}
	works("the signer is back", account(1))
	commands("the signer is back", 0, "the signer at")

	k.hangs.Store(true)
	works("it hangs, a statement in hand", account(0))
	fails("it hangs", account(2), "has not signed yet")
	k.hangs.Store(false)
	stop() // which ends what hangs
	write(t, path("handed.pem"), leaf.PEM())
	if code, _, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", path("handed.pem")); code != 1 || !strings.Contains(errs, "hold a private key") {
		t.Errorf("a key handed over: %d %s", code, errs)
	}

	other := issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	_, stop = serveSigner(t, path("signer"), write(t, path("other.key"), other.KeyPEM), write(t, path("other.pem"), other.CertPEM))
	works("another key, a statement in hand", account(0))
	fails("another key", account(3), "none of this key")
	if code, out, _ := altsd(t, "status", "--socket", p.socket); code != 1 || !strings.Contains(out, "none of this key") {
		t.Errorf("another key: status: %d %s", code, out)
	}
	if code, _, errs := altsd(t, append([]string{"check"}, flags...)...); code != 1 || !strings.Contains(errs, "belongs to none of the 1 certificates") {
		t.Errorf("another key: check: %d %s", code, errs)
	}
	write(t, path("a.pem"), append(renewed.CertPEM, other.CertPEM...))
	if code, out, errs := altsd(t, "reload", "--socket", p.socket); code != 0 || !strings.Contains(out, serial(other)) {
		t.Errorf("the certificate of the other key: %d %s %s", code, out, errs)
	}
	works("the certificate of the other key", account(3))
	stop()
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// A daemon whose signer is not there does not start, and says why.
func TestRule62NoStart(t *testing.T) {
	flags := single(t)
	dir := testprog.Dir(t)
	for want, key := range map[string]string{
		"the companion shared-altsd-signer is away": "signer:" + filepath.Join(dir, "nothing"),
		"absolute": "signer:nothing",
	} {
		began := time.Now()
		code, _, errs := altsd(t, append([]string{"serve", "--socket", filepath.Join(dir, "socket"), "--key", key}, flags...)...)
		if code == 0 || !strings.Contains(errs, want) || !strings.Contains(errs, "key") {
			t.Errorf("%s: %d %s, after %v", key, code, errs, time.Since(began))
		}
	}
}
