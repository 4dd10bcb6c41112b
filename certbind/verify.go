package certbind

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Peer is what a verification has proved.
type Peer struct {
	// Machine and Account are valid names; Attributes are as they were signed, in ascending order.
	Machine, Account string
	Attributes       []Attribute
	// Leaf is the machine's certificate, for its other names. It is shared: not to be changed.
	Leaf *x509.Certificate
	// NotAfter is the earliest end of anything used: statement, certificates of the path, revocation lists.
	NotAfter time.Time
	// Cached is true if an earlier verification of the same identity was used again.
	Cached bool

	// CA is the trusted CA that vouched: of several, the one that began last. It is shared as well.
	CA *x509.Certificate
	// Path is the verified chain from Leaf to CA. It is shared as well.
	Path []*x509.Certificate
	// DNS is true if DNS vouched for Leaf, and for Machine alone: there is no CA, Path is Leaf, and what else Leaf says of
	// itself nobody but the machine has said.
	DNS bool

	limits []string // names that the CA which vouched may vouch for; nil: any
	trust  *Trust   // by which it was verified
	memo   *memo    // of this verification and of those that use it again; nil: none
}

type memo struct {
	once sync.Once
	of   any
}

// Memo returns what read, at the first call, has made of the peer, for who needs the same in each of a peer's connections. It is kept with
// the verification: what read returns is shared and not to be changed, is to depend on the peer alone, and not on NotAfter and Cached, and is
// to be small. There is one, so a program has one such read.
func (p *Peer) Memo(read func() any) any {
	if p.memo == nil {
		return read()
	}
	p.memo.once.Do(func() { p.memo.of = read() })
	return p.memo.of
}

// String returns account@machine.
func (p *Peer) String() string { return p.Account + "@" + p.Machine }

// An outcome is a success that the cache may keep: what was proved and during which time it stays so.
type outcome struct {
	peer      Peer
	group     [32]byte // SHA-256 of the leaf's DER, or of the name where any leaf is the machine's own to make
	static    [32]byte
	notBefore time.Time
}

// verify does docs/spec/protocol.md, section 5.5, in its order: everything cheap comes before the first signature, and the
// leaf's key is not used before its chain has been verified. Every error is a *reason.Error and holds no text of the
// peer's but names that have passed their check.
func (t *Trust) verify(identity []byte, static [32]byte, answer *Answer, now time.Time) (*outcome, error) {
	// Step 1: format.
	id, err := ParseIdentity(identity)
	if err != nil {
		return nil, err
	}
	st, err := ParseStatement(id.Statement)
	if err != nil {
		return nil, err
	}
	// Step 2: bounds on the certificates.
	certs, err := parseCertificates(id.Certificates)
	if err != nil {
		return nil, err
	}
	leaf, leafHash := certs[0], sha256.Sum256(id.Certificates[0])
	// Step 3: static key and leaf.
	if subtle.ConstantTimeCompare(st.StaticKey[:], static[:]) != 1 {
		return nil, reason.Errorf(reason.StatementInvalid, "the peer's statement is for another static key than the one "+
			"it used: a statement captured from another machine, or a daemon mixed up by a restart")
	}
	if st.Leaf != leafHash {
		return nil, reason.Errorf(reason.StatementInvalid,
			"the peer's statement is for another certificate than the one it sent")
	}
	if t.UnderDNS(st.Machine) {
		return t.verifyDNS(id, st, leaf, answer, now)
	}
	// Step 4: window.
	if err := checkWindow(st, leaf, now); err != nil {
		return nil, err
	}
	// Step 5: names.
	if err := t.checkNames(st, leaf); err != nil {
		return nil, err
	}
	// Step 6: chain.
	path, err := t.verifyChain(certs, st.Machine, now)
	if err != nil {
		return nil, ofPeer(err)
	}
	// Step 7: statement signature.
	if !validSignature(leaf.PublicKey, id.Statement, id.Signature) {
		return nil, errSignature
	}
	o := &outcome{
		peer: Peer{
			Machine: st.Machine, Account: st.Account, Attributes: st.Attributes,
			limits: t.limits(path.anchor, st.Machine), trust: t, Leaf: leaf, CA: path.anchor, Path: path.certs,
			NotAfter: earlier(st.NotAfter, path.notAfter), memo: new(memo),
		},
		group: leafHash, static: static, notBefore: st.NotBefore,
	}
	if path.notBefore.After(o.notBefore) {
		o.notBefore = path.notBefore
	}
	return o, nil
}

// ofPeer returns a refusal of verifyChain with whose certificates it is about: Check asks about this machine's.
func ofPeer(err error) error {
	var e *reason.Error
	if !errors.As(err, &e) {
		return err
	}
	return &reason.Error{Code: e.Code, Detail: "the peer's certificates: " + e.Detail, Err: e.Err}
}

