package certbind

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestRule09SchemeByKey(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	other := map[string]crypto.Signer{}
	for _, k := range []string{testca.P256, testca.P384, testca.Ed25519, testca.RSA2048, testca.RSA3072,
		testca.RSA4096} {
		i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: k})
		other[k] = i.Key
		c := newClaim(i)
		id := c.Sign()
		if _, err := trust.verify(id.Encode(), c.used, nil, c.now); err != nil {
			t.Errorf("%s: %v", k, err)
		}
		// Every bit of the input counts: a statement one bit off, signed as before.
		id.Statement[len(id.Statement)-1] ^= 1
		_, err := trust.verify(id.Encode(), c.used, nil, c.now)
		wantCode(t, err, reason.StatementInvalid)
	}
	// Signatures with the right key and another scheme.
	digest := func(statement []byte) []byte { d := sha256.Sum256(SignatureInput(statement)); return d[:] }
	for name, tc := range map[string]struct {
		keyType string
		sign    func(statement []byte, key crypto.Signer) ([]byte, error)
	}{
		"PSS with a salt of 20": {testca.RSA2048, func(st []byte, key crypto.Signer) ([]byte, error) {
			return key.Sign(rand.Reader, digest(st), &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256})
		}},
		"PSS with the longest salt": {testca.RSA2048, func(st []byte, key crypto.Signer) ([]byte, error) {
			return key.Sign(rand.Reader, digest(st), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256})
		}},
		"PKCS #1 v1.5": {testca.RSA2048, func(st []byte, key crypto.Signer) ([]byte, error) {
			return key.Sign(rand.Reader, digest(st), crypto.SHA256)
		}},
		"P-384 with SHA-256": {testca.P384, func(st []byte, key crypto.Signer) ([]byte, error) {
			return key.Sign(rand.Reader, digest(st), crypto.SHA256)
		}},
		"without context": {testca.P256, func(st []byte, key crypto.Signer) ([]byte, error) {
			d := sha256.Sum256(st)
			return key.Sign(rand.Reader, d[:], crypto.SHA256)
		}},
		"Ed25519 of the digest": {testca.Ed25519, func(st []byte, key crypto.Signer) ([]byte, error) {
			return key.Sign(rand.Reader, digest(st), crypto.Hash(0))
		}},
		"another key": {testca.P256, func(st []byte, _ crypto.Signer) ([]byte, error) { return signWith(other[testca.P256], st) }},
	} {
		i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: tc.keyType})
		c := newClaim(i)
		id := c.Sign()
		var err error
		if id.Signature, err = tc.sign(id.Statement, i.Key); err != nil {
			t.Fatal(err)
		}
		if _, err = trust.verify(id.Encode(), c.used, nil, c.now); reason.Of(err) != reason.StatementInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRule10Window(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	now := time.Now().Truncate(time.Second)
	for name, tc := range map[string]struct {
		leaf                testca.Leaf
		notBefore, notAfter time.Duration
		at                  time.Duration
		want                reason.Code
	}{
		"both ends included: first":    {testca.Leaf{}, 0, time.Hour, 0, reason.Accepted},
		"both ends included: last":     {testca.Leaf{}, -time.Hour, 0, 0, reason.Accepted},
		"expired":                      {testca.Leaf{}, -time.Hour, -time.Second, 0, reason.StatementExpired},
		"not yet":                      {testca.Leaf{}, time.Second, time.Hour, 0, reason.StatementExpired},
		"24 hours":                     {testca.Leaf{}, -time.Hour, 23 * time.Hour, 0, reason.Accepted},
		"24 hours and a second":        {testca.Leaf{}, -time.Hour, 23*time.Hour + time.Second, 0, reason.StatementExpired},
		"backwards":                    {testca.Leaf{}, time.Hour, -time.Hour, 0, reason.StatementExpired},
		"as long as the leaf":          {testca.Leaf{NotAfter: now.Add(time.Hour)}, 0, time.Hour, 0, reason.Accepted},
		"outlives the leaf":            {testca.Leaf{NotAfter: now.Add(time.Hour)}, 0, time.Hour + time.Second, 0, reason.StatementExpired},
		"leaf expired":                 {testca.Leaf{NotAfter: now.Add(-time.Second)}, -time.Hour, -time.Second, 0, reason.CertificateExpired},
		"leaf expired, statement good": {testca.Leaf{NotAfter: now.Add(-time.Second)}, -time.Hour, time.Hour, 0, reason.CertificateExpired},
		"leaf not yet valid":           {testca.Leaf{NotBefore: now.Add(time.Minute)}, 0, time.Hour, 0, reason.CertificateNotYetValid},
	} {
		t.Run(name, func(t *testing.T) {
			tc.leaf.Hosts = []string{alpha}
			i := issue(t, ca, tc.leaf)
			c := newClaim(i)
			c.NotBefore, c.NotAfter = now.Add(tc.notBefore), now.Add(tc.notAfter)
			_, err := trust.verify(c.sign(i), c.used, nil, now)
			wantCode(t, err, tc.want)
		})
	}
}

