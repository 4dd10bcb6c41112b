package certbind

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Revocation lists from a place whose owner is not trusted: he can withhold a list, and do nothing else.

// Bounds of an offer: of one list and of one file, in bytes and in lists, and of all that one CA has signed there, so that no
// CA's lists leave none for another's.
const (
	MaxListSize    = 16 << 20
	maxListsOfFile = 16
	MaxListsOfCA   = 32
	MaxBytesOfCA   = 32 << 20
)

// An Offer is a place of such lists, and who may have signed one.
type Offer struct {
	Files iter.Seq[CRLFile] // one after the other, so that not all are in memory that are no lists
	Chain [][]byte          // this machine's own certificates, whose issuers are known as the CAs are
	Marks Marks             // whose keys are known too
	// InForce is the trust whose place the new one takes, nil at a start: its peers' issuers are known, its lists are not
	// read again, and a list that is over or from the future does not take the place of one that is neither.
	InForce *Trust
	Now     time.Time
}

// A PassedOver is an offered file of which no use is made.
type PassedOver struct{ Source, Why string }

// WithOffered returns the same trust with the lists of an offer in the place of those of an earlier one: of each CA that is
// known, and each part of its certificates, the newest. It never fails. Nothing is read of a list beyond its head before
// the signature is that of somebody known.
func (t *Trust) WithOffered(o Offer) (*Trust, []PassedOver) {
	var passed []PassedOver
	pass := func(source string, why error) { passed = append(passed, PassedOver{source, why.Error()}) }
	r := offerReader{Offer: o, trust: t, own: ownIssuers(o.Chain), inForce: make(map[[32]byte]*crl), ofCA: make(map[string]share)}
	if o.InForce != nil {
		for _, l := range o.InForce.crls {
			if l.isOffered() {
				r.inForce[l.offeredMark().ID()] = l
			}
		}
	}
	var found []offeredList
	for f := range o.Files {
		ders, err := offeredDERs(f)
		if err != nil {
			pass(f.Source, err)
			continue
		}
		for _, der := range ders {
			l, err := r.read(der, f)
			if err != nil {
				pass(f.Source, err)
				break
			}
			mark := l.offeredMark()
			mark.Source = f.Source
			found = append(found, offeredList{l, mark})
		}
	}
	next := t.withoutOffered()
	newest := next.Marks(o.Now)
	best := make(map[[32]byte]*crl)
	for _, f := range found {
		id := f.mark.ID()
		if old, ok := newest[id]; !ok || old.olderThan(f.mark) || best[id] != nil && !f.mark.olderThan(old) && r.inForce[id] == f.crl {
			newest[id], best[id] = f.mark, f.crl
		}
	}
	for _, f := range found {
		id := f.mark.ID()
		if best[id] != f.crl {
			pass(f.mark.Source, fmt.Errorf("%s has a list of the same CA that is as new (%v)", newest[id].Source, newest[id]))
			continue
		}
		if !slices.Contains(next.crls, f.crl) {
			next.crls = append(next.crls, f.crl)
		}
	}
	return next, passed
}

type offeredList struct {
	*crl
	mark Mark // with the file where the list is now: one that is in force is known again by its bytes
}

// withoutOffered returns the same trust with the lists alone that the administrator gives.
func (t *Trust) withoutOffered() *Trust {
	next := *t
	next.crls, next.behind, next.issuers = slices.DeleteFunc(slices.Clone(t.crls), (*crl).isOffered), nil, newIssuers()
	return &next
}

// WithOfferedOf returns the same trust with the other's offered lists of one CA, which is a key, in the place of its own.
func (t *Trust) WithOfferedOf(other *Trust, ca []byte) *Trust {
	next := *t
	next.behind, next.issuers = nil, newIssuers()
	of := func(l *crl) bool { return l.isOffered() && bytes.Equal(l.offerer, ca) }
	next.crls = slices.DeleteFunc(slices.Clone(t.crls), of)
	for _, l := range other.crls {
		if of(l) {
			next.crls = append(next.crls, l)
		}
	}
	return &next
}

// OfferedAnew returns the keys of the CAs whose offered lists are not the other's.
func (t *Trust) OfferedAnew(other *Trust) (cas [][]byte) {
	for _, pair := range [2][2]*Trust{{t, other}, {other, t}} {
		for _, l := range pair[0].crls {
			if l.isOffered() && !slices.Contains(pair[1].crls, l) &&
				!slices.ContainsFunc(cas, func(ca []byte) bool { return bytes.Equal(ca, l.offerer) }) {
				cas = append(cas, l.offerer)
			}
		}
	}
	return cas
}

// SameLists reports whether both have the same lists, in any order, and not read anew.
func (t *Trust) SameLists(other *Trust) bool {
	return len(t.crls) == len(other.crls) &&
		!slices.ContainsFunc(t.crls, func(l *crl) bool { return !slices.Contains(other.crls, l) })
}

func (l *crl) isOffered() bool { return l.offerer != nil }

// offeredMark returns the Mark of a list of an offer.
func (l *crl) offeredMark() Mark { return l.mark(l.offerer) }

