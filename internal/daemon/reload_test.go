package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

var write = testprog.Write

// A set that is written in several steps is not read by halves: it comes into force once, when it is at rest, by a
// symlink that moves as well.
func TestReloadAtRest(t *testing.T) {
	dir := testprog.Dir(t)
	ca := testca.MustCA(t, testca.Options{})
	issue := func() *testca.Issued { return testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}) }
	var issued []*testca.Issued
	for _, name := range []string{"one", "two"} {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		i := issue()
		write(t, filepath.Join(sub, "cert.pem"), i.CertPEM)
		write(t, filepath.Join(sub, "key.pem"), i.KeyPEM)
		issued = append(issued, i)
	}
	link := filepath.Join(dir, "live")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	f := Files{Credentials: filepath.Join(link, "cert.pem"), Key: filepath.Join(link, "key.pem"),
		CAs: []CAFile{{File: write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}}}
	l, err := f.load("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: l.credential, Name: l.name, Trust: l.trust})
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []error
	observe := func(err error, _ *refusal) { outcomes = append(outcomes, err) }
	r := newReloader(f, f.state(), m, noStandard(), &listMemory{marks: certbind.Marks{}},
		slog.New(slog.DiscardHandler), observe)
	serial := func() string { return m.Credential().Leaf.SerialNumber.String() }

	r.poll()
	if len(outcomes) != 0 {
		t.Error("read again though nothing changed")
	}
	if err := os.Symlink("two", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	r.poll()
	if len(outcomes) != 0 {
		t.Error("read before the files were at rest")
	}
	r.poll()
	r.poll()
	if len(outcomes) != 1 || outcomes[0] != nil || serial() != issued[1].Cert.SerialNumber.String() {
		t.Errorf("after the link moved: %v, serial %s", outcomes, serial())
	}
	// The key first, and half of it, written in place.
	next := issue()
	key := filepath.Join(dir, "two", "key.pem")
	for _, n := range []int{len(next.KeyPEM) / 2, len(next.KeyPEM)} {
		if err := os.WriteFile(key, next.KeyPEM[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		r.poll()
	}
	write(t, filepath.Join(dir, "two", "cert.pem"), next.CertPEM)
	r.poll()
	if len(outcomes) != 1 {
		t.Errorf("read by halves: %v", outcomes)
	}
	r.poll()
	if len(outcomes) != 2 || outcomes[1] != nil || serial() != next.Cert.SerialNumber.String() {
		t.Errorf("at rest: %v, serial %s", outcomes, serial())
	}
	// A set that was refused is tried again as it is after a while, and a credential that was handed over stays in use.
	write(t, key, issued[0].KeyPEM)
	r.poll()
	r.poll()
	r.poll()
	if len(outcomes) != 3 || outcomes[2] == nil || serial() != next.Cert.SerialNumber.String() {
		t.Errorf("a bad key: %v, serial %s", outcomes, serial())
	}
	r.refused.files.last = r.refused.files.last.Add(-retryInterval)
	r.poll()
	if len(outcomes) != 4 || outcomes[3] == nil {
		t.Errorf("a bad key, later: %v", outcomes)
	}
	given := issue()
	if _, err := r.Reload(reloadRequest{credential: given.PEM()}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reload(reloadRequest{}); err != nil || serial() != given.Cert.SerialNumber.String() {
		t.Errorf("a credential handed over: %v, serial %s", err, serial())
	}
	if _, err := r.Reload(reloadRequest{credential: []byte("nonsense")}); err == nil || serial() != given.Cert.SerialNumber.String() {
		t.Errorf("nonsense handed over: %v, serial %s", err, serial())
	}
}

// TestRule34ReloadWipes: keys that a reload refuses, and those that it replaces, are wiped, and what was handed over
// with them.
func TestRule34ReloadWipes(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	var wiped []*certbind.Credential
	wipeCredential = func(c *certbind.Credential) {
		wiped = append(wiped, c)
		c.Wipe()
	}
	defer func() { wipeCredential = (*certbind.Credential).Wipe }()
	pem := func(leaf testca.Leaf) []byte {
		issued, err := l.ca.Issue(leaf)
		if err != nil {
			t.Fatal(err)
		}
		return issued.PEM()
	}
	cleared := func(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }
	good := testca.Leaf{Hosts: []string{"a.test"}}
	reload := func(what, want string, handed []byte, wipes int) {
		t.Helper()
		wiped = nil
		old := l.machine.Credential()
		l.reloads(what, want, reloadRequest{credential: handed})
		if len(wiped) != wipes {
			t.Errorf("%s: %d keys were wiped, want %d", what, len(wiped), wipes)
		}
		if handed != nil && cleared(handed) != (want != "") {
			t.Errorf("%s: what was handed over is there: %v", what, !cleared(handed))
		}
		gone := old.Prove(t.Context()) != nil
		if gone != (want == "") || l.machine.Credential().Prove(t.Context()) != nil {
			t.Errorf("%s: the old key is gone: %v", what, gone)
		}
	}
	reload("from the files", "", nil, 1)
	first := pem(good)
	reload("handed over", "", first, 1)
	reload("once more", "", nil, 1)
	if cleared(first) {
		t.Error("what was handed over is gone, and later reloads need it")
	}
	reload("another name", "z.test", pem(testca.Leaf{Hosts: []string{"z.test"}}), 1)
	reload("expired", "expired", pem(testca.Leaf{Hosts: []string{"a.test"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(-24 * time.Hour)}), 1)
	reload("nonsense", "PEM", []byte("nonsense"), 0)
	l.put("crl", l.ca, 1, -time.Hour)
	reload("an older list", "is older", pem(good), 1)
	l.put("crl", l.ca, 5, -time.Hour)
	reload("handed over again", "", pem(good), 1)
	if !cleared(first) {
		t.Error("what was handed over first is still there")
	}
}

// noStandard is that of a daemon without rules.
func noStandard() *standard {
	return &standard{apply: func(*policy.Policy) {}, forget: func() {}}
}