// parseCertificates does step 2: each certificate parses and keeps the bounds on keys and algorithms. What the parser
// says is left out of the errors, since it may quote from the certificate.
func parseCertificates(ders [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, 0, len(ders))
	for i, der := range ders {
		// The certificate outlives the caller's buffer in the cache, and its parts are slices of the bytes parsed.
		cert, err := x509.ParseCertificate(bytes.Clone(der))
		if err != nil {
			if kind := certificateKeyKind(der); kind != "" {
				return nil, reason.Errorf(reason.CertificateUnacceptable, "%s is not acceptable: it has %s", ordinal(i), kind)
			}
			return nil, reason.Errorf(reason.CertificateUnacceptable, "%s does not parse as X.509", ordinal(i))
		}
		maxRSA := maxCARSABits
		if i == 0 {
			maxRSA = maxLeafRSABits
		}
		if err := acceptableCertKey(cert, maxRSA); err != nil {
			return nil, reason.Errorf(reason.CertificateUnacceptable, "%s is not acceptable: %w", ordinal(i), err)
		}
		if err := acceptableSignature(cert.SignatureAlgorithm); err != nil {
			return nil, reason.Errorf(reason.CertificateUnacceptable, "%s is not acceptable: %w", ordinal(i), err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func ordinal(i int) string {
	if i == 0 {
		return "the peer's certificate"
	}
	return fmt.Sprintf("certificate %d of the peer's chain", i+1)
}

// checkWindow does step 4. The leaf's own time comes first, because its end explains the statement's.
func checkWindow(st *Statement, leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return expired("the peer's certificate", leaf)
	case now.Before(leaf.NotBefore):
		return notYetValid("the peer's certificate", leaf)
	}
	if err := checkStatementTime(st, now); err != nil {
		return err
	}
	if st.NotAfter.After(leaf.NotAfter) {
		return reason.Errorf(reason.StatementExpired, "the peer's statement outlives its certificate")
	}
	return nil
}

// checkNames does step 5.
func (t *Trust) checkNames(st *Statement, leaf *x509.Certificate) error {
	if err := ValidMachineName(st.Machine); err != nil {
		return reason.Errorf(reason.MachineNameMismatch, "the peer's machine name is not acceptable: %w", err)
	}
	if !t.proves(leaf, st.Machine) {
		return reason.Errorf(reason.MachineNameMismatch,
			"the peer says that it is machine %q, which is none of the DNS names of its certificate", st.Machine)
	}
	if err := ValidAccount(st.Account, t.allowDomain); err != nil {
		return reason.Errorf(reason.AccountUnacceptable, "the peer's account name is not acceptable: %w", err)
	}
	if err := validAttributes(st.Attributes, t.allowDomain); err != nil {
		return reason.Errorf(reason.AccountUnacceptable, "the peer's attributes are not acceptable: %w", err)
	}
	return nil
}

// A verifiedPath is where a verified chain ends and how long it is good for, with its revocation lists.
type verifiedPath struct {
	certs               []*x509.Certificate // leaf first, trust anchor last
	anchor              *x509.Certificate
	notBefore, notAfter time.Time
}

// verifyChain does step 6 for certificates that have passed step 2, leaf first, and a machine name that is one of the
// leaf's.
func (t *Trust) verifyChain(certs []*x509.Certificate, machine string, now time.Time) (verifiedPath, error) {
	leaf := certs[0]
	// The rules for the leaf need no signature, so they come first.
	if err := t.checkLeaf(leaf); err != nil {
		return verifiedPath{}, err
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	opts := x509.VerifyOptions{
		Roots:         t.pool(func(g *caGroup) bool { return t.vouches(g, machine) }),
		Intermediates: intermediates,
		CurrentTime:   now,
		// Extended key usage is checked below, path by path, by this protocol's own rule.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	paths, err := leaf.Verify(opts)
	if err != nil {
		return verifiedPath{}, t.chainError(err, certs, machine, opts)
	}
	// The youngest CA first, so that it shows which older ones are needed still, and by whom.
	slices.SortStableFunc(paths, func(a, b []*x509.Certificate) int {
		return b[len(b)-1].NotBefore.Compare(a[len(a)-1].NotBefore)
	})
	// Any one path that keeps every rule is enough. Of those that do not, a revocation says the most.
	var worst *reason.Error
	for _, path := range paths {
		p, err := t.checkPath(path, now)
		if err == nil {
			t.issuers.add(path)
			return p, nil
		}
		if worst == nil || err.Code == reason.CertificateRevoked && worst.Code != reason.CertificateRevoked {
			worst = err
		}
	}
	return verifiedPath{}, worst
}

// checkLeaf keeps the key of a CA, of a TLS-only or of an encryption certificate from speaking for accounts.
func (t *Trust) checkLeaf(leaf *x509.Certificate) error {
	unacceptable := func(format string, args ...any) error {
		return reason.Errorf(reason.CertificateUnacceptable, "the certificate of the machine "+format, args...)
	}
	switch {
	case leaf.IsCA:
		return unacceptable("is a CA; it needs one of its own")
	case t.isAnchor(leaf):
		return unacceptable("has the key of a trusted CA; it needs one of its own, with a CA that issued it")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return unacceptable("lacks the key usage digitalSignature; have it issued with that")
	case len(t.requireEKU) > 0:
		// Best alone: a certificate without serverAuth cannot be a web server's by accident.
		if !namesEKU(leaf, t.requireEKU) {
			return unacceptable("%w", t.lacksEKU())
		}
	case !namesPurpose(leaf):
		return unacceptable("has an extended key usage that is neither serverAuth nor clientAuth; have it issued with one")
	}
	return nil
}

// checkPath applies to a path, leaf first and trust anchor last, what x509.Verify does not check: extended key usage of
// the intermediates, constraints on directory names, and revocation.
func (t *Trust) checkPath(path []*x509.Certificate, now time.Time) (verifiedPath, *reason.Error) {
	if len(path) < 2 {
		return verifiedPath{}, reason.Errorf(reason.CertificateUnacceptable,
			"the certificate of the machine is itself a trusted CA; it needs one that a CA issued")
	}
	// A configured CA has been checked when it was loaded; one of the system's pool has not.
	if err := acceptableCertKey(path[len(path)-1], maxCARSABits); err != nil {
		return verifiedPath{}, reason.Errorf(reason.CertificateUnacceptable, "the CA of the chain is not acceptable: %w", err)
	}
	for _, c := range path[1 : len(path)-1] {
		if len(t.requireEKU) == 0 && !namesPurpose(c) {
			return verifiedPath{}, reason.Errorf(reason.CertificateUnacceptable,
				"an intermediate of the chain has an extended key usage that is neither serverAuth nor clientAuth")
		}
		if len(t.requireEKU) > 0 && hasEKU(c) && !namesEKU(c, t.requireEKU) &&
			!slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return verifiedPath{}, reason.Errorf(reason.CertificateUnacceptable, "an intermediate of the chain %w",
				t.lacksEKU())
		}
	}
	for i, ca := range path[1:] {
		if slices.ContainsFunc(path[:i+1], func(c *x509.Certificate) bool { return forbidsDirectoryName(ca, c) }) {
			return verifiedPath{}, reason.Errorf(reason.MachineNameMismatch,
				"a name constraint of a CA of the chain forbids the subject, or another directory name, of a certificate under it")
		}
	}
	p := verifiedPath{certs: path, anchor: path[len(path)-1], notBefore: path[0].NotBefore, notAfter: path[0].NotAfter}
	for _, c := range path[1:] {
		p.notAfter = earlier(p.notAfter, c.NotAfter)
		if c.NotBefore.After(p.notBefore) {
			p.notBefore = c.NotBefore
		}
	}
	return p, t.checkRevocation(path, &p, now)
}

// chainError finds the code for an error of x509.Verify.
func (t *Trust) chainError(err error, certs []*x509.Certificate, machine string, opts x509.VerifyOptions) error {
	leaf := certs[0]
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		// x509 has one reason for both ends of the validity.
		who := "a CA of the chain"
		if invalid.Cert.Equal(leaf) {
			who = "the certificate of the machine"
		}
		if opts.CurrentTime.Before(invalid.Cert.NotBefore) {
			return notYetValid(who, invalid.Cert)
		}
		return expired(who, invalid.Cert)
	case errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName:
		return reason.Errorf(reason.MachineNameMismatch,
			"a name constraint of a CA of the chain forbids a name in the certificate of machine %q", machine)
	case errors.As(err, &critical):
		return reason.Errorf(reason.CertificateUnacceptable, "a certificate of the chain has a critical extension that is not "+
			"known here%s", unknownCritical(certs))
	}
	all := opts
	all.Roots = t.pool(func(*caGroup) bool { return true })
	if _, err := leaf.Verify(all); err == nil {
		return reason.Errorf(reason.UnknownCA, "%w", curedBy(SettingCAs,
			"the CA of the chain is trusted, but not for machine %q: the trust here limits it to other names", machine))
	}
	return reason.Errorf(reason.UnknownCA, "%w", curedBy(SettingCAs, "the certificate of machine %q does not lead to a "+
		"CA that is trusted here; add the CA here, or the intermediate certificates there", machine))
}

// maxOID bounds what an error shows of an object identifier, bytes.
const maxOID = 64

// unknownCritical names the first critical extension that crypto/x509 does not know, and whose it is: digits and dots.
func unknownCritical(certs []*x509.Certificate) string {
	for i, c := range certs {
		for _, oid := range c.UnhandledCriticalExtensions {
			if s := oid.String(); len(s) <= maxOID {
				return fmt.Sprintf(": %s in certificate %d", s, i+1)
			}
		}
	}
	return ""
}

func expired(who string, c *x509.Certificate) *reason.Error {
	return reason.Errorf(reason.CertificateExpired, "%s has expired at %s; have it renewed, and check both clocks",
		who, stamp(c.NotAfter))
}

func notYetValid(who string, c *x509.Certificate) *reason.Error {
	return reason.Errorf(reason.CertificateNotYetValid, "%s is valid only from %s; check both clocks",
		who, stamp(c.NotBefore))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
