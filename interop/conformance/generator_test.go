package conformance

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A generator makes the inputs of the differential test. The certificates are made anew by each run, so a seed fixes
// which mutations are made, in which order, and not the bytes.
type generator struct {
	*mrand.Rand
	now      time.Time
	machines map[policy]*certbind.Machine
	policies []policy
	params   noiseproto.Params
	setup    setup
	static   [32]byte // the peer's static key
	private  [32]byte

	root   *testca.CA
	leaves []leaf
	// dnsLeaves are for which DNS may vouch and no CA does.
	dnsLeaves []leaf
	extra     []*testca.CA // certificates that may be sent besides
}

// A leaf is a certificate for the peer, with what must be sent besides.
type leaf struct {
	name string
	*testca.Issued
	chain []*testca.CA
	paths bool // several paths, or one to no trusted CA
}

// setup is the judge's first line.
type setup struct {
	Trust      []trusted `json:"trust"`
	Lists      []string  `json:"revocation_lists"`
	Complete   []string  `json:"complete_lists"`
	UnderDNS   []string  `json:"under_dns"`
	Parameters struct {
		Application []string  `json:"application_protocols"`
		Record      []string  `json:"record_protocols"`
		RPCMax      [2]uint32 `json:"rpc_max"`
		RPCMin      [2]uint32 `json:"rpc_min"`
		FrameSize   uint32    `json:"max_frame_size"`
		Transport   []string  `json:"transport_protocols"`
	} `json:"parameters"`
}

type trusted struct {
	Certificate string   `json:"certificate"`
	Names       []string `json:"names"`
}

const (
	peerName   = "alpha.example.test"
	limit      = "limited.test"
	ownPurpose = "1.3.6.1.4.1.32473.1"
)

var ownPurposeOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}

