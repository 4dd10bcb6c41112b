package service

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// An about is what is said of a verified peer in each of his connections: made once, and shared.
type about struct {
	policy policy.Peer
	err    error // why no policy can judge him
	path   certbind.Path
	leaf   [32]byte // SHA-256 of the certificate

	serial, issuer string // of the certificate, for the log
}

// Bounds of what is kept. Accounts of one machine share its certificate, and not this.
const (
	keptNames  = 16  // DNS names, and purposes
	keptGroups = 512 // bytes, as the peer's machine states them
	keptSerial = 256 // bits: RFC 5280 lets a CA use 160, and under DNS a machine makes its own certificate
)

// aboutPeer returns what is said of a peer, who was verified. That of one who has much to say is made each time.
func aboutPeer(p *certbind.Peer) *about {
	if keeps(p) {
		return p.Memo(func() any { return newAbout(p) }).(*about)
	}
	return newAbout(p)
}

func keeps(p *certbind.Peer) bool {
	if len(publishedGroups(p)) > keptGroups {
		return false
	}
	leaf := p.Leaf
	return leaf == nil || leaf.SerialNumber.BitLen() <= keptSerial &&
		(p.DNS || len(leaf.DNSNames)+len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) <= keptNames)
}

func newAbout(p *certbind.Peer) *about {
	a := new(about)
	a.policy, a.err = policyPeer(p)
	if leaf := p.Leaf; leaf != nil {
		a.path, a.leaf = p.VerifiedPath(), sha256.Sum256(leaf.Raw)
		a.serial, a.issuer = bounded(fmt.Sprintf("%x", leaf.SerialNumber), maxSerial), bounded(leaf.Issuer.String(), maxIssuer)
	}
	return a
}

// publishedGroups returns the attribute "groups" of a peer, "" for none.
func publishedGroups(p *certbind.Peer) string {
	for _, a := range p.Attributes {
		if a.Name == "groups" {
			return a.Value
		}
	}
	return ""
}

// policyPeer returns what a policy judges of a peer that was proved.
func policyPeer(p *certbind.Peer) (policy.Peer, error) {
	out := policy.Peer{Account: p.Account, Machine: p.Machine}
	if groups := publishedGroups(p); groups != "" {
		var err error
		if out.Groups, err = names.DecodeGroups(groups); err != nil {
			return out, reason.Errorf(reason.AccountUnacceptable, "the peer's groups are not acceptable: %w", err)
		}
	}
	if p.Leaf == nil {
		return out, nil
	}
	out.Key = sha256.Sum256(p.Leaf.RawSubjectPublicKeyInfo)
	if p.DNS { // DNS vouches for one name: with others, as many as it likes, its record would be too large to be judged again
		out.Names = []string{p.Machine}
		out.Certificates = []policy.Certificate{policyCertificate(p.Leaf)}
		return out, nil
	}
	for _, n := range p.Leaf.DNSNames {
		out.Names = append(out.Names, ascii.Lower(n))
	}
	for _, u := range p.Leaf.ExtKeyUsage {
		out.EKUs = append(out.EKUs, u.OID().String())
	}
	for _, u := range p.Leaf.UnknownExtKeyUsage {
		out.EKUs = append(out.EKUs, u.String())
	}
	for i, c := range p.Path {
		if i == len(p.Path)-1 {
			break // the trusted CA
		}
		out.Certificates = append(out.Certificates, policyCertificate(c))
	}
	if p.CA != nil {
		out.CAKey, out.CAName = sha256.Sum256(p.CA.RawSubjectPublicKeyInfo), policy.NameHash(p.CA.Subject.String())
	}
	return out, nil
}

func policyCertificate(c *x509.Certificate) policy.Certificate {
	return policy.Certificate{Serial: fmt.Sprintf("%x", c.SerialNumber), Issuer: policy.NameHash(c.Issuer.String())}
}
