package daemon

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A dnsAnswer is what the companion says of the only machine that it is asked about; without records it is asked for a probe alone.
type dnsAnswer struct {
	probe  resolve.Outcome
	answer resolve.Answer
	err    error
}

func (d dnsAnswer) Call(_ context.Context, req []byte) ([]byte, error) {
	if bytes.Equal(req, resolve.ProbeRequest()) {
		return (&resolve.Probe{Outcome: d.probe, Resolver: "127.0.0.1:53"}).Marshal(), d.err
	}
	if want, err := resolve.LookupRequest("a.dns.test"); err != nil || !bytes.Equal(req, want) {
		return nil, errors.New("asked for something else")
	}
	return d.answer.Marshal(), d.err
}

func TestCheckDNS(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{})
	own := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.dns.test"}, SelfSigned: true})
	record := func(i *testca.Issued) []byte {
		r, err := certbind.NewTLSA(i.Cert, certbind.SelectorSPKI, certbind.MatchingSHA256)
		if err != nil {
			t.Fatal(err)
		}
		return r.Marshal()
	}
	mine, others := record(own), record(testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.dns.test"}}))
	secure := func(records ...[]byte) resolve.Answer {
		return resolve.Answer{Outcome: resolve.Secure, TTL: time.Hour, Records: records}
	}
	credential, err := certbind.ParseCredential(own.PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	underDNS := []certbind.CA{{Names: []string{"dns.test"}, DANE: true}}
	for _, tc := range []struct {
		what    string
		cas     []certbind.CA
		dns     dnsAnswer
		says    string // in what is written
		fault   string // "" for none
		warning bool
	}{
		{"its key", underDNS, dnsAnswer{answer: secure(mine)}, "vouches for this machine", "", false},
		{"a foreign record beside it", underDNS, dnsAnswer{answer: secure([]byte{2, 0, 1, 7}, mine)}, "2 0 1 07 is passed over by all", "", false},
		{"another key beside it", underDNS, dnsAnswer{answer: secure(mine, others)}, "of another certificate or key", "1 other certificates or keys", true},
		{"another key", underDNS, dnsAnswer{answer: secure(others)}, "of another certificate or key", "none of the 1 TLSA records", false},
		{"none that can be used", underDNS, dnsAnswer{answer: secure([]byte{2, 0, 1, 7})}, "is passed over", "can vouch for a machine", false},
		{"none", underDNS, dnsAnswer{answer: resolve.Answer{Outcome: resolve.Absent}}, "", "no TLSA record at _shared-alts.a.dns.test", false},
		{"bogus", underDNS, dnsAnswer{answer: resolve.Answer{Outcome: resolve.Bogus}}, "", "is not to be believed", false},
		{"no resolver that validates", underDNS, dnsAnswer{probe: resolve.Unsigned}, "", "does not validate", true},
		{"no companion", underDNS, dnsAnswer{err: errors.New("it is away")}, "", "it is away", true},
		{"a machine under a CA, others under DNS", append([]certbind.CA{{Names: []string{"a.dns.test"}, PEM: ca.PEM()}}, underDNS...),
			dnsAnswer{}, "the resolver 127.0.0.1:53 validates", "", false},
		{"a machine under a CA, and no companion", append([]certbind.CA{{Names: []string{"a.dns.test"}, PEM: ca.PEM()}}, underDNS...),
			dnsAnswer{err: errors.New("it is away")}, "", "it is away", true},
		{"no trust by DNS", []certbind.CA{{PEM: ca.PEM()}}, dnsAnswer{err: errors.New("asked")}, "", "", false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			trust, err := certbind.NewTrust(certbind.TrustConfig{CAs: tc.cas})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			faults := checkDNS(&out, tc.dns, &loaded{credential: credential, trust: trust, name: "a.dns.test"})
			if !strings.Contains(out.String(), tc.says) {
				t.Errorf("it says %q, want %q", out.String(), tc.says)
			}
			switch {
			case len(faults) == 0 && tc.fault == "":
			case len(faults) != 1 || tc.fault == "" || !strings.Contains(faults[0].What, tc.fault) || faults[0].Warning != tc.warning || faults[0].Cure == "":
				t.Errorf("got %+v, want %q", faults, tc.fault)
			}
		})
	}
}
