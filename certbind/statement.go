package certbind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

const (
	statementVersion = 0x01
	maxStatement     = 4096
	maxUnixTime      = 253402300799 // the end of the year 9999

	// maxWindow is the longest life of a statement that a verifier accepts (section 5.5, step 4).
	maxWindow = 24 * time.Hour
)

// An Attribute is one signed property of an account: a name of 1 to 32 bytes [a-z][a-z0-9_-]*, and a value of up to
// 2048 bytes 0x20 to 0x7e (docs/spec/protocol.md, section 5.4).
type Attribute struct{ Name, Value string }

// A Statement says that a static key speaks for an account on a machine during a window of time. It is signed with the
// machine's certificate key (docs/spec/protocol.md, section 5.1).
type Statement struct {
	// StaticKey is the X25519 public key that Noise authenticates.
	StaticKey [32]byte
	// Leaf is the SHA-256 of the DER of the certificate whose key signs.
	Leaf [32]byte
	// Machine and Account are what is claimed, 1 to 253 and 1 to 128 bytes.
	Machine, Account string
	// Attributes are at most 16, in strictly ascending order of their names.
	Attributes []Attribute
	// NotBefore and NotAfter are both included in the window; whole seconds.
	NotBefore, NotAfter time.Time
}

// Marshal returns the bytes that are signed and sent, at most 4096. It fails if a field is out of the format's bounds;
// it does not judge names or times, which is Verify's part.
func (s *Statement) Marshal() ([]byte, error) {
	attrs, err := marshalAttributes(s.Attributes)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a statement: %w", err)
	}
	notBefore, notAfter := s.NotBefore.Unix(), s.NotAfter.Unix()
	if min(notBefore, notAfter) < 0 || max(notBefore, notAfter) > maxUnixTime {
		return nil, errors.New("cannot encode a statement: a time is outside the years 1970 to 9999")
	}
	var w wire.Writer
	w.Opaque16("format version", []byte{statementVersion}, 1, 1)
	w.Opaque16("static key", s.StaticKey[:], 32, 32)
	w.Opaque16("leaf", s.Leaf[:], 32, 32)
	w.Opaque16("machine", []byte(s.Machine), 1, maxMachineName)
	w.Opaque16("account", []byte(s.Account), 1, maxDomainAccount)
	w.Opaque16("attributes", attrs, 0, maxAttributesField)
	w.Opaque16("not before", binary.BigEndian.AppendUint64(nil, uint64(notBefore)), 8, 8)
	w.Opaque16("not after", binary.BigEndian.AppendUint64(nil, uint64(notAfter)), 8, 8)
	b, err := w.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cannot encode a statement: %w", err)
	}
	return b, nil
}

func marshalAttributes(attrs []Attribute) ([]byte, error) {
	if len(attrs) > maxAttributes {
		return nil, fmt.Errorf("it has %d attributes, more than %d", len(attrs), maxAttributes)
	}
	var w wire.Writer
	for i, a := range attrs {
		if i > 0 && a.Name <= attrs[i-1].Name {
			return nil, errors.New("its attributes are not in strictly ascending order")
		}
		w.Opaque8("attribute name", []byte(a.Name), 1, maxAttributeName)
		w.Opaque16("attribute value", []byte(a.Value), 0, maxAttributeValue)
	}
	b, err := w.Bytes()
	if n := len(b); n > maxAttributesField {
		return nil, fmt.Errorf("its attributes have %d bytes in all, more than %d", n, maxAttributesField)
	}
	return b, err
}

// ParseStatement reads the bytes of a statement and checks the format with every bound of section 5.1: the version,
// each length, number and order of the attributes, the range of the times, nothing after the last field. It judges
// neither names nor window. The result shares no memory with b. The error is a *reason.Error, StatementInvalid.
func ParseStatement(b []byte) (*Statement, error) {
	s, err := parseStatement(b)
	if err != nil {
		return nil, reason.Errorf(reason.StatementInvalid, "the peer's statement is malformed: %w", err)
	}
	return s, nil
}

func parseStatement(b []byte) (*Statement, error) {
	if len(b) > maxStatement {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(b), maxStatement)
	}
	r := wire.NewReader(b)
	// The version comes first and alone: the rest of another version's statement need not look like this one's.
	if v := r.Opaque16("format version", 1, 1); r.Err() == nil && v[0] != statementVersion {
		return nil, fmt.Errorf("its format version is %d, not %d", v[0], statementVersion)
	}
	var s Statement
	copy(s.StaticKey[:], r.Opaque16("static key", 32, 32))
	copy(s.Leaf[:], r.Opaque16("leaf", 32, 32))
	s.Machine = string(r.Opaque16("machine", 1, maxMachineName))
	s.Account = string(r.Opaque16("account", 1, maxDomainAccount))
	attrs := r.Opaque16("attributes", 0, maxAttributesField)
	notBefore := r.Opaque16("not before", 8, 8)
	notAfter := r.Opaque16("not after", 8, 8)
	if err := r.End(); err != nil {
		return nil, err
	}
	var err error
	if s.Attributes, err = parseAttributes(attrs); err != nil {
		return nil, err
	}
	if s.NotBefore, err = parseTime(notBefore); err != nil {
		return nil, err
	}
	if s.NotAfter, err = parseTime(notAfter); err != nil {
		return nil, err
	}
	return &s, nil
}

func parseAttributes(b []byte) ([]Attribute, error) {
	var attrs []Attribute
	for r := wire.NewReader(b); r.Len() > 0; {
		if len(attrs) == maxAttributes {
			return nil, fmt.Errorf("it has more than %d attributes", maxAttributes)
		}
		a := Attribute{
			Name:  string(r.Opaque8("attribute name", 1, maxAttributeName)),
			Value: string(r.Opaque16("attribute value", 0, maxAttributeValue)),
		}
		if r.Err() != nil {
			return nil, r.Err()
		}
		if n := len(attrs); n > 0 && a.Name <= attrs[n-1].Name {
			return nil, errors.New("its attributes are not in strictly ascending order")
		}
		attrs = append(attrs, a)
	}
	return attrs, nil
}

func parseTime(b []byte) (time.Time, error) {
	t := binary.BigEndian.Uint64(b)
	if t > maxUnixTime {
		return time.Time{}, errors.New("one of its times is beyond the year 9999")
	}
	return time.Unix(int64(t), 0).UTC(), nil
}

// signatureContext keeps a signature over a statement apart from any other that the same key may make. The 64 spaces,
// as in TLS 1.3 (RFC 8446, section 4.4.3), keep it apart from protocols whose signed bytes begin with a chosen nonce.
const signatureContext = "shared-altsd v1 machine statement"

// SignatureInput returns the bytes that the machine's key signs: 64 spaces, the context string, a zero byte, the
// statement (docs/spec/protocol.md, section 5.1).
func SignatureInput(statement []byte) []byte {
	in := make([]byte, 0, 64+len(signatureContext)+1+len(statement))
	for range 64 {
		in = append(in, 0x20)
	}
	in = append(in, signatureContext...)
	in = append(in, 0)
	return append(in, statement...)
}