func newGenerator(t *testing.T, seed uint64) *generator {
	g := &generator{Rand: mrand.New(mrand.NewPCG(seed, 0)), now: time.Now().Truncate(time.Second),
		machines: map[policy]*certbind.Machine{},
		params: noiseproto.Params{ApplicationProtocols: []string{"grpc", "h2"},
			RecordProtocols: []string{noiseproto.RecordProtocol}, TransportProtocols: []string{"tcp", "u"},
			RPCVersions: noiseproto.RPCVersions{Max: noiseproto.Version{Major: 3, Minor: 1},
				Min: noiseproto.Version{Major: 2, Minor: 1}}}}
	p := &g.setup.Parameters
	p.Application, p.Record, p.Transport = g.params.ApplicationProtocols, g.params.RecordProtocols,
		g.params.TransportProtocols
	p.RPCMax, p.RPCMin = [2]uint32{3, 1}, [2]uint32{2, 1}
	key := must(ecdh.X25519().GenerateKey(rand.Reader))
	copy(g.private[:], key.Bytes())
	copy(g.static[:], key.PublicKey().Bytes())

	g.root = must(testca.NewCA(testca.Options{Name: "root"}))
	limited := must(testca.NewCA(testca.Options{Name: "limited"}))
	outdated := must(testca.NewCA(testca.Options{Name: "outdated"}))
	oldRoot := must(testca.NewCA(testca.Options{Name: "old", NotBefore: g.now.AddDate(-2, 0, 0),
		NotAfter: g.now.AddDate(-1, 0, 0)}))
	unknown := must(testca.NewCA(testca.Options{Name: "unknown"}))
	namesake := must(testca.NewCA(testca.Options{Name: "root"}))
	const place = "http://ca.example.test/crl"
	scoped := []scopedCA{
		{lists: []pkix.Extension{testca.ListFor("user"), testca.ListFor("CA")}}, {lists: []pkix.Extension{testca.ListFor("user")}},
		{lists: []pkix.Extension{testca.ListFor("CA")}}, {lists: []pkix.Extension{testca.ListFor("", place)}},
		{lists: []pkix.Extension{testca.ListFor("", place)}, complete: true},
		{lists: []pkix.Extension{testca.ListFor("user", place+"2", place), testca.ListFor("CA", place)}}}
	for i := range scoped {
		scoped[i].ca = must(testca.NewCA(testca.Options{Name: fmt.Sprint("scoped ", i)}))
	}
	g.makeLeaves(limited, outdated, oldRoot, unknown, namesake)
	g.makeScoped(scoped, place)
	g.makeDNSLeaves(limited)
	g.setup.UnderDNS = dnsNames

	cfg := certbind.TrustConfig{}
	trust := func(ca *testca.CA, names ...string) {
		cfg.CAs = append(cfg.CAs, certbind.CA{PEM: ca.PEM(), Names: names, Source: "test"})
		g.setup.Trust = append(g.setup.Trust, trusted{hex.EncodeToString(ca.Cert.Raw), names})
	}
	trust(g.root)
	trust(limited, limit)
	trust(outdated)
	trust(oldRoot)
	list := func(ca *testca.CA, next time.Time, revoked ...string) {
		var serials []*big.Int
		for _, l := range g.leaves {
			if slices.Contains(revoked, l.name) {
				serials = append(serials, l.Cert.SerialNumber)
			}
		}
		for _, ca := range g.extra {
			if slices.Contains(revoked, ca.Cert.Subject.CommonName) {
				serials = append(serials, ca.Cert.SerialNumber)
			}
		}
		der := must(ca.CRL(serials, testca.CRLOptions{ThisUpdate: g.now.AddDate(0, 0, -10), NextUpdate: next}))
		cfg.CRLs = append(cfg.CRLs, certbind.CRLFile{Data: der, Source: "test"})
		g.setup.Lists = append(g.setup.Lists, hex.EncodeToString(der))
	}
	list(g.root, g.now.AddDate(0, 0, 10), "revoked", "int revoked")
	list(outdated, g.now.AddDate(0, 0, -1), "outdated and revoked")
	for _, l := range scoped {
		trust(l.ca)
		for _, x := range l.lists {
			der := must(l.ca.CRL(nil, testca.CRLOptions{ThisUpdate: g.now.AddDate(0, 0, -10), NextUpdate: g.now.AddDate(0, 0, 10),
				Extensions: []pkix.Extension{x}}))
			cfg.CRLs = append(cfg.CRLs, certbind.CRLFile{Data: der, Source: "test", Complete: l.complete})
			into := &g.setup.Lists
			if l.complete {
				into = &g.setup.Complete
			}
			*into = append(*into, hex.EncodeToString(der))
		}
	}

	issued := must(g.root.Issue(testca.Leaf{Hosts: []string{"own.example.test"}}))
	own := must(certbind.ParseCredential(issued.PEM(), nil))
	cas := cfg.CAs
	for _, p := range []policy{{}, {Domain: true}, {StaleOK: true}, {EKU: ownPurpose}} {
		cfg.AllowDomainAccounts, cfg.CRLStaleOK, cfg.RequireEKU = p.Domain, p.StaleOK, nil
		if p.EKU != "" {
			cfg.RequireEKU = ownPurposeOID
		}
		for _, p.DNS = range []bool{true, false} {
			if cfg.CAs = cas; p.DNS {
				cfg.CAs = append(slices.Clone(cas), certbind.CA{Names: dnsNames, DANE: true, Source: "DNS"})
			}
			g.machines[p] = must(certbind.NewMachine(certbind.MachineConfig{Credential: own, Name: "own.example.test",
				Trust: must(certbind.NewTrust(cfg)), Now: func() time.Time { return g.now }}))
		}
		g.policies = append(g.policies, p)
	}
	return g
}

// A scopedCA has lists that are for some of its certificates.
type scopedCA struct {
	ca       *testca.CA
	lists    []pkix.Extension
	complete bool
}

// makeScoped makes certificates of such CAs, with and without a place, and below an intermediate of either kind.
func (g *generator) makeScoped(scoped []scopedCA, place string) {
	for i, s := range scoped {
		for n, x := range [][]pkix.Extension{nil, {testca.Places([]string{place})}, {testca.Places([]string{place + "3"})},
			{testca.Places([]string{place}, 0x81, 2, 5, 0x60)}} {
			name := fmt.Sprintf("scoped %d place %d", i, n)
			leaf := testca.Leaf{Hosts: []string{peerName}, ExtraExtensions: x}
			sub := must(s.ca.Intermediate(testca.Options{Name: name, ExtraExtensions: x}))
			g.leaves = append(g.leaves, leafOf(name, must(s.ca.Issue(leaf))), leafOf(name+" int", must(sub.Issue(leaf)), sub))
		}
	}
}

func leafOf(name string, i *testca.Issued, chain ...*testca.CA) leaf {
	return leaf{name: name, Issued: i, chain: chain}
}