// offeredDERs is listDERs of a file of an offer.
func offeredDERs(f CRLFile) ([][]byte, error) {
	if n := bytes.Count(f.Data, []byte("-----BEGIN ")); n > maxListsOfFile { // before they are decoded
		return nil, fmt.Errorf("it has %d lists; a file there may have %d", n, maxListsOfFile)
	}
	return listDERs(f)
}

// An offerReader reads the lists of one offer.
type offerReader struct {
	Offer
	trust   *Trust
	own     []*x509.Certificate
	inForce map[[32]byte]*crl // the offered ones, by the ID of their marks
	ofCA    map[string]share  // by key
}

// A share is what was read of one CA's lists.
type share struct{ lists, bytes int }

// read reads one list: one that is in force as it is, another no further than its head before its signature is known.
func (r *offerReader) read(der []byte, f CRLFile) (*crl, error) {
	for _, l := range r.inForce {
		if bytes.Equal(l.list.Raw, der) && l.complete == f.Complete {
			return l, r.count(l.offerer, len(der))
		}
	}
	head, entries, err := listHead(der)
	if err != nil {
		return nil, err
	}
	signer, err := r.signerOf(head)
	if err != nil {
		return nil, err
	}
	if err := r.count(signer.RawSubjectPublicKeyInfo, len(der)); err != nil {
		return nil, err
	}
	l, err := newCRL(head, entries)
	if err != nil {
		return nil, err
	}
	l.source = f.Source
	if f.Complete {
		l.scope.Names, l.complete = nil, true
	}
	if !l.signedBy(signer) {
		return nil, errors.New("its signature is not that of its issuer; fetch it anew from the CA")
	}
	l.offerer = signer.RawSubjectPublicKeyInfo
	return l, r.timely(l)
}

// count counts a list of a CA.
func (r *offerReader) count(ca []byte, size int) error {
	s := r.ofCA[string(ca)]
	s = share{s.lists + 1, s.bytes + size}
	if s.lists > MaxListsOfCA || s.bytes > MaxBytesOfCA {
		return fmt.Errorf("there are more than %d lists of its CA, or %d bytes of them: remove those that are used no more, or "+
			"give them by --crl FILE", MaxListsOfCA, MaxBytesOfCA)
	}
	r.ofCA[string(ca)] = s
	return nil
}

// timely refuses a list that would do harm where one is in force: whose CA's chains would fail, as it is over, or that would
// not be remembered, as it is from the future. At a start it is taken: chains fail then rather than that nothing is revoked.
func (r *offerReader) timely(l *crl) error {
	if r.InForce == nil {
		return nil
	}
	made := l.offeredMark()
	was := r.inForce[made.ID()]
	switch {
	case made.ThisUpdate.After(r.Now.Add(maxAhead)):
		return errors.New("it was made more than 5 minutes from now: set this machine's clock, or fetch the right list")
	case l.stale(r.Now) && !r.trust.crlStaleOK && (was == nil || !was.stale(r.Now)):
		return fmt.Errorf("it was due to be replaced at %s: have the CA make a new one", stamp(l.list.NextUpdate))
	case was != nil && !was.offeredMark().olderThan(made) && !made.olderThan(was.offeredMark()):
		return fmt.Errorf("it differs from the list that is in force (%v), which has the same number and time: have the CA make a new one",
			made)
	}
	return nil
}

// signerOf returns whose signature is on a list.
func (r *offerReader) signerOf(head *x509.RevocationList) (*x509.Certificate, error) {
	known := append(r.trust.CAs(), r.own...)
	if r.InForce != nil {
		known = append(known, r.InForce.issuers.all()...)
	}
	known = slices.DeleteFunc(known, func(c *x509.Certificate) bool { return !bytes.Equal(c.RawSubject, head.RawIssuer) })
	name := head.Issuer.String()
	for _, m := range r.Marks {
		if m.Issuer != name {
			continue
		}
		if pub, err := x509.ParsePKIXPublicKey(m.Key); err == nil && acceptableKey(pub, maxCARSABits) == nil {
			known = append(known, &x509.Certificate{RawSubjectPublicKeyInfo: m.Key, PublicKey: pub})
		}
	}
	for _, c := range known {
		if c.CheckSignature(head.SignatureAlgorithm, head.RawTBSRevocationList, head.Signature) == nil {
			return c, nil
		}
	}
	if len(known) > 0 {
		return nil, fmt.Errorf("it names the CA %.200q as its issuer but its signature is not that CA's; fetch it anew from the CA", name)
	}
	return nil, fmt.Errorf("its issuer %.200q is no CA that is known here; fetch the lists of the CAs that are trusted", name)
}

// ownIssuers returns the CAs of a chain of certificates.
func ownIssuers(chain [][]byte) (own []*x509.Certificate) {
	for _, der := range chain[min(1, len(chain)):] {
		if c, err := x509.ParseCertificate(der); err == nil && c.IsCA && acceptableCertKey(c, maxCARSABits) == nil {
			own = append(own, c)
		}
	}
	return own
}

// WithoutList returns the trusted CAs of which there is no list.
func (t *Trust) WithoutList() (cas []*x509.Certificate) {
	for _, ca := range t.CAs() {
		if !slices.ContainsFunc(t.crls, func(l *crl) bool {
			return bytes.Equal(ca.RawSubject, l.list.RawIssuer) && l.signedBy(ca)
		}) {
			cas = append(cas, ca)
		}
	}
	return cas
}