// cpu returns the processor time of the process so far.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestRule11CostlyCertificates(t *testing.T) {
	ca := newCA(t, testca.Options{})
	good := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	leafWith := func(key crypto.PublicKey) [][]byte {
		return [][]byte{issue(t, ca, testca.Leaf{Hosts: []string{alpha}, PublicKey: key}).Cert.Raw}
	}
	caWith := func(key crypto.PublicKey) [][]byte {
		return [][]byte{good.Cert.Raw, issue(t, ca, testca.Leaf{IsCA: true, PublicKey: key}).Cert.Raw}
	}
	leafType := func(k string) [][]byte {
		return [][]byte{issue(t, ca, testca.Leaf{Hosts: []string{alpha}, KeyType: k}).Cert.Raw}
	}
	sha1 := newCA(t, testca.Options{})
	dsa := strings.NewReplacer( // the OID of EC public keys becomes that of DSA, of the same length
		"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", "\x06\x07\x2a\x86\x48\xce\x38\x04\x01").Replace(string(good.Cert.Raw))
	weak := strings.NewReplacer( // ecdsa-with-SHA256 becomes ecdsa-with-SHA224, in both places
		"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
		"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x01").Replace(string(good.Cert.Raw))
	for name, tc := range map[string]struct {
		certs [][]byte
		want  reason.Code
	}{
		"leaf RSA 1024":               {leafWith(testca.HugeRSA(1024, 65537)), reason.CertificateUnacceptable},
		"leaf RSA 2047":               {leafWith(testca.HugeRSA(2047, 65537)), reason.CertificateUnacceptable},
		"leaf RSA 4097":               {leafWith(testca.HugeRSA(4097, 65537)), reason.CertificateUnacceptable},
		"leaf RSA 120000":             {leafWith(testca.HugeRSA(120000, 1<<31-1)), reason.CertificateUnacceptable},
		"leaf RSA exponent 3":         {leafWith(testca.HugeRSA(2048, 3)), reason.CertificateUnacceptable},
		"leaf RSA exponent 2^31-1":    {leafWith(testca.HugeRSA(4096, 1<<31-1)), reason.CertificateUnacceptable},
		"leaf P-224":                  {leafType(testca.P224), reason.CertificateUnacceptable},
		"leaf P-521":                  {leafType(testca.P521), reason.CertificateUnacceptable},
		"leaf DSA":                    {[][]byte{[]byte(dsa)}, reason.CertificateUnacceptable},
		"leaf signed with SHA-224":    {[][]byte{[]byte(weak)}, reason.CertificateUnacceptable},
		"leaf of random bytes":        {[][]byte{make([]byte, 500)}, reason.CertificateUnacceptable},
		"leaf and a byte":             {[][]byte{append(append([]byte(nil), good.Cert.Raw...), 0)}, reason.CertificateUnacceptable},
		"intermediate RSA 1024":       {caWith(testca.HugeRSA(1024, 65537)), reason.CertificateUnacceptable},
		"intermediate RSA 8193":       {caWith(testca.HugeRSA(8193, 65537)), reason.CertificateUnacceptable},
		"intermediate RSA 120000":     {caWith(testca.HugeRSA(120000, 1<<31-1)), reason.CertificateUnacceptable},
		"intermediate RSA exponent 3": {caWith(testca.HugeRSA(4096, 3)), reason.CertificateUnacceptable},
		"a fourth one bad":            {[][]byte{good.Cert.Raw, ca.Cert.Raw, sha1.Cert.Raw, caWith(testca.HugeRSA(16000, 65537))[1]}, reason.CertificateUnacceptable},
	} {
		t.Run(name, func(t *testing.T) {
			// Whether a signature was looked at is seen by the order of the checks: the static key, of step 3, is
			// wrong too, and must not be what is refused; no signature is verified before step 6.
			c := newClaim(good)
			c.Certificates = tc.certs
			c.Leaf = sha256.Sum256(tc.certs[0])
			c.used[31] ^= 1
			id := c.sign(good)
			trust := newTrust(t, trusting(ca))
			before := cpu(t)
			_, err := trust.verify(id, c.used, nil, c.now)
			if used := cpu(t) - before; used > time.Second {
				t.Errorf("the refusal took %v of processor", used)
			}
			wantCode(t, err, tc.want)
		})
	}
	t.Run("largest that is allowed", func(t *testing.T) {
		// Keys at the bounds: a leaf of 4096 bits below an intermediate and a root of 8192.
		root := newCA(t, testca.Options{KeyType: testca.RSA8192})
		sub := intermediate(t, root, testca.Options{KeyType: testca.RSA8192, Name: "sub"})
		i := issue(t, sub, testca.Leaf{Hosts: []string{alpha}, KeyType: testca.RSA4096})
		c := newClaim(i, sub)
		before := cpu(t)
		_, err := newTrust(t, trusting(root)).verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, reason.Accepted)
		used := cpu(t) - before
		if used > 2*time.Second {
			t.Errorf("the verification took %v of processor", used)
		}
		t.Logf("%v of processor", used)
	})
	t.Run("as many signatures as the bounds allow", func(t *testing.T) {
		// All issuers have the trusted CA's name, so that each is tried for each certificate, with the largest keys.
		name := ca.Cert.Subject.CommonName
		stranger := newCA(t, testca.Options{Name: name, KeyType: testca.RSA8192})
		i := issue(t, stranger, testca.Leaf{Hosts: []string{alpha}})
		c := newClaim(i)
		for _, bits := range []int{8192, 8191, 8190} {
			key := testca.HugeRSA(bits, 65537)
			sub := issue(t, stranger, testca.Leaf{IsCA: true, Subject: pkix.Name{CommonName: name}, PublicKey: key,
				KeyUsage: x509.KeyUsageCertSign})
			c.Certificates = append(c.Certificates, sub.Cert.Raw)
		}
		before := cpu(t)
		_, err := newTrust(t, trusting(ca)).verify(c.sign(i), c.used, nil, c.now)
		used := cpu(t) - before
		wantCode(t, err, reason.UnknownCA)
		if used > time.Second {
			t.Errorf("the refusal took %v of processor", used)
		}
		t.Logf("%v of processor", used)
	})
}