// makeLeaves makes certificates with one thing wrong, and a few with two.
func (g *generator) makeLeaves(limited, outdated, oldRoot, unknown, namesake *testca.CA) {
	critical := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 2}, Critical: true,
		Value: []byte{5, 0}}}
	add := func(name string, ca *testca.CA, l testca.Leaf, chain ...*testca.CA) {
		if l.Hosts == nil {
			l.Hosts = []string{peerName, "UPPER.example.test", "*.wild.example.test", "localhost", "10.1.2.3"}
		}
		g.leaves = append(g.leaves, leaf{name: name, Issued: must(ca.Issue(l)), chain: chain})
	}
	leaves := map[string]testca.Leaf{
		"":           {},
		"p384":       {KeyType: testca.P384},
		"ed25519":    {KeyType: testca.Ed25519},
		"rsa":        {KeyType: testca.RSA2048},
		"rsa3072":    {KeyType: testca.RSA3072},
		"rsa8192":    {PublicKey: testca.HugeRSA(8192, 65537)},
		"p521":       {KeyType: testca.P521},
		"ca":         {IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign},
		"no usage":   {NoKeyUsage: true},
		"code":       {EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
		"no eku":     {NoEKU: true},
		"own eku":    {UnknownEKUs: []asn1.ObjectIdentifier{ownPurposeOID}},
		"critical":   {ExtraExtensions: critical},
		"ending":     {NotAfter: g.now},
		"beginning":  {NotBefore: g.now},
		"expired":    {NotBefore: g.now.AddDate(0, 0, -9), NotAfter: g.now.AddDate(0, 0, -1)},
		"future":     {NotBefore: g.now.AddDate(0, 0, 1)},
		"anchor":     {Key: limited.Key},
		"other name": {Hosts: []string{"a." + limit, limit}},
	}
	names := make([]string, 0, len(leaves))
	for n := range leaves {
		names = append(names, n)
	}
	slices.Sort(names) // the same seed takes the same leaf
	for _, n := range names {
		add("good "+n, g.root, leaves[n])
	}
	add("revoked", g.root, testca.Leaf{})
	add("outdated", outdated, testca.Leaf{})
	add("outdated and revoked", outdated, testca.Leaf{})
	for _, ca := range []*testca.CA{limited, unknown, namesake, oldRoot} {
		for _, n := range []string{"", "other name", "critical", "code", "own eku"} {
			add(ca.Cert.Subject.CommonName+" "+n, ca, leaves[n])
		}
	}
	for name, o := range map[string]testca.Options{
		"int":          {},
		"int revoked":  {},
		"int expired":  {NotBefore: g.now.AddDate(-2, 0, 0), NotAfter: g.now.AddDate(0, 0, -1)},
		"int future":   {NotBefore: g.now.AddDate(0, 0, 1)},
		"int no ca":    {NotCA: true},
		"int no sign":  {KeyUsage: x509.KeyUsageCRLSign},
		"int code":     {EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
		"int server":   {EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		"int any":      {EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}},
		"int permits":  {PermittedDNS: []string{"example.test", "localhost", "10.1.2.3"}},
		"int one":      {PermittedDNS: []string{peerName}},
		"int excludes": {ExcludedDNS: []string{"wild.example.test"}},
		"int path 0":   {MaxPathLen: -1},
		"int critical": {ExtraExtensions: critical},
		"int rsa":      {KeyType: testca.RSA4096},
		"int p521":     {KeyType: testca.P521},
		"int ed25519":  {KeyType: testca.Ed25519},
	} {
		o.Name = name
		g.extra = append(g.extra, must(g.root.Intermediate(o)))
	}
	slices.SortFunc(g.extra, func(a, b *testca.CA) int {
		return strings.Compare(a.Cert.Subject.CommonName, b.Cert.Subject.CommonName)
	})
	for _, ca := range slices.Clone(g.extra) {
		for _, n := range []string{"", "critical", "own eku", "ending"} {
			add(ca.Cert.Subject.CommonName+" "+n, ca, leaves[n], ca)
		}
		below := must(ca.Intermediate(testca.Options{Name: "below " + ca.Cert.Subject.CommonName}))
		add(below.Cert.Subject.CommonName, below, testca.Leaf{}, below, ca)
		if c := ca.Cert.Subject.CommonName; c == "int" || c == "int expired" || c == "int code" { // a second way up
			cross := must(unknown.CrossSign(ca))
			add(c+" crossed", ca, testca.Leaf{}, cross, ca)
			g.leaves[len(g.leaves)-1].paths = true
			add(c+" crossed, in the other order", ca, testca.Leaf{}, ca, cross)
			g.leaves[len(g.leaves)-1].paths = true
		}
	}
	nowhere := must(unknown.Intermediate(testca.Options{Name: "expired nowhere", NotBefore: g.now.AddDate(-2, 0, 0),
		NotAfter: g.now.AddDate(0, 0, -1)}))
	add("expired nowhere", nowhere, testca.Leaf{}, nowhere)
	g.leaves[len(g.leaves)-1].paths = true
	g.extra = append(g.extra, g.root, unknown, namesake)
}

func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// seconds is the time as the judge takes it; the clock moves in quarters of a second, which a float64 holds exactly.
func (g *generator) seconds() float64 {
	return float64(g.now.Unix()) + float64(g.now.Nanosecond())/1e9
}

var opaque8, opaque16 = testclaim.Opaque8, testclaim.Opaque16

// mutate changes bytes: flips, cuts, inserts, repeats.
func (g *generator) mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + g.IntN(2) {
		if len(b) == 0 {
			return []byte{byte(g.Uint32())}
		}
		at := g.IntN(len(b))
		if g.chance(2) {
			at = g.IntN(min(len(b), 16)) // lengths stand at the beginning
		}
		switch g.IntN(6) {
		case 0:
			b[at] ^= 1 << g.IntN(8)
		case 1:
			b[at] = pick[byte](g, 0, 1, 0x7f, 0x80, 0xff, byte(g.Uint32()))
		case 2:
			b = b[:at]
		case 3:
			b = slices.Insert(b, at, byte(g.Uint32()))
		case 4:
			b = slices.Delete(b, at, at+1)
		case 5:
			b = append(b, b[at:min(len(b), at+8)]...)
		}
	}
	return b
}

