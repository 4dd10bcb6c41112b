package main

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A pair is machine a.test, whose files change, and machine b.test, which trusts ca2 alone: it shows which of a's
// certificates is in force.
type pair struct {
	dir      string
	ca1, ca2 *testca.CA
	a, b     *process
	old, new *testca.Issued // of ca1 and of ca2
}

func (p *pair) path(name string) string { return filepath.Join(p.dir, name) }

func newPair(t *testing.T) *pair {
	p := &pair{dir: testprog.Dir(t), ca1: newCA(t, testca.Options{}), ca2: newCA(t, testca.Options{})}
	p.old = issue(t, p.ca1, testca.Leaf{Hosts: []string{"a.test"}})
	p.new = issue(t, p.ca2, testca.Leaf{Hosts: []string{"a.test"}})
	write(t, p.path("ca.pem"), append(p.ca1.PEM(), p.ca2.PEM()...))
	write(t, p.path("ca2.pem"), p.ca2.PEM())
	write(t, p.path("b.pem"), issue(t, p.ca1, testca.Leaf{Hosts: []string{"b.test"}}).PEM())
	p.writeCredential(t, p.old)
	p.writeCRL(t, p.ca1)
	p.a = start(t, "--credentials", p.path("a.pem"), "--key", p.path("a.key"), "--ca", p.path("ca.pem"), "--crl",
		p.path("crl"))
	p.b = start(t, "--credentials", p.path("b.pem"), "--ca", p.path("ca2.pem"))
	return p
}

func (p *pair) writeCredential(t *testing.T, i *testca.Issued) {
	t.Helper()
	write(t, p.path("a.key"), i.KeyPEM)
	write(t, p.path("a.pem"), i.CertPEM)
}

func (p *pair) writeCRL(t *testing.T, ca *testca.CA, revoked ...*big.Int) {
	t.Helper()
	write(t, p.path("crl"), testca.MustCRL(t, ca, revoked, testca.CRLOptions{}))
}

// inForce says whose certificate a shows to b.
func (p *pair) inForce(t *testing.T) string {
	t.Helper()
	serverIs, clientIs, err := talk(t, p.a.socket, p.b.socket)
	switch {
	case err == nil && clientIs == me(t)+"@a.test" && serverIs == me(t)+"@b.test":
		return "new"
	case err != nil && strings.Contains(err.Error(), "unknown_ca"):
		return "old"
	}
	t.Fatalf("%q %q %v", serverIs, clientIs, err)
	return ""
}

// hangup sends SIGHUP and waits for its outcome, which the service manager is told of.
func (p *process) hangup() string {
	p.t.Helper()
	first := p.told.Count()
	p.signal(syscall.SIGHUP)
	begun := p.told.waitAfter(p.t, first, "RELOADING=1\nMONOTONIC_USEC=")
	done := p.told.waitAfter(p.t, begun, "READY=1")
	return p.told.All()[done-1]
}

func TestReloadBySignal(t *testing.T) {
	p := newPair(t)
	if got := p.inForce(t); got != "old" {
		t.Fatalf("at first the %s certificate is in force", got)
	}
	p.writeCredential(t, p.new)
	if outcome := p.a.hangup(); strings.Contains(outcome, "refused") {
		t.Fatal(outcome)
	}
	if got := p.inForce(t); got != "new" {
		t.Errorf("after SIGHUP the %s certificate is in force", got)
	}
	p.a.log.waitAfter(t, 0, fmt.Sprintf("msg=reloaded machine=a.test serial=%x", p.new.Cert.SerialNumber))
}