// Each refusal has two faults, of neighbouring steps: the earlier step's is what must be told.
func TestRule11Order(t *testing.T) {
	ca, stranger := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	i := issue(t, stranger, testca.Leaf{Hosts: []string{alpha}})
	c := newClaim(i)
	steps := []struct {
		name string
		mend func()
		want reason.Code
	}{
		{"static key", func() { c.used = c.StaticKey }, reason.StatementInvalid},
		{"leaf", func() { c.Leaf = sha256.Sum256(i.Cert.Raw) }, reason.StatementInvalid},
		{"window", func() { c.NotAfter = c.now.Add(time.Hour) }, reason.StatementExpired},
		{"machine", func() { c.Machine = alpha }, reason.MachineNameMismatch},
		{"account", func() { c.Account = "alice" }, reason.AccountUnacceptable},
		{"attributes", func() { c.Attributes = nil }, reason.AccountUnacceptable},
		{"chain", func() { trust = newTrust(t, trusting(stranger)) }, reason.UnknownCA},
		{"signature", func() { i.Key = nil }, reason.StatementInvalid},
	}
	wrong := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	c.used[0] ^= 1
	c.Leaf[0] ^= 1
	c.NotAfter = c.now.Add(-time.Second)
	c.Machine = "other.example.com"
	c.Account = "Alice"
	c.Attributes = [][2]string{{"user", "root"}}
	for _, s := range steps {
		_, err := trust.verify(c.sign(wrong), c.used, nil, c.now)
		if reason.Of(err) != s.want {
			t.Fatalf("%s: %v", s.name, err)
		}
		s.mend()
	}
	right := issue(t, stranger, testca.Leaf{Hosts: []string{alpha}})
	c.Leaf, c.Certificates = sha256.Sum256(right.Cert.Raw), [][]byte{right.Cert.Raw}
	if _, err := trust.verify(c.sign(right), c.used, nil, c.now); err != nil {
		t.Fatal(err)
	}
}