// A claim is an identity with what is needed to judge it.
type claim struct {
	identity []byte
	used     [32]byte // the static key that Noise authenticated
	policy   policy
	what     string
	parser   bool // as in question
	paths    bool
}

// mostlyGood returns a claim that is accepted half of the time.
func (g *generator) mostlyGood() *claim {
	if g.chance(2) {
		return g.claim()
	}
	l := g.leaves[0]
	return g.finish(g.begin(l))
}

// A draft is a claim before it is signed.
type draft struct {
	claim
	fields       [][]byte // of the statement
	certificates [][]byte
	key          crypto.Signer
}

func (g *generator) begin(l leaf) *draft {
	c := testclaim.New(l.Issued, l.chain...)
	c.StaticKey = g.static
	c.NotBefore, c.NotAfter = g.now.Truncate(time.Second).Add(-5*time.Minute), g.now.Truncate(time.Second).Add(time.Hour)
	if end := l.Cert.NotAfter; c.NotAfter.After(end) {
		c.NotAfter = end
	}
	if c.Machine == "" {
		c.Machine = peerName
	}
	return &draft{claim{used: g.static, what: l.name, paths: l.paths}, c.Fields(), c.Certificates, c.Key}
}

// claim returns an identity with nothing, one thing or a few things wrong.
func (g *generator) claim() *claim { return g.claimOf(g.leaves[g.IntN(len(g.leaves))]) }

