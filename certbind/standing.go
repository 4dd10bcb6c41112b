package certbind

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What can be said later of a path that was verified, without its certificates: whether it stands.

// A Path is what remains of a verified path: enough to see that it is revoked, expired or trusted no more.
type Path struct {
	Machine string     // that the leaf was taken for
	Certs   []PathCert // the leaf first; the trusted CA, which is known by its key, is the issuer of the last
	DNS     *Prints    // of the leaf, if DNS vouched for it; there are no Certs then
}

// A PathCert is one certificate of a Path.
type PathCert struct {
	Serial    []byte // big-endian
	NotAfter  time.Time
	IssuerKey [32]byte // SHA-256 of the SubjectPublicKeyInfo that signed it
}

// VerifiedPath returns what remains of the peer's path.
func (p *Peer) VerifiedPath() Path {
	out := Path{Machine: p.Machine}
	if p.DNS {
		out.DNS = NewPrints(p.Leaf)
		return out
	}
	for i, c := range p.Path[:max(0, len(p.Path)-1)] {
		out.Certs = append(out.Certs, PathCert{Serial: c.SerialNumber.Bytes(), NotAfter: c.NotAfter, IssuerKey: keyHash(p.Path[i+1])})
	}
	return out
}

func keyHash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Stands reports why a path that was verified earlier is refused now, and else until when it stands if nothing changes.
// Only what says no counts: a certificate on a list that its issuer's key is known to have signed; an end; a CA that is
// trusted for the machine no more, by none of the keys of the path. A list that is missing or out of date does not end
// what it let begin. Where DNS vouched, what it says now is Answer.Disowned's. Every error is a *reason.Error.
func (t *Trust) Stands(p Path, now time.Time) (until time.Time, err error) {
	if err := t.standsDNS(p); err != nil || p.DNS != nil {
		return until, err // nothing ends it by itself
	}
	for i, c := range p.Certs {
		for _, l := range t.crls {
			if l.knownBy(c.IssuerKey) && l.revokesSerial(c.Serial) {
				return until, reason.Errorf(reason.CertificateRevoked,
					"certificate %d of the peer's chain (serial number %x) is revoked by %s", i+1, c.Serial, l.source)
			}
		}
	}
	end := time.Time{}   // of the certificates up to here
	ended := time.Time{} // the last end of a path to a trusted CA
	for i, c := range p.Certs {
		if i == 0 || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
		ca, trusted := t.anchorUntil(c.IssuerKey, p.Machine)
		if !trusted {
			continue
		}
		last := end
		if !ca.IsZero() {
			last = earlier(last, ca)
		}
		if !now.After(last) && last.After(until) {
			until = last
		}
		if last.After(ended) {
			ended = last
		}
	}
	switch {
	case !until.IsZero():
		return until, nil
	case !ended.IsZero():
		return until, reason.Errorf(reason.CertificateExpired,
			"a certificate of the peer's chain, or its CA, has expired at %s; have it renewed, and connect again", stamp(ended))
	}
	return until, reason.Errorf(reason.UnknownCA, "%w", curedBy(SettingCAs,
		"no CA that vouched for machine %q is trusted here any more", p.Machine))
}

// anchorUntil returns until when a CA of the key is trusted for a machine: the zero time if nobody can tell, as of a
// CA of the system's pool.
func (t *Trust) anchorUntil(key [32]byte, machine string) (until time.Time, trusted bool) {
	for i := range t.groups {
		g := &t.groups[i]
		if !t.vouches(g, machine) {
			continue
		}
		if g.system != nil {
			return time.Time{}, true
		}
		for j, k := range g.keys {
			if k == key && (!trusted || g.certs[j].NotAfter.After(until)) {
				until, trusted = g.certs[j].NotAfter, true
			}
		}
	}
	return until, trusted
}

// knownBy reports whether the key is known to have signed the list.
func (l *crl) knownBy(key [32]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.hashes, key) // and not in signed, which may be forgotten
}

func (l *crl) revokesSerial(serial []byte) bool { return l.revoked.has(serial) }

// maxIssuers bounds the intermediates that are remembered.
const maxIssuers = 1024

// issuers are the intermediates of paths that were verified, by their keys: who may have signed a list. They pass
// from one trust to the next, so that a list acts before a handshake shows its issuer again.
type issuers struct {
	mu    sync.Mutex
	byKey map[[32]byte]*x509.Certificate
}

func newIssuers() *issuers { return &issuers{byKey: make(map[[32]byte]*x509.Certificate)} }

// add remembers the intermediates of a verified path.
func (s *issuers) add(path []*x509.Certificate) {
	if len(path) < 3 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range path[1 : len(path)-1] {
		if len(s.byKey) < maxIssuers {
			s.byKey[keyHash(c)] = c
		}
	}
}

func (s *issuers) all() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*x509.Certificate, 0, len(s.byKey))
	for _, c := range s.byKey {
		list = append(list, c)
	}
	return list
}

// inherit has the lists checked against the keys of the issuers that the trust before has met, and remembers these: of
// each only the lists in its name.
func (t *Trust) inherit(old *Trust) {
	if old == nil || old == t {
		return
	}
	known := old.issuers.all()
	for _, l := range old.crls {
		for _, key := range l.signers() {
			pub, err := x509.ParsePKIXPublicKey(key)
			if err == nil && acceptableKey(pub, maxCARSABits) == nil {
				known = append(known, &x509.Certificate{RawSubject: l.list.RawIssuer, RawSubjectPublicKeyInfo: key, PublicKey: pub})
			}
		}
	}
	for _, l := range t.crls {
		for _, c := range known {
			if bytes.Equal(c.RawSubject, l.list.RawIssuer) {
				l.signedBy(c)
			}
		}
	}
	old.issuers.mu.Lock()
	defer old.issuers.mu.Unlock()
	t.issuers.mu.Lock()
	defer t.issuers.mu.Unlock()
	for key, c := range old.issuers.byKey {
		if len(t.issuers.byKey) < maxIssuers {
			t.issuers.byKey[key] = c
		}
	}
}
