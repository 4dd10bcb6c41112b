package certbind

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// What the three numbers of a TLSA record say (RFC 6698, section 2.1), as far as they can vouch for a machine here.
const (
	UsageDANEEE = 3 // the record names the certificate itself, and no chain is asked for

	SelectorCert = 0 // the whole certificate
	SelectorSPKI = 1 // its public key

	MatchingFull   = 0 // the bytes themselves
	MatchingSHA256 = 1
	MatchingSHA512 = 2
)

const (
	// maxTLSAData bounds the data of a record: what is matched in full is a certificate or its key (docs/spec/protocol.md,
	// section 5.5, step 2).
	maxTLSAData = 16384
	// MaxAnswerRecords bounds the records of an answer.
	MaxAnswerRecords = 16
)

// A TLSA is a record of DNS that vouches for a certificate or a key, as RFC 6698, section 2.1, has it.
type TLSA struct {
	Usage, Selector, Matching byte
	Data                      []byte
}

// An Answer is what validated DNS said of a machine: records as DNS has them, no more than MaxAnswerRecords, usable or not.
// None is an answer too: DNS has proved that there are none.
type Answer struct {
	Machine string
	Records []TLSA
	Until   time.Time
}

// TLSAOwner returns the name at which the records of a machine are.
func TLSAOwner(machine string) string { return "_shared-alts." + machine + "." }

// ParseTLSA reads a record's data as it is on the wire. Records of numbers that are not known here parse as well: others may
// know them.
func ParseTLSA(rdata []byte) (TLSA, error) {
	switch {
	case len(rdata) < 4:
		return TLSA{}, fmt.Errorf("a TLSA record has %d bytes, less than three numbers and data", len(rdata))
	case len(rdata) > 3+maxTLSAData:
		return TLSA{}, fmt.Errorf("a TLSA record has %d bytes of data, more than %d", len(rdata)-3, maxTLSAData)
	}
	return TLSA{Usage: rdata[0], Selector: rdata[1], Matching: rdata[2], Data: bytes.Clone(rdata[3:])}, nil
}

// NewTLSA makes the record of usage 3 that vouches for the certificate, or with SelectorSPKI for its key alone.
func NewTLSA(cert *x509.Certificate, selector, matching byte) (TLSA, error) {
	data, err := associated(cert, selector, matching)
	if err != nil {
		return TLSA{}, err
	}
	return TLSA{Usage: UsageDANEEE, Selector: selector, Matching: matching, Data: data}, nil
}

// Marshal returns the record's data as it is on the wire.
func (r TLSA) Marshal() []byte { return append([]byte{r.Usage, r.Selector, r.Matching}, r.Data...) }

// String returns the record's data as a zone file has it: 3 1 1 and the data in hexadecimal.
func (r TLSA) String() string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data))
}

// Usable reports whether the record can vouch for any certificate here: usage 3, and a selector, a matching type and a
// length that go together.
func (r TLSA) Usable() bool {
	if r.Usage != UsageDANEEE || r.Selector > SelectorSPKI {
		return false
	}
	switch r.Matching {
	case MatchingFull:
		return len(r.Data) > 0
	case MatchingSHA256:
		return len(r.Data) == sha256.Size
	case MatchingSHA512:
		return len(r.Data) == sha512.Size
	}
	return false
}

// Matches reports whether the record is usable and vouches for the certificate.
func (r TLSA) Matches(cert *x509.Certificate) bool {
	if !r.Usable() {
		return false
	}
	data, err := associated(cert, r.Selector, r.Matching)
	return err == nil && bytes.Equal(data, r.Data)
}

// associated returns the data by which a record vouches for the certificate.
func associated(cert *x509.Certificate, selector, matching byte) ([]byte, error) {
	var of []byte
	switch selector {
	case SelectorCert:
		of = cert.Raw
	case SelectorSPKI:
		of = cert.RawSubjectPublicKeyInfo
	default:
		return nil, errors.New("a TLSA record selects 0, the certificate, or 1, its public key")
	}
	switch matching {
	case MatchingFull:
		return bytes.Clone(of), nil
	case MatchingSHA256:
		sum := sha256.Sum256(of)
		return sum[:], nil
	case MatchingSHA512:
		sum := sha512.Sum512(of)
		return sum[:], nil
	}
	return nil, errors.New("a TLSA record matches by 0, all bytes, by 1, their SHA-256, or by 2, their SHA-512")
}
