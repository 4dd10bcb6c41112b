package certbind

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
)

// orderChain finds the certificate of the key and all those that issued one that was found before, nearest first: where
// an issuer's key has certificates of several CAs, as while a CA is changed, each peer needs the one that leads to a CA
// of its own. Self-signed certificates are left out. What issued nobody, and what is more than peers accept, is left
// out with a warning: the first is there by mistake, perhaps for one that is missing.
func orderChain(certs []*x509.Certificate, key crypto.PublicKey) (chain []*x509.Certificate, warnings []string, err error) {
	var rest []*x509.Certificate
	for _, c := range certs {
		if pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && pub.Equal(key) {
			chain = append(chain, c)
		} else if !selfSigned(c) {
			rest = append(rest, c)
		}
	}
	switch {
	case len(chain) == 0:
		return nil, nil, fmt.Errorf("the private key belongs to none of the %d certificates; name the key that the "+
			"certificate was made for", len(certs))
	case len(chain) > 1:
		return nil, nil, fmt.Errorf("%d certificates are of the private key; "+
			"leave only the one to use, which is mostly the newest", len(chain))
	}
	for i := 0; i < len(chain); i++ {
		rest = slices.DeleteFunc(rest, func(c *x509.Certificate) bool {
			found := issued(c, chain[i])
			if found {
				chain = append(chain, c)
			}
			return found
		})
	}
	if len(rest) > 0 {
		warnings = append(warnings, fmt.Sprintf("not sent to peers: %d certificates (one with the subject %q) beside the "+
			"machine's own, which issued none of the chain from it up; remove them, or add the certificate between",
			len(rest), rest[0].Subject))
	}
	fit, size := 0, 0
	for fit < len(chain) && fit < maxCertificates && size+len(chain[fit].Raw) <= maxCertificateBytes {
		size += len(chain[fit].Raw)
		fit++
	}
	switch leaf := chain[0]; {
	case fit == 0:
		return nil, nil, fmt.Errorf("the machine's own certificate has %d bytes and %d names, and peers accept %d bytes with "+
			"those of its CAs; have it issued with fewer names", len(leaf.Raw), len(leaf.DNSNames), maxCertificateBytes)
	case fit < len(chain):
		warnings = append(warnings, fmt.Sprintf("not sent to peers: the last %d of the chain's certificates (one with the "+
			"subject %q), since peers accept %d of %d bytes in all, and the machine's own has %d with its %d names; remove "+
			"what no peer needs, or have it issued by a CA nearer to the root, or with fewer names", len(chain)-fit,
			chain[fit].Subject, maxCertificates, maxCertificateBytes, len(leaf.Raw), len(leaf.DNSNames)))
	}
	return chain[:fit], warnings, nil
}

func issued(parent, child *x509.Certificate) bool {
	return bytes.Equal(parent.RawSubject, child.RawIssuer) && child.CheckSignatureFrom(parent) == nil
}

// selfSigned reports whether the certificate is a root. One in its own name whose signature algorithm peers refuse,
// as an old root's with SHA-1, counts as such: it would do harm in a chain and is not missed.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && (acceptableSignature(c.SignatureAlgorithm) != nil ||
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil)
}
