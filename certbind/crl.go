package certbind

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A CRLFile is a file of certificate revocation lists: PEM with any number of them, or DER with one.
type CRLFile struct {
	Data   []byte
	Source string // for messages
	// Complete is the administrator's word that the lists have the revocations of all certificates of their kind, wherever
	// these say that their list is: then the names of a list's issuing distribution point do not count.
	Complete bool
}

var (
	oidDeltaIndicator           = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// A crl is one revocation list that says all there is to say about those of its issuer's certificates that it is for.
type crl struct {
	list    *x509.RevocationList
	revoked map[string]struct{} // serial numbers, big-endian
	scope   Scope
	source  string

	// signed remembers which keys have signed the list, by the SHA-256 of their SubjectPublicKeyInfo. It holds only
	// keys of certificates whose path has been verified, so that strangers cannot fill it; the bound is for
	// certainty.
	mu     sync.Mutex
	signed map[[32]byte]bool
	keys   [][]byte   // SubjectPublicKeyInfo of those that have
	hashes [][32]byte // SHA-256 of each of keys
}

const maxSignedMemo = 1024

// parseCRLs reads a file of lists and refuses each that would have to be read with more knowledge than this package
// has: a list with a critical extension, a list of changes (delta), of some reasons, of other issuers. Go's parser accepts
// all of these, and a lookup in them would find too little.
func parseCRLs(f CRLFile) ([]*crl, error) {
	ders := [][]byte{f.Data}
	if bytes.Contains(f.Data, []byte("-----BEGIN ")) || !bytes.HasPrefix(f.Data, []byte{0x30}) {
		blocks, err := pemBlocks(f.Data)
		if err != nil {
			return nil, err
		}
		ders = nil
		for _, b := range blocks {
			if b.Type != "X509 CRL" {
				return nil, fmt.Errorf(`only revocation lists ("X509 CRL") belong there: %w`, wrongBlock(b.Type))
			}
			ders = append(ders, b.Bytes)
		}
	}
	var lists []*crl
	for _, der := range ders {
		list, err := parseCRL(der)
		if err != nil {
			return nil, err
		}
		list.source = f.Source
		if f.Complete {
			list.scope.Names = nil
		}
		lists = append(lists, list)
	}
	return lists, nil
}

func parseCRL(der []byte) (*crl, error) {
	list, err := x509.ParseRevocationList(der)
	switch {
	case err == nil:
	case versionOneList(der):
		return nil, errors.New("it is a list of version 1, which cannot say what it is for; have the CA make version 2 " +
			`(openssl: "crlnumber" in the CA's section, or "crl_extensions")`)
	default:
		if _, err := x509.ParseCertificate(der); err == nil {
			return nil, fmt.Errorf("it is not a revocation list: %w", wrongBlock("CERTIFICATE"))
		}
		if kind := derKind(der); kind != nil {
			return nil, fmt.Errorf("it is not a revocation list: %w", kind)
		}
		return nil, fmt.Errorf("it is not a revocation list in PEM or DER; fetch it anew: %w", err)
	}
	if err := acceptableSignature(list.SignatureAlgorithm); err != nil {
		return nil, fmt.Errorf("%w; have the CA sign its list with a current algorithm", err)
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("the list has no nextUpdate, so that nobody can tell when it is out of date; " +
			"have the CA set it (RFC 5280, section 5.1.2.5)")
	}
	var scope Scope
	for _, ext := range list.Extensions {
		switch {
		case ext.Id.Equal(oidDeltaIndicator):
			return nil, errors.New("it is a delta list, which holds changes only; use the complete list")
		case ext.Id.Equal(oidIssuingDistributionPoint):
			if scope, err = parseScope(ext.Value); err != nil {
				return nil, err
			}
		case ext.Critical:
			return nil, fmt.Errorf("it has the critical extension %v, which is not known here; use a plain complete list",
				ext.Id)
		}
	}
	revoked := make(map[string]struct{}, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		for _, ext := range e.Extensions {
			if ext.Critical {
				return nil, fmt.Errorf("one of its entries has the critical extension %v, as in an indirect list; "+
					"use a plain list of the CA's own", ext.Id)
			}
		}
		revoked[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	// The entries are in the map now; a large list need not be held twice.
	list.RevokedCertificateEntries = nil
	return &crl{list: list, revoked: revoked, scope: scope, signed: make(map[[32]byte]bool)}, nil
}

// versionOneList reports whether der looks like a list without the version field, which crypto/x509 does not read.
func versionOneList(der []byte) bool {
	all, err := elements(der)
	if err != nil || len(all) != 3 {
		return false
	}
	fields, err := elements(all[0].FullBytes)
	// Algorithm, issuer, thisUpdate; a certificate's first field is its version or its serial number.
	return err == nil && len(fields) >= 3 && fields[0].Tag == asn1.TagSequence && fields[1].Tag == asn1.TagSequence &&
		(fields[2].Tag == asn1.TagUTCTime || fields[2].Tag == asn1.TagGeneralizedTime)
}

// signedBy reports whether the issuer's key has signed the list. Only the key counts: a CA's name may belong to two
// keys, and an issuer without the cRLSign usage bit still means what it lists.
func (l *crl) signedBy(issuer *x509.Certificate) bool {
	spki := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	l.mu.Lock()
	ok, known := l.signed[spki]
	l.mu.Unlock()
	if known {
		return ok
	}
	ok = issuer.CheckSignature(l.list.SignatureAlgorithm, l.list.RawTBSRevocationList, l.list.Signature) == nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.signed) >= maxSignedMemo {
		clear(l.signed)
	}
	l.signed[spki] = ok
	if ok && !slices.ContainsFunc(l.keys, func(k []byte) bool { return bytes.Equal(k, issuer.RawSubjectPublicKeyInfo) }) {
		l.keys, l.hashes = append(l.keys, issuer.RawSubjectPublicKeyInfo), append(l.hashes, spki)
	}
	return ok
}

// signers returns the keys that are known to have signed the list, as SubjectPublicKeyInfo.
func (l *crl) signers() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.keys)
}

func (l *crl) revokes(cert *x509.Certificate) bool { return l.revokesSerial(cert.SerialNumber.Bytes()) }

// stale reports whether the list is past its end. A thisUpdate in the future does not count against a list: its issuer
// has signed it, what it revokes is revoked, and a clock that is behind would otherwise cut off every peer.
func (l *crl) stale(now time.Time) bool { return now.After(l.list.NextUpdate) }