func (g *generator) claimOf(l leaf) *claim {
	base := g.now.Truncate(time.Second)
	g.now = base
	if g.chance(4) {
		g.now = base.Add(pick(g, 250*time.Millisecond, -250*time.Millisecond))
		defer func() { g.now = base }()
	}
	d := g.begin(l)
	if g.chance(2) {
		d.policy = pick(g, g.policies...)
	}
	now, end := uint64(base.Unix()), uint64(l.Cert.NotAfter.Unix())
	key, hash := &d.fields[testclaim.StaticKey], &d.fields[testclaim.Leaf]
	for range g.IntN(3) {
		switch pick(g, 0, 1, 2, 2, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 9, 9, 10, 10) {
		case 0:
			d.fields[testclaim.Machine] = []byte(pick(g, peerName, "upper.example.test", "UPPER.example.test",
				"a.wild.example.test", "*.wild.example.test", "localhost", "10.1.2.3", "other.example.test", limit, "a."+limit,
				"dns."+limit, "a.dns."+limit, peerName+".", ""))
		case 1:
			d.fields[testclaim.Account] = []byte(pick(g, "bob", "Bob", "-a", "a@b", `a\b`, "@b", strings.Repeat("a", 64),
				strings.Repeat("a", 65), strings.Repeat("a", 128), strings.Repeat("a", 129), "a\x00", "é", "_", "a$", ""))
		case 2:
			d.fields[testclaim.Attributes] = g.attributes()
		case 3:
			d.fields[testclaim.Version] = pick(g, []byte{0}, []byte{2}, nil, []byte{0, 1})
		case 4:
			d.fields[testclaim.NotBefore] = testclaim.Time(pick(g, now-1, now, now+1, now-86400, now-86399, 0, 1<<63,
				253402300799, 253402300800))
		case 5:
			d.fields[testclaim.NotAfter] = testclaim.Time(pick(g, now-1, now, now+1, now-300+86400, now-300+86401, end, end+1,
				253402300800, 0))
		case 6:
			*key = pick(g, *hash, make([]byte, 32), (*key)[1:], append([]byte{0}, *key...))
		case 7:
			*hash = pick(g, g.static[:], make([]byte, 32), (*hash)[:31], append([]byte{0}, *hash...))
		case 8:
			field := pick(g, key, hash)
			*field = g.mutate(*field)
		case 9:
			extra := pick(g, g.extra...).Cert.Raw
			d.certificates = slices.Insert(d.certificates, 1+g.IntN(len(d.certificates)), extra)
		default:
			rest := d.certificates[1:]
			g.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
			if g.chance(2) && len(rest) > 0 {
				d.certificates = d.certificates[:len(d.certificates)-1]
			}
		}
	}
	return g.finish(d)
}

// finish signs, and breaks something behind the signature now and then.
func (g *generator) finish(d *draft) *claim {
	st := testclaim.Join(d.fields...)
	if g.chance(20) {
		st, d.what = g.mutate(st), d.what+", statement mutated"
	}
	signature := testclaim.Sign(d.key, st)
	if g.chance(20) {
		signature, d.what = g.mutate(signature), d.what+", signature mutated"
	}
	id := (&testclaim.Identity{Certificates: d.certificates, Statement: st, Signature: signature}).Encode()
	if g.chance(30) {
		id, d.what, d.parser = g.mutate(id), d.what+", identity mutated", true
	}
	d.identity = id
	return &d.claim
}

// attributes returns a few, in any order and form.
func (g *generator) attributes() (b []byte) {
	names := []string{"a", "groups", "socket", "uid", "x-y_1"}
	for i := range g.IntN(5) {
		name := names[i]
		if g.chance(3) {
			name = pick(g, "a", "groups", "uid", "socket", "user", "machine", "x-y_1", "A", "1", "", strings.Repeat("n", 32),
				strings.Repeat("n", 33))
		}
		switch name {
		case "uid":
			b = opaque16(opaque8(b, []byte(name)), []byte(pick(g, "0", "1000", "01", "4294967295", "4294967296", "-1", "")))
			continue
		case "socket":
			b = opaque16(opaque8(b, []byte(name)), []byte(pick(g, "blue", "a.b-7", "", "Blue", "/run/s", "a b", "a_b",
				strings.Repeat("s", 64), strings.Repeat("s", 65))))
			continue
		case "groups":
			b = opaque16(opaque8(b, []byte(name)), []byte(pick(g, "adm", "adm,wheel", "wheel,adm", "adm,adm", "", "a@b,b",
				"a%20b", "a%2Cb,b", "a%2cb", "a%2", "a%", "%", "%41", "a%61", "a%0A", "a%C3%A4", "a%C2%85", "a%FF", "a%40b", "%5C", "-a", "a b",
				"a%ED%A0%80", strings.Repeat("g", 256), strings.Repeat("g", 257))))
			continue
		}
		value := pick(g, "", "1000", "0", "00", "01", "4294967295", "4294967296", "-1", "+1", " 1", "1 ", "adm", "adm,wheel",
			"wheel,adm", "adm,adm", "adm,", ",", "Adm", "a@b,b", "a,a@b", "~", "\x7f", "\x1f", "é", strings.Repeat("v", 1000),
			strings.Repeat("v", 2048), strings.Repeat("v", 2049), "99999999999999999999")
		b = opaque16(opaque8(b, []byte(name)), []byte(value))
	}
	if g.chance(20) {
		for range 17 {
			b = opaque16(opaque8(b, []byte{byte('a' + len(b)/4%26)}), nil)
		}
	}
	if g.chance(10) {
		b = g.mutate(b)
	}
	return b
}

