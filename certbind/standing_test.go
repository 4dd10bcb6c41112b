package certbind

import (
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// TestRule49Stands: of a path that was verified, what says no now ends it, and what is only missing does not.
func TestRule49Stands(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	root, other := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	again := newCA(t, testca.Options{Name: root.Cert.Subject.CommonName, Key: root.Key, NotAfter: now.Add(30 * day)})
	sub := intermediate(t, root, testca.Options{NotAfter: now.Add(20 * day)})
	leaf := issue(t, sub, testca.Leaf{Hosts: []string{alpha}, NotAfter: now.Add(10 * day)})
	with := func(cfg TrustConfig, lists ...CRLFile) *Trust {
		cfg.CRLs = lists
		return newTrust(t, cfg)
	}
	limited := func(name string) TrustConfig {
		return TrustConfig{CAs: []CA{{Names: []string{name}, PEM: root.PEM()}}}
	}
	m := newMachine(t, MachineConfig{Credential: credential(t, leaf), Name: alpha, Trust: newTrust(t, trusting(root))})
	a := attest(t, m, "alice")
	peer, err := m.Verify(a.Identity, a.Public)
	if err != nil {
		t.Fatal(err)
	}
	path := peer.VerifiedPath()
	if len(path.Certs) != 2 {
		t.Fatalf("the path has %d certificates beside the CA", len(path.Certs))
	}
	stale := testca.CRLOptions{ThisUpdate: now.Add(-2 * day), NextUpdate: now.Add(-day)}
	onlyRoot := TrustConfig{CAs: []CA{{PEM: root.PEM()}}}
	const stands = reason.Accepted
	for name, tc := range map[string]struct {
		trust *Trust
		at    time.Duration
		want  reason.Code
		until time.Time
	}{
		"as it was":                        {with(onlyRoot), 0, stands, leaf.Cert.NotAfter},
		"another CA beside":                {with(trusting(other, root)), 0, stands, leaf.Cert.NotAfter},
		"the CA renewed with its key":      {with(trusting(again)), 0, stands, leaf.Cert.NotAfter},
		"the intermediate trusted instead": {with(trusting(sub)), 0, stands, leaf.Cert.NotAfter},
		"limited, and not to others":       {with(limited("example.com")), 0, stands, leaf.Cert.NotAfter},
		"limited to others":                {with(limited("example.org")), 0, reason.UnknownCA, time.Time{}},
		"the CA gone":                      {with(trusting(other)), 0, reason.UnknownCA, time.Time{}},
		"at the leaf's end":                {with(onlyRoot), 11 * day, reason.CertificateExpired, time.Time{}},
		"at the CA's end":                  {with(trusting(again)), 31 * day, reason.CertificateExpired, time.Time{}},
		"leaf revoked":                     {with(onlyRoot, crlOf(t, sub, testca.CRLOptions{}, leaf.Cert)), 0, reason.CertificateRevoked, time.Time{}},
		"leaf revoked by a stale list":     {with(onlyRoot, crlOf(t, sub, stale, leaf.Cert)), 0, reason.CertificateRevoked, time.Time{}},
		"intermediate revoked":             {with(onlyRoot, crlOf(t, root, testca.CRLOptions{}, sub.Cert)), 0, reason.CertificateRevoked, time.Time{}},
		"the same number of another CA's":  {with(onlyRoot, crlOf(t, other, testca.CRLOptions{}, leaf.Cert)), 0, stands, leaf.Cert.NotAfter},
		"the leaf's number by the root":    {with(onlyRoot, crlOf(t, root, testca.CRLOptions{}, leaf.Cert)), 0, stands, leaf.Cert.NotAfter},
		"a list that is stale":             {with(onlyRoot, crlOf(t, sub, stale)), 0, stands, leaf.Cert.NotAfter},
	} {
		m := newMachine(t, MachineConfig{Credential: credential(t, leaf), Name: alpha, Trust: newTrust(t, onlyRoot)})
		a := attest(t, m, "alice")
		if _, err := m.Verify(a.Identity, a.Public); err != nil {
			t.Fatal(err)
		}
		if err := m.Reload(m.Credential(), tc.trust); err != nil {
			t.Fatal(err)
		}
		until, err := m.Trust().Stands(path, now.Add(tc.at))
		if got := reason.Of(err); got != tc.want || !until.Equal(tc.until) {
			t.Errorf("%s: %v until %v (%v), want %v until %v", name, got, until, err, tc.want, tc.until)
		}
		if err != nil && len(err.Error()) < 20 {
			t.Errorf("%s: an error without a text: %v", name, err)
		}
	}
}

// TestRule49ForgedList: a list in an issuer's name that another key has signed ends nothing, and one whose signer has not
// been met waits until he is.
func TestRule49ForgedList(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{})
	sub := intermediate(t, root, testca.Options{})
	forger := newCA(t, testca.Options{Name: sub.Cert.Subject.CommonName})
	leaf := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	cred := credential(t, leaf)
	met := newTrust(t, trusting(root))
	path, err := met.verifyChain(cred.Certificates, alpha, now)
	if err != nil {
		t.Fatal(err)
	}
	rest := (&Peer{Machine: alpha, Path: path.certs}).VerifiedPath()
	for _, tc := range []struct {
		name string
		by   *testca.CA
		old  *Trust
		want reason.Code
	}{
		{"signed by the issuer", sub, met, reason.CertificateRevoked},
		{"signed by another of its name", forger, met, reason.Accepted},
		{"by an issuer not met yet", sub, newTrust(t, trusting(root)), reason.Accepted},
	} {
		cfg := trusting(root)
		cfg.CRLs = []CRLFile{crlOf(t, tc.by, testca.CRLOptions{}, leaf.Cert)}
		next := newTrust(t, cfg)
		next.inherit(tc.old)
		if _, err := next.Stands(rest, now); reason.Of(err) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
		// Twice over, with no handshake between: what was met is passed on.
		after := newTrust(t, cfg)
		after.inherit(next)
		if _, err := after.Stands(rest, now); reason.Of(err) != tc.want {
			t.Errorf("%s, after one more reload: %v", tc.name, err)
		}
	}
	if n := len(met.issuers.byKey); n != 1 {
		t.Errorf("%d issuers are remembered of one path with one intermediate", n)
	}
	for i := range 2 * maxIssuers {
		c := *sub.Cert
		c.RawSubjectPublicKeyInfo = []byte{byte(i), byte(i >> 8)}
		met.issuers.add(append(path.certs[:1:1], &c, root.Cert))
	}
	if n := len(met.issuers.byKey); n != maxIssuers {
		t.Errorf("%d issuers are remembered", n)
	}
}

// TestRule49SystemPool: the system's pool cannot be asked for a key, and so ends nothing but what has ended itself.
func TestRule49SystemPool(t *testing.T) {
	trust, err := NewTrust(TrustConfig{CAs: []CA{{System: true, Names: []string{"example.com"}, Source: "system"}}})
	if err != nil {
		t.Skip("this system has no pool of CAs: ", err)
	}
	now := time.Now()
	p := Path{Machine: alpha, Certs: []PathCert{{Serial: []byte{1}, NotAfter: now.Add(time.Hour)}}}
	if until, err := trust.Stands(p, now); err != nil || !until.Equal(p.Certs[0].NotAfter) {
		t.Errorf("stands until %v: %v", until, err)
	}
	if _, err := trust.Stands(p, now.Add(2*time.Hour)); reason.Of(err) != reason.CertificateExpired {
		t.Errorf("after its end: %v", err)
	}
	p.Machine = "alpha.example.org"
	if _, err := trust.Stands(p, now); reason.Of(err) != reason.UnknownCA || !strings.Contains(err.Error(), p.Machine) {
		t.Errorf("for a machine that the pool may not vouch for: %v", err)
	}
}