func TestRule12Leaf(t *testing.T) {
	own := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7}
	other := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 8}
	ca := newCA(t, testca.Options{})
	serverAuth, clientAuth := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	type ekus = []x509.ExtKeyUsage
	for name, tc := range map[string]struct {
		leaf    testca.Leaf
		sub     *testca.Options
		require asn1.ObjectIdentifier
		want    reason.Code
	}{
		"good":                         {want: reason.Accepted},
		"serverAuth only":              {leaf: testca.Leaf{EKUs: ekus{serverAuth}}, want: reason.Accepted},
		"clientAuth only":              {leaf: testca.Leaf{EKUs: ekus{clientAuth}}, want: reason.Accepted},
		"any":                          {leaf: testca.Leaf{EKUs: ekus{x509.ExtKeyUsageAny}}, want: reason.Accepted},
		"no extended key usage":        {leaf: testca.Leaf{NoEKU: true}, want: reason.Accepted},
		"code signing":                 {leaf: testca.Leaf{EKUs: ekus{x509.ExtKeyUsageCodeSigning}}, want: reason.CertificateUnacceptable},
		"an unknown purpose":           {leaf: testca.Leaf{UnknownEKUs: []asn1.ObjectIdentifier{other}}, want: reason.CertificateUnacceptable},
		"a CA":                         {leaf: testca.Leaf{IsCA: true}, want: reason.CertificateUnacceptable},
		"no key usage":                 {leaf: testca.Leaf{NoKeyUsage: true}, want: reason.CertificateUnacceptable},
		"key encipherment only":        {leaf: testca.Leaf{KeyUsage: x509.KeyUsageKeyEncipherment}, want: reason.CertificateUnacceptable},
		"two usages":                   {leaf: testca.Leaf{KeyUsage: x509.KeyUsageDataEncipherment | x509.KeyUsageDigitalSignature}},
		"the key of a trusted CA":      {leaf: testca.Leaf{Key: ca.Key}, want: reason.CertificateUnacceptable},
		"unknown critical extension":   {leaf: testca.Leaf{ExtraExtensions: []pkix.Extension{testca.UnknownCritical}}, want: reason.CertificateUnacceptable},
		"empty extended key usage":     {leaf: testca.Leaf{NoEKU: true, ExtraExtensions: []pkix.Extension{testca.EmptyEKU}}, want: reason.CertificateUnacceptable},
		"intermediate, empty EKU":      {sub: &testca.Options{ExtraExtensions: []pkix.Extension{testca.EmptyEKU}}, want: reason.CertificateUnacceptable},
		"required, empty above":        {leaf: testca.Leaf{NoEKU: true, UnknownEKUs: []asn1.ObjectIdentifier{own}}, sub: &testca.Options{ExtraExtensions: []pkix.Extension{testca.EmptyEKU}}, require: own, want: reason.CertificateUnacceptable},
		"required, missing":            {require: own, want: reason.CertificateUnacceptable},
		"required, there":              {leaf: testca.Leaf{EKUs: ekus{serverAuth}, UnknownEKUs: []asn1.ObjectIdentifier{own}}, require: own},
		"required, alone":              {leaf: testca.Leaf{NoEKU: true, UnknownEKUs: []asn1.ObjectIdentifier{own}}, require: own},
		"only another's purpose":       {leaf: testca.Leaf{NoEKU: true, UnknownEKUs: []asn1.ObjectIdentifier{own}}, want: reason.CertificateUnacceptable},
		"required, any":                {leaf: testca.Leaf{EKUs: ekus{x509.ExtKeyUsageAny}}, require: own, want: reason.CertificateUnacceptable},
		"required, no EKU":             {leaf: testca.Leaf{NoEKU: true}, require: own, want: reason.CertificateUnacceptable},
		"required is clientAuth":       {require: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}},
		"required but serverAuth":      {leaf: testca.Leaf{EKUs: ekus{serverAuth}}, require: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}, want: reason.CertificateUnacceptable},
		"intermediate, no EKU":         {sub: &testca.Options{}},
		"intermediate, server":         {sub: &testca.Options{EKUs: ekus{serverAuth}}},
		"intermediate, e-mail":         {sub: &testca.Options{EKUs: ekus{x509.ExtKeyUsageEmailProtection}}, want: reason.CertificateUnacceptable},
		"intermediate, required":       {leaf: testca.Leaf{EKUs: ekus{serverAuth}, UnknownEKUs: []asn1.ObjectIdentifier{own}}, sub: &testca.Options{EKUs: ekus{serverAuth}}, require: own, want: reason.CertificateUnacceptable},
		"intermediate, required any":   {leaf: testca.Leaf{EKUs: ekus{serverAuth}, UnknownEKUs: []asn1.ObjectIdentifier{own}}, sub: &testca.Options{EKUs: ekus{x509.ExtKeyUsageAny}}, require: own},
		"intermediate, required there": {leaf: testca.Leaf{EKUs: ekus{serverAuth}, UnknownEKUs: []asn1.ObjectIdentifier{own}}, sub: &testca.Options{EKUs: ekus{serverAuth}, UnknownEKUs: []asn1.ObjectIdentifier{own}}, require: own},
		"intermediate that is no CA":   {sub: &testca.Options{NotCA: true}, want: reason.UnknownCA},
		"self-signed":                  {leaf: testca.Leaf{SelfSigned: true}, want: reason.UnknownCA},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := trusting(ca)
			cfg.RequireEKU = tc.require
			issuer, sent := ca, []*testca.CA(nil)
			if tc.sub != nil {
				issuer = intermediate(t, ca, *tc.sub)
				sent = append(sent, issuer)
			}
			tc.leaf.Hosts = []string{alpha}
			i := issue(t, issuer, tc.leaf)
			c := newClaim(i, sent...)
			_, err := newTrust(t, cfg).verify(c.sign(i), c.used, nil, c.now)
			wantCode(t, err, tc.want)
		})
	}
	t.Run("path of the anchor alone", func(t *testing.T) {
		_, err := newTrust(t, trusting(ca)).checkPath([]*x509.Certificate{ca.Cert}, time.Now())
		wantCode(t, err, reason.CertificateUnacceptable)
	})
	t.Run("a CA of the system's pool with a key that is not acceptable", func(t *testing.T) {
		odd := newCA(t, testca.Options{KeyType: testca.P521})
		i := issue(t, odd, testca.Leaf{Hosts: []string{alpha}})
		_, err := newTrust(t, trusting(ca)).checkPath([]*x509.Certificate{i.Cert, odd.Cert}, time.Now())
		wantCode(t, err, reason.CertificateUnacceptable)
	})
}

