package certbind

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A List is one revocation list that a CA has signed, for what brings lists to a daemon.
type List struct {
	DER        []byte
	Mark       Mark // the CA's key, what the list is for, and how new it is
	NextUpdate time.Time
	signed     []byte // part of DER
}

// ListIssuers returns the CAs that are trusted, and those of certs that they vouch for at a time: whose lists count.
func (t *Trust) ListIssuers(certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	issuers := t.CAs()
	roots, between := t.pool(func(*caGroup) bool { return true }), x509.NewCertPool()
	for _, c := range certs {
		between.AddCert(c)
	}
	for _, c := range certs {
		if acceptableCA(c) != nil || slices.ContainsFunc(issuers, c.Equal) {
			continue
		}
		options := x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if _, err := c.Verify(options); err == nil {
			issuers = append(issuers, c)
		}
	}
	return issuers
}

// ReadList reads a file of exactly one list, of a kind that NewTrust takes, that bears the name of one of issuers and its
// signature. Nothing is read of it beyond its head before that is known: entries make many times their bytes of memory.
func ReadList(data []byte, issuers []*x509.Certificate) (*List, error) {
	if begins := bytes.Count(data, []byte("-----BEGIN ")); begins > 1 { // before they are decoded
		return nil, fmt.Errorf("it has %d lists, and a file here has one; have the CA publish each at a place of its own", begins)
	}
	ders, err := listDERs(CRLFile{Data: data})
	if err != nil {
		return nil, err
	}
	head, entries, err := listHead(ders[0])
	if err != nil {
		return nil, err
	}
	named := false
	for _, ca := range issuers {
		if !bytes.Equal(ca.RawSubject, head.RawIssuer) {
			continue
		}
		named = true
		if ca.CheckSignature(head.SignatureAlgorithm, head.RawTBSRevocationList, head.Signature) == nil {
			return readSigned(head, entries, ca)
		}
	}
	if named {
		return nil, fmt.Errorf("it names the CA %.200q as its issuer but its signature is not that CA's; ask the CA which list is its own",
			head.Issuer.String())
	}
	return nil, fmt.Errorf("its issuer %.200q is none of the CAs that are trusted, nor one below them whose certificate is given; "+
		"trust that CA, or give its certificate", head.Issuer.String())
}

// readSigned reads a list that ca has signed.
func readSigned(head *x509.RevocationList, entries []byte, ca *x509.Certificate) (*List, error) {
	l, err := newCRL(head, entries)
	if err != nil {
		return nil, err
	}
	return &List{DER: head.Raw, Mark: l.mark(ca.RawSubjectPublicKeyInfo), NextUpdate: head.NextUpdate,
		signed: head.RawTBSRevocationList}, nil
}

// Newer reports whether l is newer than another list of the same key and scope.
func (l *List) Newer(than *List) bool { return than.Mark.olderThan(l.Mark) }

// Same reports whether both say the same, whatever their signatures are.
func (l *List) Same(other *List) bool { return bytes.Equal(l.signed, other.signed) }

// Usable returns why a list must not be taken at a time: it is over, or of a time to come.
func (l *List) Usable(now time.Time) error {
	switch {
	case now.After(l.NextUpdate):
		return fmt.Errorf("it was due to be replaced at %s; have the CA make a new one", stamp(l.NextUpdate))
	case l.Mark.ThisUpdate.After(now.Add(maxAhead)):
		return fmt.Errorf("it is from the future, %s; set this machine's clock, or the CA's", stamp(l.Mark.ThisUpdate))
	}
	return nil
}

// ListPlaces returns the URIs at which a certificate says that its revocation list is: those of one element are the same
// list.
func ListPlaces(cert *x509.Certificate) (places [][]string) {
	for _, names := range listPoints(cert) {
		names = slices.DeleteFunc(names, func(n string) bool { return len(n) > 4 && n[:4] == "der:" })
		if len(names) > 0 {
			places = append(places, names)
		}
	}
	return places
}

// ReadCertificates reads the certificates of a PEM file; keyToo says that it may have a key as well, of which nothing is read.
func ReadCertificates(data []byte, keyToo bool) (certs []*x509.Certificate, err error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, err
	}
	defer wipeKeyBlocks(blocks)
	for _, b := range blocks {
		switch {
		case b.Type == "CERTIFICATE":
		case keyToo:
			continue
		default:
			return nil, fmt.Errorf("only certificates belong there: %w", wrongBlock(b.Type))
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate %d %w", len(certs)+1, unusable(b.Bytes, "fetch it anew", err))
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it has no certificate")
	}
	return certs, nil
}
