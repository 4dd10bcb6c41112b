// Package testclaim makes the identities by which one daemon proves an account to another (docs/spec/protocol.md, section 5)
// for tests: good ones, and ones with anything wrong in them. It is written from that text and keeps none of its bounds.
package testclaim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A Statement is what is signed (section 5.1).
type Statement struct {
	StaticKey, Leaf     [32]byte
	Machine, Account    string
	Attributes          [][2]string // name and value
	NotBefore, NotAfter time.Time
}

// The fields of an encoded statement, in their order.
const (
	Version = iota
	StaticKey
	Leaf
	Machine
	Account
	Attributes
	NotBefore
	NotAfter
)

// Fields returns the statement's fields as they are encoded.
func (s *Statement) Fields() [][]byte {
	var attributes []byte
	for _, a := range s.Attributes {
		attributes = Opaque16(Opaque8(attributes, []byte(a[0])), []byte(a[1]))
	}
	return [][]byte{{1}, s.StaticKey[:], s.Leaf[:], []byte(s.Machine), []byte(s.Account), attributes,
		Time(uint64(s.NotBefore.Unix())), Time(uint64(s.NotAfter.Unix()))}
}

// Time returns a time as a field of a statement.
func Time(unix uint64) []byte { return binary.BigEndian.AppendUint64(nil, unix) }

// Join returns the statement of the fields.
func Join(fields ...[]byte) (statement []byte) {
	for _, f := range fields {
		statement = Opaque16(statement, f)
	}
	return statement
}

// Opaque8 and Opaque16 append a field after its length of one or two bytes.
func Opaque8(b, field []byte) []byte { return append(append(b, byte(len(field))), field...) }

// Opaque16 is described with Opaque8.
func Opaque16(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

// An Identity is what is sent.
type Identity struct {
	Certificates         [][]byte // DER, leaf first
	Statement, Signature []byte
}

// Encode returns the bytes that are sent.
func (id *Identity) Encode() []byte {
	b := []byte{byte(len(id.Certificates))}
	for _, f := range slices.Concat(id.Certificates, [][]byte{id.Statement, id.Signature}) {
		b = Opaque16(b, f)
	}
	return b
}

// SignatureInput returns what is signed for a statement.
func SignatureInput(statement []byte) []byte {
	return append([]byte(strings.Repeat(" ", 64)+"shared-altsd v1 machine statement\x00"), statement...)
}

// Sign signs a statement by the scheme of the key. A key that no scheme is for gives a byte that is no signature: its
// identity has to be refused before the signature is looked at.
func Sign(key crypto.Signer, statement []byte) []byte {
	input := SignatureInput(statement)
	short, long := sha256.Sum256(input), sha512.Sum384(input)
	var signature []byte
	var err error
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			signature, err = ecdsa.SignASN1(rand.Reader, k, short[:])
		case elliptic.P384():
			signature, err = ecdsa.SignASN1(rand.Reader, k, long[:])
		}
	case ed25519.PrivateKey:
		signature = ed25519.Sign(k, input)
	case *rsa.PrivateKey:
		signature, err = rsa.SignPSS(rand.Reader, k, crypto.SHA256, short[:], &rsa.PSSOptions{SaltLength: 32})
	}
	if signature == nil || err != nil {
		return []byte{0}
	}
	return signature
}

// A Claim is an identity in the making, in which all is good, for a test to make one thing bad.
type Claim struct {
	Statement
	Certificates [][]byte
	Key          crypto.Signer
	// What a test changes on the way, in this order: the statement before it is signed, the parts once it is, and the
	// bytes that are sent.
	Unsigned func(statement []byte) []byte
	Signed   func(*Identity)
	Encoded  func(identity []byte) []byte
}

// New makes a claim to be alice, of uid 1000, on the machine of the first name in the certificate, from five minutes
// ago for an hour from now. The certificates of the CAs above are sent with it.
func New(issued *testca.Issued, above ...*testca.CA) *Claim {
	now := time.Now().Truncate(time.Second)
	c := &Claim{Statement: Statement{StaticKey: [32]byte{1, 2, 3}, Account: "alice",
		Attributes: [][2]string{{"uid", "1000"}}, NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(time.Hour)}}
	if names := issued.Cert.DNSNames; len(names) > 0 {
		c.Machine = names[0]
	}
	c.Use(issued, above...)
	return c
}

// Use puts another certificate in the place of the claim's, and leaves the machine's name as it is.
func (c *Claim) Use(issued *testca.Issued, above ...*testca.CA) {
	c.Key, c.Leaf, c.Certificates = issued.Key, sha256.Sum256(issued.Cert.Raw), [][]byte{issued.Cert.Raw}
	for _, ca := range above {
		c.Certificates = append(c.Certificates, ca.Cert.Raw)
	}
}

// Sign returns the parts of the identity.
func (c *Claim) Sign() *Identity {
	id := &Identity{Certificates: slices.Clone(c.Certificates), Statement: Join(c.Fields()...)}
	if c.Unsigned != nil {
		id.Statement = c.Unsigned(id.Statement)
	}
	id.Signature = Sign(c.Key, id.Statement)
	if c.Signed != nil {
		c.Signed(id)
	}
	return id
}

// Identity returns the bytes that are sent.
func (c *Claim) Identity() []byte {
	b := c.Sign().Encode()
	if c.Encoded != nil {
		b = c.Encoded(b)
	}
	return b
}
