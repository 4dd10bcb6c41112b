package daemon

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// What was handed over and refused stays refused, whatever else is read and however often, until something handed over
// comes into force, or the file that it stands for.
func TestRefusalStands(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	outcomes := 0
	l.observe = func(error, *refusal) { outcomes++ }
	certificate := func(ca *testca.CA) *testca.Issued {
		return testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	}
	stands := func(when, want string) {
		t.Helper()
		switch r := l.Refused(); {
		case want == "" && r != nil:
			t.Errorf("%s: %s stands refused: %v", when, r.what, r.err)
		case want != "" && (r == nil || !strings.Contains(r.what+": "+r.err.Error(), want)):
			t.Errorf("%s: %+v, want %q", when, r, want)
		}
	}
	// polled looks at the files as often as it takes, a long time after the last refusal, and gives how many reloads came
	// of it.
	polled := func() int {
		t.Helper()
		before := outcomes
		for _, r := range []*refusal{l.refused.handed, l.refused.files} {
			if r != nil {
				r.last = r.last.Add(-retryInterval)
			}
		}
		for range 3 {
			l.poll()
		}
		return outcomes - before
	}
	ca := append(l.ca.PEM(), l.other.PEM()...)
	foreign := testca.MustCA(t, testca.Options{})
	const handed = "the certificate handed over: "
	l.reloads("a foreign certificate", "does not lead to a CA", reloadRequest{credential: certificate(foreign).PEM()})
	stands("refused", handed)
	since := l.Refused().since
	if n := polled(); n != 0 {
		t.Errorf("%d reloads of files that did not change", n)
	}
	stands("a minute later", handed)
	l.reloads("the files", "", reloadRequest{})
	stands("after a reload of the files", handed)
	// The CA file is broken, and mended, while it stands.
	write(t, l.path("ca.pem"), []byte("no PEM"))
	if polled() != 1 || l.refused.files == nil {
		t.Error("a broken CA file was not refused")
	}
	stands("with a broken CA file", handed)
	if polled() != 1 {
		t.Error("a broken CA file was not tried again")
	}
	write(t, l.path("ca.pem"), ca)
	if polled() != 1 || l.refused.files != nil {
		t.Error("a mended CA file was not taken")
	}
	stands("with a mended CA file", handed)
	if got := l.log.String(); !strings.Contains(got, "still_refused=") {
		t.Errorf("not logged: %s", got)
	}
	l.Refuse(errors.New("no such file"))
	stands("not even read", handed+"no such file")
	if !l.Refused().since.Equal(since) {
		t.Error("it has begun anew, though nothing came into force")
	}
	good := certificate(l.ca)
	l.reloads("a good one", "", reloadRequest{credential: good.PEM()})
	stands("a good one", "")

	// A CA that comes with what is refused is taken all the same.
	write(t, l.path("ca.pem"), append(ca, foreign.PEM()...))
	l.reloads("nonsense", "PEM", reloadRequest{credential: []byte("nonsense")})
	if polled() != 1 || len(l.machine.Trust().CAs()) != 3 {
		t.Error("the new CA is not in force")
	}
	stands("nonsense", handed)
	if !l.machine.Credential().Leaf.Equal(good.Cert) {
		t.Error("what was handed over before is not in force any more")
	}
	// The daemon's own file changes, and goes before what was handed over.
	own := certificate(l.ca)
	write(t, l.path("a.pem"), own.PEM())
	if polled() != 1 || !l.machine.Credential().Leaf.Equal(own.Cert) {
		t.Error("the renewed file is not in force")
	}
	stands("its own file renewed", "")
	// So does one that is refused: it stays in force what was.
	l.reloads("handed over again", "", reloadRequest{credential: good.PEM()})
	if err := os.Remove(l.path("a.pem")); err != nil {
		t.Fatal(err)
	}
	if polled() != 1 || !l.machine.Credential().Leaf.Equal(good.Cert) {
		t.Error("without its own file what was handed over is not in force any more")
	}
	stands("without its own file", "the files: --credentials: ")
	write(t, l.path("a.pem"), own.PEM())
	if polled() != 1 {
		t.Error("its own file was not read again")
	}
	stands("with its own file", "")
}

// The key of a pair may come after its certificate, as long after as it may: the pair is taken when it is whole.
func TestKeyComesLater(t *testing.T) {
	l := newListed(t)
	first := testca.MustIssue(t, l.ca, testca.Leaf{Hosts: []string{"a.test"}})
	write(t, l.path("a.pem"), first.CertPEM)
	l.files.Key = write(t, l.path("a.key"), first.KeyPEM)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	next := testca.MustIssue(t, l.ca, testca.Leaf{Hosts: []string{"a.test"}})
	for _, f := range []struct {
		name string
		data []byte
	}{{"a.pem", next.CertPEM}, {"a.key", next.KeyPEM}} {
		if l.machine.Credential().Leaf.Equal(next.Cert) {
			t.Error("in force before the key was there")
		}
		write(t, l.path(f.name), f.data)
		for range 5 {
			l.poll()
		}
	}
	if !l.machine.Credential().Leaf.Equal(next.Cert) || l.Refused() != nil {
		t.Errorf("the pair is not in force: %v", l.Refused())
	}
}
