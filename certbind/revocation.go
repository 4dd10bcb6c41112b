package certbind

import (
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// checkRevocation looks up each certificate of the path but the anchor in each list that its issuer's key has signed:
// what such a list revokes is revoked, whatever part of the certificates it is for. If there are lists of the issuer, one
// of them must be for the certificate and in its time. Every list is asked before it is reported that one is missing or
// stale: a revocation says more. It shortens p to the ends of the lists used.
func (t *Trust) checkRevocation(path []*x509.Certificate, p *verifiedPath, now time.Time) *reason.Error {
	var missing error
	note := func(s Setting, format string, args ...any) { missing = curedBy(s, format, args...) }
	for i, cert := range path[:len(path)-1] {
		leaf, issuer := i == 0, path[i+1]
		var other *crl
		answered := false
		for _, l := range t.crls {
			if !l.signedBy(issuer) {
				continue
			}
			if l.revokes(cert) {
				return reason.Errorf(reason.CertificateRevoked, "certificate %d of the chain (serial number %x) is revoked by %s",
					i+1, cert.SerialNumber, l.source)
			}
			if !l.scope.covers(cert, leaf) {
				other = l
				continue
			}
			answered = true
			switch {
			case t.crlStaleOK:
			case !l.stale(now):
				p.notAfter = earlier(p.notAfter, l.list.NextUpdate)
			case missing == nil:
				note(SettingCRLStaleOK, "the revocation list %s was due to be replaced at %s; fetch a new one, or accept lists "+
					"that are out of date", l.source, stamp(l.list.NextUpdate))
			}
		}
		switch {
		case answered || other == nil:
		case len(other.scope.Names) > 0:
			note(SettingCompleteList, "no revocation list of its CA is for certificate %d of the chain: %s is for %v; give the "+
				"others as well, or, if it has all that the CA issues, say that it is complete", i+1, other.source, other.scope)
		default:
			note(SettingLists, "no revocation list of its CA is for certificate %d of the chain: %s is for %v; give the others "+
				"as well", i+1, other.source, other.scope)
		}
		for _, b := range t.behind[sha256.Sum256(issuer.RawSubjectPublicKeyInfo)] {
			if b.Mark.Scope.covers(cert, leaf) {
				note(b.setting(), "%v; fetch the newest one", b)
			}
		}
	}
	if missing != nil {
		return reason.Errorf(reason.RevocationUnknown, "%w", missing)
	}
	return nil
}
