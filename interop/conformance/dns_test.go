package conformance

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/hex"
	"net"
	"slices"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// Machines under DNS, docs/spec/protocol.md, section 5.7, in the differential test.

// dnsNames are under DNS where a policy says so; one is under a CA's name.
var dnsNames = []string{"example.test", "dns." + limit}

// makeDNSLeaves makes certificates that only DNS can vouch for.
func (g *generator) makeDNSLeaves(anchor *testca.CA) {
	cn := func(names ...string) testca.Leaf {
		var l testca.Leaf
		for _, n := range names {
			l.Subject.ExtraNames = append(l.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: n})
		}
		return l
	}
	beside := cn(peerName)
	beside.IPs = []net.IP{{10, 1, 2, 3}}
	old := cn(peerName)
	old.IsCA, old.NoKeyUsage, old.NoEKU, old.KeyType = true, true, true, testca.RSA4096
	for _, l := range []struct {
		name string
		leaf testca.Leaf
	}{
		{"", testca.Leaf{}}, {"ed25519", testca.Leaf{KeyType: testca.Ed25519}}, {"p384", testca.Leaf{KeyType: testca.P384}},
		{"old", old}, {"common name", cn(peerName)}, {"common name in capitals", cn("UPPER.example.TEST")}, {"two", cn(peerName, peerName)},
		{"common name of another", cn("other.example.test")}, {"common name and address", beside}, {"common name elsewhere", cn("a." + limit)},
		{"below a CA's", testca.Leaf{Hosts: []string{"dns." + limit, "a.dns." + limit, limit}}},
		{"expired", testca.Leaf{NotBefore: g.now.AddDate(0, 0, -9), NotAfter: g.now.AddDate(0, 0, -1)}},
		{"future", testca.Leaf{NotBefore: g.now.AddDate(0, 0, 1)}}, {"anchor", testca.Leaf{Key: anchor.Key}}, {"p521", testca.Leaf{KeyType: testca.P521}},
	} {
		if l.leaf.Subject.ExtraNames == nil && l.leaf.Hosts == nil {
			l.leaf.Hosts = []string{peerName, "UPPER.example.test", "*.wild.example.test", "localhost"}
		}
		l.leaf.SelfSigned = true
		g.dnsLeaves = append(g.dnsLeaves, leafOf("self-signed "+l.name, must(new(testca.CA).Issue(l.leaf))))
	}
}

// dnsQuestion asks certbind about a machine that may be under DNS, of which DNS has said something or nothing.
func (g *generator) dnsQuestion() *question {
	l := pick(g, g.dnsLeaves...)
	if g.chance(4) {
		l = pick(g, g.leaves...)
	}
	c := g.claimOf(l)
	c.policy.DNS = !g.chance(8)
	q := g.newQuestion(c)
	m := g.machines[c.policy]
	records, known := g.records(l)
	if known {
		q.TLSA = new([]string)
		*q.TLSA = []string{}
		for _, r := range records {
			*q.TLSA = append(*q.TLSA, hex.EncodeToString(r.Marshal()))
		}
	}
	p, err := m.Verify(c.identity, c.used)
	if q.why = err; err == nil && p.Cached {
		return g.dnsQuestion() // the same identity came before, with other records
	}
	if u, ok := q.why.(*certbind.Unresolved); ok && known {
		_, q.why = m.VerifyAnswered(c.identity, c.used, &certbind.Answer{Machine: u.Claimed.Machine, Records: records, Until: g.now})
	}
	q.ours = verdictOf(q.why)
	return q
}

// records returns what DNS says of a certificate, and whether it says anything.
func (g *generator) records(l leaf) (records []certbind.TLSA, known bool) {
	if g.chance(10) {
		return nil, false
	}
	if !g.chance(4) {
		records = append(records, must(certbind.NewTLSA(l.Cert, byte(g.IntN(2)), byte(g.IntN(3)))))
	}
	for range g.IntN(3) {
		r := must(certbind.NewTLSA(pick(g, l, pick(g, g.dnsLeaves...)).Cert, byte(g.IntN(2)), byte(g.IntN(3))))
		switch g.IntN(6) {
		case 0:
			r.Usage = pick[byte](g, 0, 1, 2, 3, 255)
		case 1:
			r.Selector = pick[byte](g, 0, 1, 2)
		case 2:
			r.Matching = pick[byte](g, 0, 1, 2, 3)
		case 3:
			r.Data = bytes.Clone(r.Data[:len(r.Data)-1])
		case 4:
			r.Data = append(bytes.Clone(r.Data), 0)
		}
		records = slices.Insert(records, g.IntN(len(records)+1), r)
	}
	return records, true
}