// Each set of files that is not good in every part is refused with its reason, and what was in force stays so. Then the
// change of the files alone, without a signal, brings a good set into force.
func TestReloadRefusals(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	leaf := func(l testca.Leaf) func() {
		if l.Hosts == nil {
			l.Hosts = []string{"a.test"}
		}
		return func() { p.writeCredential(t, issue(t, p.ca1, l)) }
	}
	put := func(name string, data []byte) func() { return func() { write(t, p.path(name), data) } }
	damaged, err := p.ca1.CRL(nil, testca.CRLOptions{NextUpdate: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)-1] ^= 1 // now its signature is wrong
	stale, err := p.ca1.CRL(nil, testca.CRLOptions{ThisUpdate: time.Now().Add(-48 * time.Hour),
		NextUpdate: time.Now().Add(-24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		do   func()
		want string
	}{
		{"key of another certificate", put("a.key", p.new.KeyPEM), "private key belongs to none"},
		{"certificate without its key", put("a.pem", p.new.CertPEM), "private key belongs to none"},
		{"half a file", put("a.pem", p.new.CertPEM[:200]), "a.pem"},
		{"empty", put("a.key", nil), "the file is empty"},
		{"gone", func() { os.Remove(p.path("a.key")) }, "no such file"},
		{"key for everybody", func() { os.Chmod(p.path("a.key"), 0o644) }, "chmod 0600"},
		{"expired", leaf(testca.Leaf{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}), "expired"},
		{"not yet valid", leaf(testca.Leaf{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(48 * time.Hour)}), "valid only from"},
		{"another name", leaf(testca.Leaf{Hosts: []string{"z.test"}}), "a.test"},
		{"no key usage", leaf(testca.Leaf{NoKeyUsage: true}), "key usage"},
		{"foreign CA", func() {
			p.writeCredential(t, issue(t, newCA(t, testca.Options{}), testca.Leaf{Hosts: []string{"a.test"}}))
		}, "CA"},
		{"CA file damaged", put("ca.pem", []byte("no PEM")), "ca.pem"},
		{"list with a wrong signature", put("crl", damaged), "crl"},
		{"list out of date", put("crl", stale), "next update"},
		{"list gone", func() { os.Remove(p.path("crl")) }, "no such file"},
	} {
		tt.do()
		if outcome := p.a.hangup(); !strings.Contains(outcome, "reload refused") || !strings.Contains(outcome, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, outcome, tt.want)
		}
		if got := p.inForce(t); got != "old" {
			t.Errorf("%s: the %s certificate is in force", tt.name, got)
		}
		if n := p.a.log.waitAfter(t, 0, tt.want); n == 0 {
			t.Errorf("%s: not logged", tt.name)
		}
		write(t, p.path("ca.pem"), append(p.ca1.PEM(), p.ca2.PEM()...))
		p.writeCRL(t, p.ca1)
		p.writeCredential(t, p.old)
		if outcome := p.a.hangup(); strings.Contains(outcome, "refused") {
			t.Fatalf("%s, mended: %s", tt.name, outcome)
		}
	}
	p.writeCredential(t, p.new)
	p.a.log.waitAfter(t, 0, fmt.Sprintf("msg=reloaded machine=a.test serial=%x", p.new.Cert.SerialNumber))
	if got := p.inForce(t); got != "new" {
		t.Errorf("after the files changed the %s certificate is in force", got)
	}
}

// An older list comes into force only if the administrator says so, and the daemon says that he did.
func TestRule33ReloadCommand(t *testing.T) {
	p := newPair(t)
	newer, err := os.ReadFile(p.path("crl"))
	if err != nil {
		t.Fatal(err)
	}
	older, err := p.ca1.CRL(nil, testca.CRLOptions{ThisUpdate: time.Now().Add(-2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	reload := func(args ...string) (int, string) {
		code, out, errs := altsd(t, append([]string{"reload", "--socket", p.a.socket}, args...)...)
		return code, out + errs
	}
	write(t, p.path("crl"), older)
	if code, out := reload(); code != 1 || !strings.Contains(out, "is older than the one that was in force") {
		t.Errorf("an older list: %d %s", code, out)
	}
	if code, out := reload("--accept-older-list", p.path("crl")); code != 0 {
		t.Errorf("accepted: %d %s", code, out)
	}
	p.a.log.waitAfter(t, 0, "let by the administrator")
	write(t, p.path("crl"), newer)
	if code, out := reload(); code != 0 {
		t.Errorf("the newer one again: %d %s", code, out)
	}
	other, err := p.ca2.CRL(nil, testca.CRLOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path("crl"), other)
	if code, out := reload(); code != 1 || !strings.Contains(out, "is gone") {
		t.Errorf("another CA's list in its place: %d %s", code, out)
	}
	if code, out := reload("--forget-list", p.ca1.Cert.Subject.String()); code != 0 {
		t.Errorf("forgotten: %d %s", code, out)
	}
}

// A revocation takes effect at the next handshake, also where it is this machine's own certificate that is revoked
// with it: otherwise an administrator's list would wait for a certificate.
func TestReloadRevocation(t *testing.T) {
	p := newPair(t)
	p.writeCRL(t, p.ca1, p.old.Cert.SerialNumber, big.NewInt(4711))
	if outcome := p.a.hangup(); strings.Contains(outcome, "refused") {
		t.Fatal(outcome)
	}
	if _, _, err := talk(t, p.a.socket, p.a.socket); err == nil || !strings.Contains(err.Error(), "certificate_revoked") {
		t.Errorf("after the revocation: %v", err)
	}
	p.a.log.waitAfter(t, 0, "revoked")
}