// certificateQuestion asks about a leaf whose content was changed before its CA signed it.
func (g *generator) certificateQuestion() *question {
	l := g.leaves[0]
	var cert struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(l.Cert.Raw, &cert); err != nil {
		panic(err)
	}
	tbs := bytes.Clone(cert.TBS.FullBytes)
	for range 1 + g.IntN(2) {
		at := 4 + g.IntN(len(tbs)-4)
		if g.chance(2) {
			tbs[at] ^= 1 << g.IntN(8)
		} else {
			tbs[at] = pick[byte](g, 0, 1, 0xff, 0x80, 0x05, 0x0c, 0x30)
		}
	}
	digest := sha256.Sum256(tbs)
	cert.TBS = asn1.RawValue{FullBytes: tbs}
	signature := must(ecdsa.SignASN1(rand.Reader, g.root.Key.(*ecdsa.PrivateKey), digest[:]))
	cert.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der := must(asn1.Marshal(cert))
	d := g.begin(l)
	d.what, d.parser, d.certificates = "certificate mutated", true, [][]byte{der}
	hash := sha256.Sum256(der)
	d.fields[testclaim.Leaf] = hash[:]
	return g.askIdentity(g.finish(d))
}

// negotiation returns an offer (message 2) or a choice (message 3).
func (g *generator) negotiation(message int) (b []byte, what string) {
	entry := func() []byte {
		return []byte(pick(g, "grpc", "grpc", "h2", "tcp", "u", "x", "", " ", "a b", "\x7f", "\xff", "GRPC",
			noiseproto.RecordProtocol, strings.Repeat("n", 64), strings.Repeat("n", 65)))
	}
	list := func(good string) []byte {
		n := 1 + g.IntN(3)
		if g.chance(20) {
			n = 17
		}
		b := []byte{byte(n)}
		for i := range n {
			e := entry()
			switch {
			case n == 17 && i < 16 || g.chance(3):
				e = []byte{byte('A' + i)}
			case g.chance(2):
				e = []byte(good)
			}
			b = opaque8(b, e)
		}
		return b
	}
	one := func(good string) []byte {
		if g.chance(4) {
			return entry()
		}
		return []byte(good)
	}
	versions := func(b []byte) []byte {
		for _, good := range []uint32{3, 0, 2, 0} {
			if g.chance(6) {
				good = pick[uint32](g, 0, 1, 2, 3, 4, 1<<32-1)
			}
			b = binary.BigEndian.AppendUint32(b, good)
		}
		return binary.BigEndian.AppendUint32(b, g.Uint32())
	}
	if message == 2 {
		b = append(b, list("grpc")...)
		b = append(b, list(noiseproto.RecordProtocol)...)
		b = versions(b)
		if g.chance(2) {
			b = append(b, 0)
		} else {
			b = append(b, list("tcp")...)
		}
		what = "offer"
	} else {
		b = opaque8(opaque8(b, one("grpc")), one(noiseproto.RecordProtocol))
		b = opaque8(versions(b), one("tcp"))
		what = "choice"
	}
	if g.chance(8) {
		return g.mutate(b), what + " mutated"
	}
	return b, what
}

// frames returns bytes that begin as a frame does, more or less.
func (g *generator) frames(toInitiator bool) []byte {
	kind := byte(1)
	if toInitiator {
		kind = 2
	}
	kind = pick(g, kind, kind, kind, 0, 1, 2, 3, 4, 4, 5, byte(g.Uint32()))
	version := pick[byte](g, 1, 1, 1, 0, 2, byte(g.Uint32()))
	length := pick(g, 1232, 1232, 4, 1190, 1189, 1233, 24576, 24577, 70, 69, 0, 65535)
	if kind == 4 && !g.chance(4) {
		length = 4
	}
	b := binary.BigEndian.AppendUint16([]byte{'s', 'a', 'l', 't', version, kind}, uint16(length))
	body := make([]byte, min(length, 1500))
	for i := range body {
		body[i] = byte(g.Uint32())
	}
	if kind == 4 && g.chance(2) && len(body) > 1 {
		body[0], body[1] = 0, byte(g.IntN(26))
	}
	b = append(b, body...)
	if g.chance(6) {
		b[g.IntN(4)] ^= 1 << g.IntN(8)
	}
	if g.chance(6) {
		b = g.mutate(b)
	}
	if len(b) == 0 {
		b = []byte{'s'}
	}
	return b
}
