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
	revoked serials
	scope   Scope
	source  string
	// offerer is the key of the CA that has signed a list which somebody offers who is not trusted (WithOffered), as
	// SubjectPublicKeyInfo, and complete what the administrator says of it; else nil.
	offerer  []byte
	complete bool

	// signed remembers which keys have signed the list, by the SHA-256 of their SubjectPublicKeyInfo. It holds only
	// keys of certificates whose path has been verified, so that strangers cannot fill it; the bound is for
	// certainty.
	mu     sync.Mutex
	signed map[[32]byte]bool
	keys   [][]byte   // SubjectPublicKeyInfo of those that have
	hashes [][32]byte // SHA-256 of each of keys
}

const maxSignedMemo = 1024

// listDERs returns the lists of a file, unread.
func listDERs(f CRLFile) (ders [][]byte, err error) {
	if !bytes.Contains(f.Data, []byte("-----BEGIN ")) && bytes.HasPrefix(f.Data, []byte{0x30}) {
		return [][]byte{f.Data}, nil
	}
	blocks, err := pemBlocks(f.Data)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Type != "X509 CRL" {
			return nil, fmt.Errorf(`only revocation lists ("X509 CRL") belong there: %w`, wrongBlock(b.Type))
		}
		ders = append(ders, b.Bytes)
	}
	return ders, nil
}

// parseCRLs reads a file of lists and refuses each that would have to be read with more knowledge than this package
// has: a list with a critical extension, a list of changes (delta), of some reasons, of other issuers. Go's parser accepts
// all of these, and a lookup in them would find too little.
func parseCRLs(f CRLFile) ([]*crl, error) {
	ders, err := listDERs(f)
	if err != nil {
		return nil, err
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
	head, entries, err := listHead(der)
	if err != nil {
		return nil, err
	}
	return newCRL(head, entries)
}

// newCRL makes a list of its head and its entries.
func newCRL(list *x509.RevocationList, entries []byte) (*crl, error) {
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
			var err error
			if scope, err = parseScope(ext.Value); err != nil {
				return nil, err
			}
		case ext.Critical:
			return nil, fmt.Errorf("it has the critical extension %v, which is not known here; use a plain complete list",
				ext.Id)
		}
	}
	revoked, err := parseEntries(entries)
	if err != nil {
		return nil, err
	}
	return &crl{list: list, revoked: revoked, scope: scope, signed: make(map[[32]byte]bool)}, nil
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