func TestRule13LimitedCAs(t *testing.T) {
	ours, theirs := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	trust := newTrust(t, TrustConfig{CAs: []CA{
		{PEM: ours.PEM(), Names: []string{"example.com", "host.test"}, Source: "ours"},
		{PEM: theirs.PEM(), Source: "theirs"},
	}})
	for _, tc := range []struct {
		ca   *testca.CA
		host string
		want reason.Code
	}{
		{ours, "example.com", reason.Accepted},
		{ours, "a.example.com", reason.Accepted},
		{ours, "b.a.example.com", reason.Accepted},
		{ours, "host.test", reason.Accepted},
		{ours, "badexample.com", reason.UnknownCA},
		{ours, "example.org", reason.UnknownCA},
		{ours, "example.com.org", reason.UnknownCA},
		{ours, "com", reason.UnknownCA},
		{theirs, "example.org", reason.Accepted},
	} {
		i := issue(t, tc.ca, testca.Leaf{Hosts: []string{tc.host}})
		c := newClaim(i)
		_, err := trust.verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, tc.want)
		if tc.want == reason.UnknownCA && !strings.Contains(err.Error(), "not for machine") {
			t.Errorf("%s: the error does not tell of the limit: %v", tc.host, err)
		}
	}
	// A certificate with two names is good for the one that its CA may vouch for, and for that alone.
	i := issue(t, ours, testca.Leaf{Hosts: []string{"a.example.com", "a.example.org"}})
	for host, want := range map[string]reason.Code{"a.example.com": reason.Accepted,
		"a.example.org": reason.UnknownCA} {
		c := newClaim(i)
		c.Machine = host
		_, err := trust.verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, want)
	}
}

func TestRule13SystemPool(t *testing.T) {
	if _, err := NewTrust(TrustConfig{CAs: []CA{{System: true, Source: "system"}}}); err == nil {
		t.Fatal("the system's pool was taken without a limit")
	}
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, TrustConfig{CAs: []CA{
		{PEM: ca.PEM(), Source: "ca"}, {System: true, Names: []string{"example.com"}, Source: "system"}}})
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	c := newClaim(i)
	if _, err := trust.verify(c.sign(i), c.used, nil, c.now); err != nil {
		t.Fatal(err)
	}
}

func TestChain(t *testing.T) {
	now := time.Now()
	past, future := now.Add(-time.Minute), now.Add(time.Minute)
	root := newCA(t, testca.Options{})
	good := intermediate(t, root, testca.Options{})
	for name, tc := range map[string]struct {
		roots []*testca.CA
		sub   *testca.CA
		leaf  testca.Leaf
		send  bool
		want  reason.Code
	}{
		"intermediate":             {[]*testca.CA{root}, good, testca.Leaf{}, true, reason.Accepted},
		"intermediate not sent":    {[]*testca.CA{root}, good, testca.Leaf{}, false, reason.UnknownCA},
		"intermediate as anchor":   {[]*testca.CA{good}, good, testca.Leaf{}, false, reason.Accepted},
		"unknown":                  {[]*testca.CA{newCA(t, testca.Options{})}, good, testca.Leaf{}, true, reason.UnknownCA},
		"expired intermediate":     {[]*testca.CA{root}, intermediate(t, root, testca.Options{NotAfter: past}), testca.Leaf{}, true, reason.CertificateExpired},
		"intermediate not yet":     {[]*testca.CA{root}, intermediate(t, root, testca.Options{NotBefore: future}), testca.Leaf{}, true, reason.CertificateNotYetValid},
		"path length":              {[]*testca.CA{newCA(t, testca.Options{MaxPathLen: -1, Key: root.Key, Name: root.Cert.Subject.CommonName})}, good, testca.Leaf{}, true, reason.UnknownCA},
		"permitted name":           {[]*testca.CA{root}, intermediate(t, root, testca.Options{PermittedDNS: []string{"example.com"}}), testca.Leaf{}, true, reason.Accepted},
		"name not permitted":       {[]*testca.CA{root}, intermediate(t, root, testca.Options{PermittedDNS: []string{"example.org"}}), testca.Leaf{}, true, reason.MachineNameMismatch},
		"name excluded":            {[]*testca.CA{root}, intermediate(t, root, testca.Options{ExcludedDNS: []string{"example.com"}}), testca.Leaf{}, true, reason.MachineNameMismatch},
		"another name not allowed": {[]*testca.CA{root}, intermediate(t, root, testca.Options{PermittedDNS: []string{"example.com"}}), testca.Leaf{Hosts: []string{alpha, "x.example.org"}}, true, reason.MachineNameMismatch},
		"critical extension above": {[]*testca.CA{root}, intermediate(t, root, testca.Options{ExtraExtensions: []pkix.Extension{testca.UnknownCritical}}), testca.Leaf{}, true, reason.CertificateUnacceptable},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.leaf.Hosts == nil {
				tc.leaf.Hosts = []string{alpha}
			}
			i := issue(t, tc.sub, tc.leaf)
			c := newClaim(i)
			if tc.send {
				c = newClaim(i, tc.sub)
			}
			_, err := newTrust(t, trusting(tc.roots...)).verify(c.sign(i), c.used, nil, c.now)
			wantCode(t, err, tc.want)
		})
	}
	t.Run("expired root", func(t *testing.T) {
		old := newCA(t, testca.Options{NotBefore: now.Add(-2 * time.Hour), NotAfter: past})
		i := issue(t, old, testca.Leaf{Hosts: []string{alpha}})
		c := newClaim(i)
		_, err := newTrust(t, trusting(old)).verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, reason.CertificateExpired)
	})
	t.Run("the earliest end counts", func(t *testing.T) {
		end := now.Add(30 * time.Minute).Truncate(time.Second)
		sub := intermediate(t, root, testca.Options{NotAfter: end})
		i := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
		c := newClaim(i, sub)
		o, err := newTrust(t, trusting(root)).verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, reason.Accepted)
		if !o.peer.NotAfter.Equal(end) {
			t.Fatalf("got %v, want %v", o.peer.NotAfter, end)
		}
		if got := o.peer.String(); got != "alice@"+alpha {
			t.Fatal(got)
		}
	})
}

