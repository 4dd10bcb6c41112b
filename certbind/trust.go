package certbind

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// TrustConfig says whom a verifier trusts.
type TrustConfig struct {
	CAs  []CA
	CRLs []CRLFile
	// RequireEKU is an extended key usage that each leaf must name, nil for none. It is recommended: without it
	// whoever can read a host's TLS key speaks for every account there.
	RequireEKU asn1.ObjectIdentifier
	// AllowDomainAccounts accepts account names with '@' and '\', up to 128 bytes.
	AllowDomainAccounts bool
	// CRLStaleOK accepts a chain whose revocation list is past its nextUpdate.
	CRLStaleOK bool
}

// A CA is a file of CA certificates, or the system's pool, or DNS in the place of one, and the names that it may vouch for.
type CA struct {
	// Names limits the CA to machines equal to one of them or under one. Empty: any machine; not with System or DANE.
	Names []string
	// PEM holds the certificates, unless System is set: then the system's pool is meant.
	PEM    []byte
	System bool
	// DANE says that there is no CA for these machines: DNS vouches for their certificates (Answer). Where a CA and DANE have
	// a machine both, the longer of the two names decides.
	DANE   bool
	Source string // for messages
}

// A Trust is what a verifier goes by: CAs limited to names, revocation lists, policy. It does not change once made.
type Trust struct {
	groups      []caGroup
	crls        []*crl
	requireEKU  asn1.ObjectIdentifier
	allowDomain bool
	crlStaleOK  bool
	behind      map[[32]byte][]Behind // CAs whose chains fail, by the SHA-256 of their keys
	issuers     *issuers
}

// A caGroup is the outcome of one CA: certificates, or the system's pool, or DNS.
type caGroup struct {
	names  []string
	certs  []*x509.Certificate
	keys   [][32]byte // SHA-256 of the certificates' SubjectPublicKeyInfo
	system *x509.CertPool
	dns    bool // it has no certificates: DNS vouches
	source string
}

// NewTrust reads CAs and revocation lists and checks that each can be used. It fails as a whole: a trust with a CA or a
// list missing is not the one that was asked for.
func NewTrust(cfg TrustConfig) (*Trust, error) {
	if len(cfg.CAs) == 0 {
		return nil, curedBy(SettingCAs, "no CA is trusted, so that every peer would be refused; name one")
	}
	t := &Trust{
		requireEKU:  slices.Clone(cfg.RequireEKU),
		allowDomain: cfg.AllowDomainAccounts,
		crlStaleOK:  cfg.CRLStaleOK,
		issuers:     newIssuers(),
	}
	for _, ca := range cfg.CAs {
		g, err := newGroup(ca)
		if err != nil {
			return nil, fmt.Errorf("cannot use the CA %s: %w", ca.Source, err)
		}
		t.groups = append(t.groups, g)
	}
	if err := t.checkScopes(); err != nil {
		return nil, err
	}
	for _, f := range cfg.CRLs {
		lists, err := parseCRLs(f)
		if err != nil {
			return nil, fmt.Errorf("cannot use the revocation list %s: %w", f.Source, err)
		}
		for _, l := range lists {
			if err := t.checkCRLIssuer(l); err != nil {
				return nil, fmt.Errorf("cannot use the revocation list %s: %w", f.Source, err)
			}
		}
		t.crls = append(t.crls, lists...)
	}
	return t, nil
}

func newGroup(ca CA) (caGroup, error) {
	g := caGroup{names: slices.Clone(ca.Names), source: ca.Source}
	for _, n := range g.names {
		if err := ValidMachineName(n); err != nil {
			return g, fmt.Errorf("its limit to names is wrong: %w", err)
		}
	}
	if ca.DANE {
		return newDNSGroup(g, ca)
	}
	if ca.System {
		if len(g.names) == 0 {
			return g, curedBy(SettingCAs, "the system's pool may vouch for any machine in the world; limit it to names")
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			return g, fmt.Errorf("the system has no pool of CAs; install its ca-certificates: %w", err)
		}
		g.system = pool
		return g, nil
	}
	blocks, err := pemBlocks(ca.PEM)
	if err != nil {
		return g, err
	}
	for i, b := range blocks {
		if b.Type != "CERTIFICATE" {
			return g, fmt.Errorf("only CA certificates belong there: %w", wrongBlock(b.Type))
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return g, fmt.Errorf("its certificate %d %w", i+1, unusable(b.Bytes, "fetch it anew", err))
		}
		if err := acceptableCA(cert); err != nil {
			return g, fmt.Errorf("its certificate %d (%q): %w", i+1, cert.Subject, err)
		}
		g.certs, g.keys = append(g.certs, cert), append(g.keys, keyHash(cert))
	}
	return g, nil
}

func acceptableCA(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return errors.New("it is not a CA (basic constraints); name the CA that issued it instead")
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("its key usage lacks certSign, so that it cannot have issued a certificate; name the CA that has")
	}
	if err := acceptableCertKey(cert, maxCARSABits); err != nil {
		return fmt.Errorf("%w; use a CA with P-256, P-384, Ed25519, or RSA of %d to %d bits", err, minRSABits, maxCARSABits)
	}
	return nil
}

// checkCRLIssuer refuses a list that bears the name of a configured CA but is not signed by a CA of that name: someone
// means it to apply, and it never would.
func (t *Trust) checkCRLIssuer(l *crl) error {
	var named bool
	for _, g := range t.groups {
		for _, ca := range g.certs {
			if bytes.Equal(ca.RawSubject, l.list.RawIssuer) {
				named = true
				if l.signedBy(ca) {
					return nil
				}
			}
		}
	}
	if named {
		return fmt.Errorf("it names the CA %q as its issuer but its signature is not that CA's; fetch it anew from the CA",
			l.list.Issuer)
	}
	return nil
}

func (g *caGroup) vouchesFor(machine string) bool {
	return len(g.names) == 0 || slices.ContainsFunc(g.names, func(n string) bool { return under(machine, n) })
}

// pool returns the CAs that pass the filter. It is never nil: a nil pool would mean the system's to x509.Verify.
func (t *Trust) pool(filter func(*caGroup) bool) *x509.CertPool {
	pool := x509.NewCertPool()
	// The system's pool goes first, since it is there to be cloned and not to be added.
	for i := range t.groups {
		if g := &t.groups[i]; g.system != nil && filter(g) {
			pool = g.system.Clone()
			break
		}
	}
	for i := range t.groups {
		if g := &t.groups[i]; filter(g) {
			for _, ca := range g.certs {
				pool.AddCert(ca)
			}
		}
	}
	return pool
}

// isAnchor reports whether the certificate, or its key, is that of a configured CA.
func (t *Trust) isAnchor(cert *x509.Certificate) bool {
	for _, g := range t.groups {
		for _, ca := range g.certs {
			if bytes.Equal(ca.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
				return true
			}
		}
	}
	return false
}
