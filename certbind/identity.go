package certbind

import (
	"fmt"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

const (
	maxCertificates     = 4
	maxCertificateBytes = 16384 // of all certificates together, without their lengths
	maxSignature        = 1024
	maxIdentity         = 21504
)

// An Identity is what one daemon sends to another to prove an account: certificates, statement, signature
// (docs/spec/protocol.md, section 5).
type Identity struct {
	// Certificates are 1 to 4 of DER, 16384 bytes in all, leaf first, each other one issued one that stands before it.
	Certificates [][]byte
	// Statement is 1 to 4096 bytes as they were signed.
	Statement []byte
	// Signature is 1 to 1024 bytes over SignatureInput(Statement), by the key of the first certificate.
	Signature []byte
}

// Marshal returns the bytes that travel, at most 21504.
func (id *Identity) Marshal() ([]byte, error) {
	if n := len(id.Certificates); n < 1 || n > maxCertificates {
		return nil, fmt.Errorf("cannot encode an identity: it has %d certificates, not 1 to %d", n, maxCertificates)
	}
	var w wire.Writer
	w.U8(byte(len(id.Certificates)))
	var sum int
	for _, c := range id.Certificates {
		w.Opaque16("certificate", c, 1, maxCertificateBytes)
		sum += len(c)
	}
	if sum > maxCertificateBytes {
		return nil, fmt.Errorf("cannot encode an identity: its certificates have %d bytes in all, more than %d",
			sum, maxCertificateBytes)
	}
	w.Opaque16("statement", id.Statement, 1, maxStatement)
	w.Opaque16("signature", id.Signature, 1, maxSignature)
	b, err := w.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cannot encode an identity: %w", err)
	}
	return b, nil
}

// ParseIdentity splits an identity and checks every bound of section 5. Nothing in it is parsed further or verified.
// The result aliases b. The error is a *reason.Error, Malformed.
func ParseIdentity(b []byte) (*Identity, error) {
	id, err := parseIdentity(b)
	if err != nil {
		return nil, reason.Errorf(reason.Malformed, "the peer's identity is malformed: %w", err)
	}
	return id, nil
}

func parseIdentity(b []byte) (*Identity, error) {
	if len(b) > maxIdentity {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(b), maxIdentity)
	}
	r := wire.NewReader(b)
	count := int(r.U8("count"))
	if r.Err() == nil && (count < 1 || count > maxCertificates) {
		return nil, fmt.Errorf("it has %d certificates, not 1 to %d", count, maxCertificates)
	}
	var id Identity
	// Each certificate may have what the ones before it have left of the sum.
	for left := maxCertificateBytes; len(id.Certificates) < count; {
		c := r.Opaque16("certificate", 1, left)
		if r.Err() != nil {
			return nil, r.Err()
		}
		id.Certificates = append(id.Certificates, c)
		left -= len(c)
	}
	id.Statement = r.Opaque16("statement", 1, maxStatement)
	id.Signature = r.Opaque16("signature", 1, maxSignature)
	if err := r.End(); err != nil {
		return nil, err
	}
	return &id, nil
}