func TestRule14Revocation(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{Name: "root"})
	sub := intermediate(t, root, testca.Options{Name: "sub"})
	bare := intermediate(t, root, testca.Options{Name: "bare", KeyUsage: x509.KeyUsageCertSign})
	rekeyed := newCA(t, testca.Options{Name: "sub"}) // the same name, another key
	stale := testca.CRLOptions{ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(-time.Second)}
	leaf := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	bareLeaf := issue(t, bare, testca.Leaf{Hosts: []string{alpha}})
	none := testca.CRLOptions{}
	for name, tc := range map[string]struct {
		leaf    *testca.Issued
		sub     *testca.CA
		crls    []CRLFile
		staleOK bool
		want    reason.Code
	}{
		"no list":                  {leaf, sub, nil, false, reason.Accepted},
		"lists without it":         {leaf, sub, []CRLFile{crlOf(t, root, none), crlOf(t, sub, none, bareLeaf.Cert)}, false, reason.Accepted},
		"leaf revoked":             {leaf, sub, []CRLFile{crlOf(t, sub, none, leaf.Cert)}, false, reason.CertificateRevoked},
		"intermediate revoked":     {leaf, sub, []CRLFile{crlOf(t, root, none, sub.Cert)}, false, reason.CertificateRevoked},
		"serial of another issuer": {leaf, sub, []CRLFile{crlOf(t, root, none, leaf.Cert)}, false, reason.Accepted},
		"name but not key":         {leaf, sub, []CRLFile{crlOf(t, rekeyed, none, leaf.Cert)}, false, reason.Accepted},
		"second list revokes":      {leaf, sub, []CRLFile{crlOf(t, sub, none), crlOf(t, sub, none, leaf.Cert)}, false, reason.CertificateRevoked},
		"stale":                    {leaf, sub, []CRLFile{crlOf(t, sub, stale)}, false, reason.RevocationUnknown},
		"stale of the root":        {leaf, sub, []CRLFile{crlOf(t, root, stale)}, false, reason.RevocationUnknown},
		"stale, of another issuer": {leaf, sub, []CRLFile{crlOf(t, bare, testca.CRLOptions{ThisUpdate: stale.ThisUpdate, NextUpdate: stale.NextUpdate, IgnoreKeyUsage: true})}, false, reason.Accepted},
		"stale and a fresh one":    {leaf, sub, []CRLFile{crlOf(t, sub, none), crlOf(t, sub, stale)}, false, reason.RevocationUnknown},
		"stale but allowed":        {leaf, sub, []CRLFile{crlOf(t, sub, stale)}, true, reason.Accepted},
		"revoked by a stale one":   {leaf, sub, []CRLFile{crlOf(t, sub, stale, leaf.Cert)}, false, reason.CertificateRevoked},
		"revoked though allowed":   {leaf, sub, []CRLFile{crlOf(t, sub, stale, leaf.Cert)}, true, reason.CertificateRevoked},
		"from the future":          {leaf, sub, []CRLFile{crlOf(t, sub, testca.CRLOptions{ThisUpdate: now.Add(time.Hour)})}, false, reason.Accepted},
		"revoked in the future":    {leaf, sub, []CRLFile{crlOf(t, sub, testca.CRLOptions{ThisUpdate: now.Add(time.Hour)}, leaf.Cert)}, false, reason.CertificateRevoked},
		"issuer without cRLSign":   {bareLeaf, bare, []CRLFile{crlOf(t, bare, testca.CRLOptions{IgnoreKeyUsage: true}, bareLeaf.Cert)}, false, reason.CertificateRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := trusting(root)
			cfg.CRLs, cfg.CRLStaleOK = tc.crls, tc.staleOK
			trust := newTrust(t, cfg)
			c := newClaim(tc.leaf, tc.sub)
			id := c.sign(tc.leaf)
			for range 2 { // the second time with what the lists remember
				_, err := trust.verify(id, c.used, nil, c.now)
				wantCode(t, err, tc.want)
			}
		})
	}
	t.Run("the list's end bounds the outcome", func(t *testing.T) {
		end := now.Add(10 * time.Minute).Truncate(time.Second)
		cfg := trusting(root)
		cfg.CRLs = []CRLFile{crlOf(t, sub, testca.CRLOptions{NextUpdate: end})}
		c := newClaim(leaf, sub)
		o, err := newTrust(t, cfg).verify(c.sign(leaf), c.used, nil, c.now)
		wantCode(t, err, reason.Accepted)
		if !o.peer.NotAfter.Equal(end) {
			t.Fatalf("got %v, want %v", o.peer.NotAfter, end)
		}
	})
	t.Run("a path around the revoked intermediate", func(t *testing.T) {
		// Two roots vouch for the same intermediate; one has revoked its certificate, and the other path stands.
		second := newCA(t, testca.Options{Name: "second"})
		cross, err := second.CrossSign(sub)
		if err != nil {
			t.Fatal(err)
		}
		cfg := trusting(root, second)
		cfg.CRLs = []CRLFile{crlOf(t, root, none, sub.Cert)}
		c := newClaim(leaf, sub, cross)
		id := c.sign(leaf)
		_, err = newTrust(t, cfg).verify(id, c.used, nil, c.now)
		wantCode(t, err, reason.Accepted)
		cfg.CRLs = append(cfg.CRLs, crlOf(t, second, stale))
		_, err = newTrust(t, cfg).verify(id, c.used, nil, c.now)
		wantCode(t, err, reason.CertificateRevoked)
	})
}

