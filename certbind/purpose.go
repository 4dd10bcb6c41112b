package certbind

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
)

func (t *Trust) lacksEKU() error {
	return curedBy(SettingRequireEKU, "lacks the extended key usage %s that is required here", purpose.String(t.requireEKU))
}

// AnyPurpose reports whether certificates of some CA speak for a machine whatever they are for, those of its web server among
// them: RequireEKU is not set, or to what those have as well. Where DNS alone vouches it does so for one certificate, so that
// there the question does not arise.
func (t *Trust) AnyPurpose() bool {
	if !slices.ContainsFunc(t.groups, func(g caGroup) bool { return !g.dns }) {
		return false
	}
	usual := []x509.ExtKeyUsage{x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return len(t.requireEKU) == 0 || slices.ContainsFunc(usual, func(u x509.ExtKeyUsage) bool {
		return u.OID().EqualASN1OID(t.requireEKU)
	})
}

// ForMachines reports whether a certificate names the purpose of shared-altsd's own.
func ForMachines(c *x509.Certificate) bool { return namesEKU(c, purpose.OID()) }

// namesPurpose reports whether the extended key usage is absent, or has any, serverAuth or clientAuth. Either will do
// in either role: public CAs have dropped clientAuth.
func namesPurpose(c *x509.Certificate) bool {
	return !hasEKU(c) || slices.ContainsFunc(c.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
		return u == x509.ExtKeyUsageAny || u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageClientAuth
	})
}

// hasEKU reports whether the extension is there, be it empty.
func hasEKU(c *x509.Certificate) bool {
	_, ok := extension(c, oidExtKeyUsage)
	return ok
}

func namesEKU(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.UnknownExtKeyUsage, func(u asn1.ObjectIdentifier) bool { return u.Equal(oid) }) ||
		slices.ContainsFunc(c.ExtKeyUsage, func(u x509.ExtKeyUsage) bool { return u.OID().EqualASN1OID(oid) })
}
