package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A reload says what it changed: serial numbers and ends, CAs by name, lists by number.
func TestChanges(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	reload := func(want ...string) {
		t.Helper()
		l.log.Reset()
		changed, err := l.Reload(reloadRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(changed) != len(want) {
			t.Errorf("got %q", changed)
		}
		for i, w := range want {
			if i < len(changed) && !strings.Contains(changed[i], w) {
				t.Errorf("%q in the place of %q", changed[i], w)
			}
		}
		if text := changedText(changed); !strings.Contains(l.log.String(), fmt.Sprintf(" changed=%q", text)) &&
			!strings.Contains(l.log.String(), " changed="+text+"\n") {
			t.Errorf("%q is not in the log: %s", text, l.log.String())
		}
	}
	reload()
	old := l.machine.Credential().Leaf
	next := testca.MustIssue(t, l.ca, testca.Leaf{Hosts: []string{"a.test"}})
	write(t, l.path("a.pem"), next.PEM())
	reload(fmt.Sprintf("certificate %x until %s (was %x until ", next.Cert.SerialNumber,
		next.Cert.NotAfter.UTC().Format(time.RFC3339), old.SerialNumber))
	l.put("crl", l.ca, 6, -time.Minute)
	reload("list " + l.path("crl") + " of " + l.ca.Cert.Subject.String() + ": number 6 of ")
	third := testca.MustCA(t, testca.Options{})
	write(t, l.path("ca.pem"), append(l.ca.PEM(), third.PEM()...))
	reload("CA added: "+caName(third.Cert), "CA removed: "+caName(l.other.Cert))
	write(t, l.path("other.crl"), testca.MustCRL(t, third, nil, testca.CRLOptions{}))
	l.Reload(reloadRequest{forget: []string{l.other.Cert.Subject.String()}})
	if got := l.log.String(); !strings.Contains(got, "list added: "+l.path("other.crl")+" of "+third.Cert.Subject.String()) ||
		!strings.Contains(got, "list removed: "+l.path("other.crl")+" of "+l.other.Cert.Subject.String()) {
		t.Error(got)
	}
	pem := l.ca.PEM()
	for range maxChanges + 3 {
		pem = append(pem, testca.MustCA(t, testca.Options{}).PEM()...)
	}
	write(t, l.path("ca.pem"), append(pem, third.PEM()...))
	l.log.Reset()
	if changed, err := l.Reload(reloadRequest{}); err != nil || len(changed) != maxChanges+1 ||
		changed[maxChanges] != "and 3 more of these" {
		t.Errorf("%q %v", changed, err)
	}
}