// Of several CAs that vouch, the youngest is named, whatever the order of certificates and CAs: so an older one that is
// named is needed still. One whose path breaks a rule does not vouch.
func TestYoungestCA(t *testing.T) {
	now := time.Now()
	old := newCA(t, testca.Options{Name: "old", NotBefore: now.Add(-48 * time.Hour)})
	young := newCA(t, testca.Options{Name: "young", NotBefore: now.Add(-24 * time.Hour)})
	sub := testca.MustIntermediate(t, old, testca.Options{})
	cross, err := young.CrossSign(sub)
	if err != nil {
		t.Fatal(err)
	}
	leaf := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
	revoking := trusting(old, young)
	revoking.CRLs = []CRLFile{crlOf(t, young, testca.CRLOptions{}, cross.Cert)}
	for name, tc := range map[string]struct {
		trust TrustConfig
		want  *testca.CA
	}{
		"old first": {trusting(old, young), young}, "young first": {trusting(young, old), young},
		"old alone": {trusting(old), old}, "young revoked it": {revoking, old},
	} {
		for _, chain := range [][]*testca.CA{{sub, cross}, {cross, sub}} {
			c := newClaim(leaf, chain...)
			o, err := newTrust(t, tc.trust).verify(c.sign(leaf), c.used, nil, c.now)
			wantCode(t, err, reason.Accepted)
			if !o.peer.CA.Equal(tc.want.Cert) {
				t.Errorf("%s: %s is named", name, o.peer.CA.Subject)
			}
		}
	}
}

func TestRule14RefusedLists(t *testing.T) {
	ca := newCA(t, testca.Options{Name: "the CA"})
	impostor := newCA(t, testca.Options{Name: "the CA"})
	cert := issue(t, ca, testca.Leaf{Hosts: []string{alpha}}).Cert
	ext := func(e pkix.Extension, critical bool) []pkix.Extension {
		e.Critical = critical
		return []pkix.Extension{e}
	}
	good := crlOf(t, ca, testca.CRLOptions{}, cert)
	flipped := append([]byte(nil), good.Data...)
	flipped[len(flipped)-1] ^= 1
	for name, tc := range map[string]struct {
		data []byte
		want string // part of the error; empty: accepted
	}{
		"good":                   {good.Data, ""},
		"good PEM, twice":        {append(crlPEM(good.Data), crlPEM(good.Data)...), ""},
		"another issuer":         {crlOf(t, newCA(t, testca.Options{}), testca.CRLOptions{}).Data, ""},
		"not critical":           {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.UnknownCritical, false)}).Data, ""},
		"critical":               {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.UnknownCritical, true)}).Data, "critical"},
		"delta":                  {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.DeltaIndicator, true)}).Data, "delta"},
		"delta, not critical":    {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.DeltaIndicator, false)}).Data, "delta"},
		"partial":                {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.IssuingDistributionPoint, true)}).Data, "distribution point"},
		"partial, not critical":  {crlOf(t, ca, testca.CRLOptions{Extensions: ext(testca.IssuingDistributionPoint, false)}).Data, "distribution point"},
		"indirect":               {crlOf(t, ca, testca.CRLOptions{EntryExtensions: ext(testca.CertificateIssuer, true)}, cert).Data, "entries"},
		"impostor":               {crlOf(t, impostor, testca.CRLOptions{}).Data, "not that CA's"},
		"one bit of signature":   {flipped, "not that CA's"},
		"cut":                    {good.Data[:len(good.Data)-1], "not a revocation list"},
		"a certificate":          {ca.Cert.Raw, "not a revocation list"},
		"a certificate in PEM":   {ca.PEM(), "CERTIFICATE"},
		"damaged PEM":            {append(crlPEM(good.Data), "-----BEGIN X509 CRL-----\n"...), "damaged"},
		"empty":                  {nil, "the file is empty"},
		"with a byte order mark": {append([]byte("\ufeff"), crlPEM(good.Data)...), ""},
	} {
		cfg := trusting(ca)
		cfg.CRLs = []CRLFile{{Data: tc.data, Source: "x.crl"}}
		_, err := NewTrust(cfg)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) ||
			!strings.Contains(err.Error(), "x.crl")):
			t.Errorf("%s: got the error %v", name, err)
		}
	}
	// Without nextUpdate: Go's signer always writes one, so the list is made by hand from a good one.
	if _, err := parseCRL(withoutNextUpdate(t, good.Data)); err == nil || !strings.Contains(err.Error(), "nextUpdate") {
		t.Errorf("a list without nextUpdate: %v", err)
	}
	old := []byte(strings.ReplaceAll(string(good.Data),
		// ecdsa-with-SHA256 becomes ecdsa-with-SHA1's neighbour, SHA-224
		"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x01"))
	if _, err := parseCRL(old); err == nil {
		t.Error("a list signed with SHA-224 was accepted")
	}
	// What the list remembers about keys is bounded.
	l, err := parseCRL(good.Data)
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxSignedMemo {
		l.signed[[32]byte{1, byte(n), byte(n >> 8)}] = false
	}
	if !l.signedBy(ca.Cert) || len(l.signed) > maxSignedMemo {
		t.Errorf("the memory of keys holds %d", len(l.signed))
	}
}

