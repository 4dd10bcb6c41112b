package certbind

import (
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

const (
	placeX = "http://ca.example.com/x.crl"
	placeY = "http://ca.example.com/y.crl"
)

// listFor makes options of a list with an issuing distribution point.
func listFor(only string, uris ...string) testca.CRLOptions {
	return testca.CRLOptions{Extensions: []pkix.Extension{testca.ListFor(only, uris...)}}
}

// A list answers for the certificates that it is for, and where there are lists of an issuer and none answers, the chain
// fails. What a list revokes is revoked, whomever it is for.
func TestRule14Scopes(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{})
	sub := intermediate(t, root, testca.Options{})
	at := func(p ...pkix.Extension) *Credential {
		return credential(t, issue(t, root, testca.Leaf{Hosts: []string{alpha}, ExtraExtensions: p}))
	}
	plain, below := at(), credential(t, issue(t, sub, testca.Leaf{Hosts: []string{alpha}}))
	atX, atBoth := at(testca.Places([]string{placeX})), at(testca.Places([]string{placeY, placeX}))
	someReasons := at(testca.Places([]string{placeX}, 0x81, 2, 5, 0x60))
	otherIssuer := at(testca.Places([]string{placeX}, 0xa2, 2, 0xa4, 0))
	list := func(o testca.CRLOptions) CRLFile { return crlOf(t, root, o) }
	user, ca := list(listFor("user")), list(listFor("CA"))
	x, y, userX := list(listFor("", placeX)), list(listFor("", placeY)), list(listFor("user", placeX))
	complete := func(f CRLFile) CRLFile { f.Complete = true; return f }
	ended := listFor("CA")
	ended.ThisUpdate, ended.NextUpdate = now.Add(-time.Hour), now.Add(-time.Second)
	upper := listFor("", strings.ToUpper(placeX))
	for name, tc := range map[string]struct {
		who   *Credential
		lists []CRLFile
		want  reason.Code
		text  string
	}{
		"a leaf, users only":                 {plain, []CRLFile{user}, reason.Accepted, ""},
		"a leaf, CAs only":                   {plain, []CRLFile{ca}, reason.RevocationUnknown, "is for CA certificates; give the others"},
		"a leaf, both":                       {plain, []CRLFile{ca, user}, reason.Accepted, ""},
		"an intermediate, users only":        {below, []CRLFile{user}, reason.RevocationUnknown, "certificate 2 of the chain: test.crl is for user certificates"},
		"an intermediate, CAs only":          {below, []CRLFile{ca}, reason.Accepted, ""},
		"an intermediate, both":              {below, []CRLFile{user, ca}, reason.Accepted, ""},
		"a place, none in the leaf":          {plain, []CRLFile{x}, reason.RevocationUnknown, "at " + placeX},
		"a place, none, said to be complete": {plain, []CRLFile{complete(x)}, reason.Accepted, ""},
		"the leaf's place":                   {atX, []CRLFile{x}, reason.Accepted, ""},
		"another place":                      {atX, []CRLFile{y}, reason.RevocationUnknown, "say that it is complete"},
		"both lists, one its own":            {atX, []CRLFile{y, x}, reason.Accepted, ""},
		"one of two places":                  {atBoth, []CRLFile{x}, reason.Accepted, ""},
		"one of the list's two":              {atX, []CRLFile{list(listFor("", placeX, placeY))}, reason.Accepted, ""},
		"a place in another spelling":        {atX, []CRLFile{list(upper)}, reason.RevocationUnknown, ""},
		"the leaf's place, users only":       {atX, []CRLFile{userX}, reason.Accepted, ""},
		"place beside all":                   {plain, []CRLFile{x, list(testca.CRLOptions{})}, reason.Accepted, ""},
		"complete for users only":            {below, []CRLFile{complete(userX)}, reason.RevocationUnknown, "user certificates"},
		"the leaf's place, some reasons":     {someReasons, []CRLFile{x}, reason.RevocationUnknown, ""},
		"the leaf's place, another issuer":   {otherIssuer, []CRLFile{x}, reason.RevocationUnknown, ""},
		"of others, out of date":             {plain, []CRLFile{user, list(ended)}, reason.Accepted, ""},
		"of others, revoked":                 {plain, []CRLFile{user, crlOf(t, root, listFor("CA"), plain.Leaf)}, reason.CertificateRevoked, ""},
		"at another place, revoked":          {plain, []CRLFile{crlOf(t, root, listFor("", placeX), plain.Leaf)}, reason.CertificateRevoked, ""},
		"of another issuer":                  {below, []CRLFile{crlOf(t, sub, listFor("CA")), ca}, reason.RevocationUnknown, "certificate 1"},
	} {
		cfg := trusting(root)
		cfg.CRLs = tc.lists
		trust := newTrust(t, cfg)
		_, err := trust.verifyChain(tc.who.Certificates, alpha, now)
		if got := reason.Of(err); got != tc.want || err != nil && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, tc.want, tc.text)
		}
		faults := Check(tc.who, alpha, trust, now)
		stale := len(faults) == 1 && faults[0].Setting == SettingCRLStaleOK // told in any case
		if (len(faults) == 0 || stale) != (err == nil) {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

// What cannot be honoured is refused when it is read.
func TestRule14ScopeRefused(t *testing.T) {
	for name, tc := range map[string]struct{ der, want string }{
		"empty":              {"3000", "does not parse"},
		"nothing":            {"", "does not parse"},
		"a byte after":       {"30038101ff00", "does not parse"},
		"reasons":            {"300483020560", "some reasons"},
		"indirect":           {"30038401ff", "indirect"},
		"attributes":         {"30038501ff", "attribute certificates"},
		"users and CAs":      {"30068101ff8201ff", "neither"},
		"unknown field":      {"30038601ff", "does not parse"},
		"out of order":       {"30068201ff8101ff", "does not parse"},
		"twice":              {"30068101ff8101ff", "does not parse"},
		"a universal tag":    {"30030101ff", "does not parse"},
		"a boolean of two":   {"30048102ffff", "does not parse"},
		"no name":            {"3004a002a000", "does not parse"},
		"a relative name":    {"3004a002a100", "relative"},
		"an unknown choice":  {"3002a000", "does not parse"},
		"users, said not to": {"3003810100", ""},
		"users":              {"30038101ff", ""},
	} {
		der, err := hex.DecodeString(tc.der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseScope(der); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An older list takes no newer one's place, however the CA divides its lists: within a scope by number, across scopes by
// time.
func TestRule33Scopes(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{})
	list := func(o testca.CRLOptions, number int64, age time.Duration) CRLFile {
		o.Number, o.ThisUpdate, o.NextUpdate = big.NewInt(number), now.Add(-age), now.Add(time.Hour)
		return crlOf(t, root, o)
	}
	all, user, ca := testca.CRLOptions{}, listFor("user"), listFor("CA")
	x, y := listFor("", placeX), listFor("", placeY)
	complete := func(f CRLFile) CRLFile { f.Complete = true; return f }
	trust := func(lists ...CRLFile) *Trust {
		cfg := trusting(root)
		cfg.CRLs = lists
		return newTrust(t, cfg)
	}
	const hour = time.Hour
	for name, tc := range map[string]struct {
		was, is []CRLFile
		want    []string
	}{
		"divided, numbers begin anew":       {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{list(user, 1, hour), list(ca, 1, hour)}, nil},
		"divided, one of them old":          {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{list(user, 10, hour), list(ca, 10, 4*hour)}, []string{"is older"}},
		"a place is added":                  {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{list(x, 10, hour)}, nil},
		"a place is added, complete":        {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{complete(list(x, 10, hour))}, nil},
		"a place is added, complete, older": {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{complete(list(x, 8, hour))}, []string{"is older"}},
		"a place is added, by an older one": {[]CRLFile{list(all, 9, 3*hour)}, []CRLFile{list(x, 10, 4*hour)}, []string{"is older"}},
		"divided no more":                   {[]CRLFile{list(user, 9, 3*hour), list(ca, 9, 3*hour)}, []CRLFile{list(all, 1, hour)}, nil},
		"divided no more, older":            {[]CRLFile{list(user, 9, 3*hour), list(ca, 9, 5*hour)}, []CRLFile{list(all, 99, 4*hour)}, []string{"user certificates"}},
		"each newer":                        {[]CRLFile{list(user, 9, 3*hour), list(ca, 7, 3*hour)}, []CRLFile{list(ca, 8, hour), list(user, 10, hour)}, nil},
		"one older by number":               {[]CRLFile{list(user, 9, 3*hour), list(ca, 7, 3*hour)}, []CRLFile{list(ca, 8, hour), list(user, 8, hour)}, []string{"user certificates"}},
		"one is gone":                       {[]CRLFile{list(user, 9, 3*hour), list(ca, 7, 3*hour)}, []CRLFile{list(user, 10, hour)}, []string{"CA certificates), is gone"}},
		"one place is gone":                 {[]CRLFile{list(x, 9, 3*hour), list(y, 7, 3*hour)}, []CRLFile{list(y, 10, hour)}, []string{placeX + "), is gone"}},
		"another place":                     {[]CRLFile{list(x, 9, 3*hour)}, []CRLFile{list(y, 10, hour)}, []string{"is gone"}},
	} {
		next := trust(tc.is...)
		behind := next.Behind(trust(tc.was...).Marks(now))
		if len(behind) != len(tc.want) {
			t.Errorf("%s: %v", name, behind)
			continue
		}
		for i, want := range tc.want {
			if !strings.Contains(behind[i].String(), want) {
				t.Errorf("%s: %v, want %q", name, behind[i], want)
			}
		}
	}
	// Only those certificates fail whose list is behind.
	marks := trust(list(user, 9, hour), list(ca, 9, hour)).Marks(now)
	demanding := trust(list(user, 9, hour), list(ca, 8, hour)).Demanding(marks)
	sub := intermediate(t, root, testca.Options{})
	for want, from := range map[reason.Code]*testca.CA{reason.Accepted: root, reason.RevocationUnknown: sub} {
		c := credential(t, issue(t, from, testca.Leaf{Hosts: []string{alpha}}))
		_, err := demanding.verifyChain(c.Certificates, alpha, now)
		if reason.Of(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
}
