package daemon

import (
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// newListDir is newListed with a directory of lists alone, which has number 5 of both CAs in force.
func newListDir(t *testing.T) *listed {
	t.Helper()
	l := newListed(t)
	if err := os.Mkdir(l.path("lists"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.files.CRLs = []CRLFile{{File: l.path("lists"), Dir: true}}
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	l.put("lists/ca.crl", l.ca, 5, -time.Hour)
	l.put("lists/other.crl", l.other, 5, -time.Hour)
	l.read()
	l.inForce("at first", "ca.crl 5", "other.crl 5")
	return l
}

// read has the directories read as when they are at rest.
func (l *listed) read() {
	l.lists.seen, l.lists.tried, l.lists.next = l.files.listDirsState(l.machine.Trust()), "", time.Time{}
	l.pollLists()
}

// bring puts a list by rename.
func (l *listed) bring(name string, ca *testca.CA, o testca.CRLOptions) {
	l.t.Helper()
	write(l.t, l.path("new"), testca.MustCRL(l.t, ca, nil, o))
	if err := os.Rename(l.path("new"), l.path("lists/"+name)); err != nil {
		l.t.Fatal(err)
	}
}

// inForce compares the lists in force, each by its file and number.
func (l *listed) inForce(what string, want ...string) {
	l.t.Helper()
	got := make(map[string]bool)
	for _, c := range l.machine.Trust().CRLs() {
		var number int64
		fmt.Sscanf(c.Version, "number %d", &number)
		got[fmt.Sprintf("%s %d", filepath.Base(c.Source), number)] = true
	}
	for _, w := range want {
		if !got[w] {
			l.t.Errorf("%s: no %s in force: %v", what, w, got)
		}
	}
	if len(got) != len(want) {
		l.t.Errorf("%s: in force are %v, want %v", what, got, want)
	}
}

// TestRule56CAByCA: whatever one CA's lists are, those in force stay for it, and another CA's newer one comes.
func TestRule56CAByCA(t *testing.T) {
	now := time.Now()
	number := func(n int64, made time.Time) testca.CRLOptions {
		return testca.CRLOptions{Number: big.NewInt(n), ThisUpdate: made}
	}
	for _, tc := range []struct {
		name, want string
		fault      func(l *listed)
	}{
		{"gone", "is gone", func(l *listed) { os.Remove(l.path("lists/other.crl")) }},
		{"no list", "passed over", func(l *listed) { write(t, l.path("lists/other.crl"), []byte("0\x03xyz")) }},
		{"older", "is older", func(l *listed) { l.bring("other.crl", l.other, number(4, now)) }},
		{"as new, and made before", "is older", func(l *listed) { l.bring("other.crl", l.other, number(5, now.Add(-2*time.Hour))) }},
		{"over", "was due to be replaced", func(l *listed) {
			l.bring("other.crl", l.other, testca.CRLOptions{Number: big.NewInt(6), NextUpdate: now.Add(-time.Second)})
		}},
		{"from the future", "5 minutes from now", func(l *listed) { l.bring("other.crl", l.other, number(6, now.Add(time.Hour))) }},
		{"a delta", "delta", func(l *listed) {
			l.bring("other.crl", l.other, testca.CRLOptions{Number: big.NewInt(6), Extensions: []pkix.Extension{testca.DeltaIndicator}})
		}},
	} {
		l := newListDir(t)
		tc.fault(l)
		l.bring("ca.crl", l.ca, number(6, now))
		l.read()
		l.inForce(tc.name, "ca.crl 6", "other.crl 5")
		if r := l.Refused(); r == nil || !strings.Contains(r.err.Error(), tc.want) || !strings.Contains(r.err.Error(), "other") &&
			!strings.Contains(r.err.Error(), l.other.Cert.Subject.String()) {
			t.Errorf("%s: %+v, want %q", tc.name, r, tc.want)
		}
		// A reload brings what else there is, and says it where there is nothing.
		if _, err := l.Reload(reloadRequest{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: reload: %v", tc.name, err)
		}
		l.bring("other.crl", l.other, number(7, now))
		l.read()
		l.inForce(tc.name+", mended", "ca.crl 6", "other.crl 7")
		if r := l.Refused(); r != nil {
			t.Errorf("%s, mended: %v", tc.name, r.err)
		}
	}
}

// TestRule56First: the first list of a CA that is over or from the future is passed over, and another CA's comes.
func TestRule56First(t *testing.T) {
	now := time.Now()
	third := testca.MustCA(t, testca.Options{})
	for name, o := range map[string]testca.CRLOptions{
		"over":            {Number: big.NewInt(1), NextUpdate: now.Add(-time.Second)},
		"from the future": {Number: big.NewInt(1), ThisUpdate: now.Add(time.Hour)},
	} {
		l := newListDir(t)
		write(t, l.path("ca.pem"), append(append(l.ca.PEM(), l.other.PEM()...), third.PEM()...))
		l.reloads("with a third CA", "", reloadRequest{})
		l.bring("third.crl", third, o)
		l.bring("ca.crl", l.ca, testca.CRLOptions{Number: big.NewInt(6), ThisUpdate: now})
		l.read()
		l.inForce(name, "ca.crl 6", "other.crl 5")
		if r := l.Refused(); r != nil || len(l.Passed()) != 1 {
			t.Errorf("%s: %v, passed over: %v", name, r, l.Passed())
		}
	}
}

// TestRule56Forget: the administrator lets go of one CA's list while another's is at fault.
func TestRule56Forget(t *testing.T) {
	l := newListDir(t)
	for _, name := range []string{"lists/ca.crl", "lists/other.crl"} {
		if err := os.Remove(l.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	l.read()
	l.inForce("both gone", "ca.crl 5", "other.crl 5")
	l.reloads("one is forgotten", "", reloadRequest{forget: []string{l.other.Cert.Subject.String()}})
	l.inForce("one is forgotten", "ca.crl 5")
	if r := l.Refused(); r == nil || !strings.Contains(r.err.Error(), l.ca.Cert.Subject.String()) {
		t.Errorf("%+v", r)
	}
}

// TestRule56Renamed: a list is known by its bytes, so that renaming it changes nothing, writes nothing and says nothing.
func TestRule56Renamed(t *testing.T) {
	l := newListDir(t)
	trust, said := l.machine.Trust(), l.log.Len()
	for i := range 10 {
		from, to := "a.crl", "ca.crl"
		if i%2 == 0 {
			from, to = to, from
		}
		if err := os.Rename(l.path("lists/"+from), l.path("lists/"+to)); err != nil {
			t.Fatal(err)
		}
		l.read()
	}
	if l.machine.Trust() != trust || l.log.Len() != said || l.Refused() != nil {
		t.Errorf("in force anew: %v; log: %s", l.machine.Trust() != trust, l.log.String()[said:])
	}
}

// TestRule56Alternating: which list is missing changes all the time; the log and the metrics are told now and then.
func TestRule56Alternating(t *testing.T) {
	l := newListDir(t)
	outcomes, said := 0, l.log.Len()
	l.observe = func(error, *refusal) { outcomes++ }
	for i := range 20 {
		name := []string{"ca", "other"}[i%2]
		if err := os.Rename(l.path("lists/"+name+".crl"), l.path("lists/"+name)); err != nil {
			t.Fatal(err)
		}
		l.read()
		if l.Refused() == nil {
			t.Fatal("a list that is gone is not refused")
		}
		if err := os.Rename(l.path("lists/"+name), l.path("lists/"+name+".crl")); err != nil {
			t.Fatal(err)
		}
		if l.read(); l.Refused() != nil {
			t.Fatalf("refused after it is back: %v", l.Refused().err)
		}
	}
	if lines := strings.Count(l.log.String()[said:], "\n"); lines > 2 || outcomes > 2 {
		t.Errorf("%d lines, %d outcomes:\n%s", lines, outcomes, l.log.String()[said:])
	}
}

// TestRule56Shares: one CA's lists leave none for another's neither by their number nor by the memory of them.
func TestRule56Shares(t *testing.T) {
	l := newListDir(t)
	var names []string
	for i := range 300 {
		name := fmt.Sprintf("a%03d.crl", i)
		names = append(names, name)
		l.bring(name, l.other, testca.CRLOptions{Number: big.NewInt(9), Extensions: []pkix.Extension{
			testca.ListFor("", fmt.Sprintf("http://other.test/%d", i))}})
	}
	l.bring("ca.crl", l.ca, testca.CRLOptions{Number: big.NewInt(6)})
	l.read()
	of := make(map[string]int)
	for _, c := range l.machine.Trust().CRLs() {
		of[c.Issuer]++
	}
	if of[l.ca.Cert.Subject.String()] != 1 || of[l.other.Cert.Subject.String()] != certbind.MaxListsOfCA {
		t.Errorf("in force: %v", of)
	}
	for _, c := range l.machine.Trust().CRLs() {
		if strings.HasSuffix(c.Source, "/ca.crl") && !strings.HasPrefix(c.Version, "number 6 ") {
			t.Errorf("the other CA's list is kept out: %v", c)
		}
	}
	if len(l.Passed()) < len(names)-certbind.MaxListsOfCA-maxListFiles {
		t.Errorf("%d passed over", len(l.Passed()))
	}
}
