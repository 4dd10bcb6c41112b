package certbind

import (
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// offer returns the trust with lists, each of a file of its place in them, where inForce is in force.
func offer(t *Trust, inForce *Trust, lists ...[]byte) (*Trust, []PassedOver) {
	return t.WithOffered(Offer{InForce: inForce, Now: time.Now(), Files: func(yield func(CRLFile) bool) {
		for i, data := range lists {
			if !yield(CRLFile{Data: data, Source: string(rune('a' + i))}) {
				return
			}
		}
	}})
}

// TestRule56AtStart: what is over or from the future is taken at a start, so that its CA's chains fail rather than that nothing
// of it is revoked, and then stays as it is in force.
func TestRule56AtStart(t *testing.T) {
	ca, now := newCA(t, testca.Options{}), time.Now()
	base := newTrust(t, trusting(ca))
	for name, o := range map[string]testca.CRLOptions{
		"over": {NextUpdate: now.Add(-time.Minute)}, "from the future": {ThisUpdate: now.Add(time.Hour)},
	} {
		list := testca.MustCRL(t, ca, nil, o)
		first, passed := offer(base, nil, list)
		if len(first.crls) != 1 || len(passed) != 0 {
			t.Fatalf("%s: %d lists, passed over %v", name, len(first.crls), passed)
		}
		if again, passed := offer(base, first, list); !again.SameLists(first) || len(passed) != 0 {
			t.Errorf("%s, again: %d lists, passed over %v", name, len(again.crls), passed)
		}
		if first.FromFuture(now) != "" {
			t.Errorf("%s: it holds up what is no list", name)
		}
		if next, passed := offer(base, base, list); len(next.crls) != 0 || len(passed) != 1 {
			t.Errorf("%s, where another trust is in force: %d lists, passed over %v", name, len(next.crls), passed)
		}
	}
}

// TestRule56AsNew: of two lists that are as new as each other the one that is in force stays, whichever comes.
func TestRule56AsNew(t *testing.T) {
	ca := newCA(t, testca.Options{})
	base := newTrust(t, trusting(ca))
	o := testca.CRLOptions{Number: big.NewInt(3), ThisUpdate: time.Now().Add(-time.Hour)}
	one, two := testca.MustCRL(t, ca, nil, o), testca.MustCRL(t, ca, []*big.Int{big.NewInt(7)}, o)
	first, _ := offer(base, nil, one)
	for name, tc := range map[string]struct {
		lists [][]byte
		n     int
	}{"alone": {[][]byte{two}, 0}, "before": {[][]byte{two, one}, 1}, "behind": {[][]byte{one, two}, 1}, "twice": {[][]byte{one, one}, 1}} {
		next, passed := offer(base, first, tc.lists...)
		if len(next.crls) != tc.n || tc.n == 1 && !next.SameLists(first) {
			t.Errorf("%s: %d lists, others %v", name, len(next.crls), !next.SameLists(first))
		}
		if name != "twice" && (len(passed) != 1 || !strings.Contains(passed[0].Why, "same number and time")) {
			t.Errorf("%s: passed over %v", name, passed)
		}
	}
}

// TestRule56PEM: blocks are counted before they are decoded, so that a file of millions makes nothing of them.
func TestRule56PEM(t *testing.T) {
	base := newTrust(t, trusting(newCA(t, testca.Options{})))
	block := []byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n")
	data := slices.Repeat(block, 1<<16)
	used := testing.AllocsPerRun(1, func() {
		if next, passed := offer(base, nil, data); len(next.crls) != 0 || len(passed) != 1 || !strings.Contains(passed[0].Why, "65536 lists") {
			t.Errorf("%d lists, passed over %v", len(next.crls), passed)
		}
	})
	if used > 1000 {
		t.Errorf("%v allocations", used)
	}
}

// FuzzOffered: nothing that somebody who is not trusted brings is taken that no CA has signed.
func FuzzOffered(f *testing.F) {
	ca := testca.MustCA(f, testca.Options{})
	good := testca.MustCRL(f, ca, []*big.Int{big.NewInt(5)}, testca.CRLOptions{})
	trust := newTrust(f, trusting(ca))
	f.Add(good)
	f.Add(crlPEM(good))
	f.Add(slices.Concat(crlPEM(good), crlPEM(testca.MustCRL(f, ca, nil, testca.CRLOptions{}))))
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		next, passed := offer(trust, nil, data)
		if len(next.crls) > 1 && len(passed) == 0 {
			t.Fatalf("%d lists of one CA for the same certificates", len(next.crls))
		}
		for _, l := range next.crls {
			if l.list.CheckSignatureFrom(ca.Cert) != nil {
				t.Fatal("a list that the CA has not signed")
			}
		}
		again, _ := offer(trust, next, data)
		if !again.SameLists(next) {
			t.Fatalf("%d lists, and then others, %d", len(next.crls), len(again.crls))
		}
	})
}
