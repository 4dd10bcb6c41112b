package certbind

import (
	"crypto/x509"
	"time"
)

// CAs returns the CA certificates that are trusted, without the system's pool.
func (t *Trust) CAs() []*x509.Certificate {
	var all []*x509.Certificate
	for _, g := range t.groups {
		all = append(all, g.certs...)
	}
	return all
}

// A CRLInfo describes a revocation list in use.
type CRLInfo struct {
	Source string // the file that it came from
	Issuer string // its issuer's distinguished name
	Scope  Scope  // which of its issuer's certificates it is for
	// ThisUpdate is when the list was made, NextUpdate when its successor is due.
	ThisUpdate, NextUpdate time.Time
}

// CRLs returns what there is to say of each revocation list.
func (t *Trust) CRLs() []CRLInfo {
	var all []CRLInfo
	for _, l := range t.crls {
		all = append(all, CRLInfo{l.source, l.list.Issuer.String(), l.scope, l.list.ThisUpdate, l.list.NextUpdate})
	}
	return all
}