func TestRule19PeerName(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	for name, tc := range map[string]struct {
		sans  []string
		claim string
		want  reason.Code
	}{
		"exact":             {[]string{alpha}, alpha, reason.Accepted},
		"one of several":    {[]string{"x.example.com", alpha}, alpha, reason.Accepted},
		"SAN with capitals": {[]string{"ALPHA.Example.com"}, alpha, reason.Accepted},
		"another":           {[]string{alpha}, "beta.example.com", reason.MachineNameMismatch},
		"under it":          {[]string{"example.com"}, alpha, reason.MachineNameMismatch},
		"above it":          {[]string{alpha}, "example.com", reason.MachineNameMismatch},
		"wildcard":          {[]string{"*.example.com"}, alpha, reason.MachineNameMismatch},
		"claims a wildcard": {[]string{"*.example.com"}, "*.example.com", reason.MachineNameMismatch},
		"no SAN":            {nil, alpha, reason.MachineNameMismatch},
		"capitals":          {[]string{alpha}, "Alpha.example.com", reason.MachineNameMismatch},
		"trailing dot":      {[]string{alpha}, alpha + ".", reason.MachineNameMismatch},
		"localhost":         {[]string{"localhost"}, "localhost", reason.MachineNameMismatch},
		"under localhost":   {[]string{"a.localhost"}, "a.localhost", reason.MachineNameMismatch},
		"an address":        {[]string{"10.0.0.1"}, "10.0.0.1", reason.MachineNameMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			i := issue(t, ca, testca.Leaf{Hosts: tc.sans, Subject: pkix.Name{CommonName: alpha}})
			c := newClaim(i)
			c.Machine = tc.claim
			_, err := trust.verify(c.sign(i), c.used, nil, c.now)
			wantCode(t, err, tc.want)
		})
	}
}

// Text of the peer's is not repeated unless it has passed the check for names.
func TestErrorsHoldNoPeerText(t *testing.T) {
	ca := newCA(t, testca.Options{})
	trust := newTrust(t, trusting(ca))
	const evil = "EVIL\x1b[31m"
	i := issue(t, ca, testca.Leaf{Hosts: []string{alpha}})
	stranger := issue(t, newCA(t, testca.Options{Name: evil}), testca.Leaf{Hosts: []string{alpha}, Subject: pkix.Name{CommonName: evil}})
	for name, tc := range map[string]struct {
		i    *testca.Issued
		edit func(*claim)
	}{
		"machine":         {i, func(c *claim) { c.Machine = evil }},
		"account":         {i, func(c *claim) { c.Account = evil }},
		"attribute name":  {i, func(c *claim) { c.Attributes = [][2]string{{evil, ""}} }},
		"attribute value": {i, func(c *claim) { c.Attributes = [][2]string{{"x", evil}} }},
		"group":           {i, func(c *claim) { c.Attributes = [][2]string{{"groups", "EVIL"}} }},
		"subject":         {stranger, func(*claim) {}},
		"certificate":     {i, func(c *claim) { c.Certificates[0] = []byte(evil) }},
	} {
		c := newClaim(tc.i)
		tc.edit(c)
		_, err := trust.verify(c.sign(tc.i), c.used, nil, c.now)
		if err == nil || strings.Contains(err.Error(), "EVIL") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
