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
	// Version is its number, if it has one, and when it was made.
	Version string
	// ThisUpdate is when the list was made, NextUpdate when its successor is due.
	ThisUpdate, NextUpdate time.Time
}

// CRLs returns what there is to say of each revocation list.
func (t *Trust) CRLs() []CRLInfo {
	var all []CRLInfo
	for _, l := range t.crls {
		m := l.mark(nil)
		all = append(all, CRLInfo{Source: l.source, Issuer: m.Issuer, Scope: l.scope, Version: m.String(),
			ThisUpdate: l.list.ThisUpdate, NextUpdate: l.list.NextUpdate})
	}
	return all
}
