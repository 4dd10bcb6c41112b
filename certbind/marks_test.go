package certbind

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestMarkOrder(t *testing.T) {
	now := time.Now()
	mark := func(number int64, made time.Time) Mark {
		m := Mark{ThisUpdate: made}
		if number > 0 {
			m.Number = big.NewInt(number)
		}
		return m
	}
	for _, tc := range []struct {
		a, b Mark
		want bool
	}{
		{mark(1, now), mark(2, now), true}, {mark(2, now), mark(1, now), false}, {mark(1, now), mark(1, now), false},
		{mark(1, now.Add(time.Hour)), mark(2, now), true}, // the number counts
		{mark(0, now), mark(2, now.Add(time.Second)), true}, {mark(3, now), mark(0, now.Add(time.Second)), true},
		{mark(0, now.Add(time.Second)), mark(2, now), false}, {mark(0, now), mark(0, now), false},
	} {
		if got := tc.a.olderThan(tc.b); got != tc.want {
			t.Errorf("%v older than %v: %v", tc.a, tc.b, got)
		}
	}
	ms := make(Marks)
	for i := range MaxMarks + 10 {
		ms.Add(Mark{Key: []byte{byte(i), byte(i >> 8)}})
	}
	if len(ms) != MaxMarks {
		t.Errorf("%d marks", len(ms))
	}
}

// TestRule33Intermediates: the list of a CA that is known only by the paths of peers is remembered once such a path has
// shown its key. Then neither an older one nor one that has its name and not its signature stands in for it.
func TestRule33Intermediates(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{})
	sub := intermediate(t, root, testca.Options{})
	peer := credential(t, issue(t, sub, testca.Leaf{Hosts: []string{alpha}}))
	number := func(n int64) testca.CRLOptions { return testca.CRLOptions{Number: big.NewInt(n)} }
	trust := func(lists ...CRLFile) *Trust {
		cfg := trusting(root)
		cfg.CRLs = lists
		return newTrust(t, cfg)
	}
	judge := func(tr *Trust) error {
		_, err := tr.verifyChain(peer.Certificates, alpha, now)
		return err
	}
	first := trust(crlOf(t, sub, number(5)))
	if ms := first.Marks(now); len(ms) != 0 {
		t.Fatalf("marks before any path: %v", ms)
	}
	if err := judge(first); err != nil {
		t.Fatal(err)
	}
	marks := first.Marks(now)
	if len(marks) != 1 {
		t.Fatalf("marks after a path: %v", marks)
	}
	// Named like the intermediate, signed by somebody else, and newer.
	forger := newCA(t, testca.Options{})
	forgery := *forger
	cert := *forger.Cert
	cert.RawSubject, cert.SubjectKeyId = sub.Cert.RawSubject, sub.Cert.SubjectKeyId
	forgery.Cert = &cert
	for name, tc := range map[string]struct {
		lists []CRLFile
		want  string
	}{
		"the same":           {[]CRLFile{crlOf(t, sub, number(5))}, ""},
		"newer":              {[]CRLFile{crlOf(t, sub, number(6))}, ""},
		"older":              {[]CRLFile{crlOf(t, sub, number(4))}, "is older"},
		"older beside newer": {[]CRLFile{crlOf(t, sub, number(4)), crlOf(t, sub, number(6))}, ""},
		"gone":               {nil, "is gone"},
		"forged":             {[]CRLFile{crlOf(t, &forgery, number(9))}, "is gone"},
		"another CA's":       {[]CRLFile{crlOf(t, root, number(9))}, "is gone"},
	} {
		next := trust(tc.lists...)
		behind := next.Behind(marks)
		if tc.want == "" {
			if len(behind) != 0 || judge(next.Demanding(marks)) != nil {
				t.Errorf("%s: %v, %v", name, behind, judge(next.Demanding(marks)))
			}
			continue
		}
		err := judge(next.Demanding(marks))
		if len(behind) != 1 || !strings.Contains(behind[0].String(), tc.want) || reason.Of(err) != reason.RevocationUnknown ||
			!strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v", name, behind, err)
		}
	}
	// What an older list revokes is revoked all the same, and other CAs' chains are not touched.
	old := trust(crlOf(t, sub, number(4), peer.Leaf)).Demanding(marks)
	if err := judge(old); reason.Of(err) != reason.CertificateRevoked {
		t.Errorf("revoked by an older list: %v", err)
	}
	plain := credential(t, issue(t, root, testca.Leaf{Hosts: []string{alpha}}))
	if _, err := old.verifyChain(plain.Certificates, alpha, now); err != nil {
		t.Errorf("another CA's chain: %v", err)
	}
}
