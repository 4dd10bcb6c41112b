package signer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

// Protocol is what either end says of itself first (docs/spec/companions.md, section 1).
const Protocol = "shared-altsd signer 1"

// An operation is what a request asks for (docs/spec/companions.md, section 3).
type operation byte

const (
	askPublic operation = 1 // the public key
	askProof  operation = 2 // a signature over the empty statement
	askSign   operation = 3 // a signature over a statement
)

// An outcome is how a request ended.
type outcome byte

const (
	done      outcome = 0
	notOurs   outcome = 1 // a statement that this signer does not sign
	tooMany   outcome = 2 // more signatures than it makes in this time
	keyFailed outcome = 3 // the key does not sign
)

// Bounds of the messages, bytes.
const (
	maxRequest    = 8 << 10
	maxValue      = 1024 // a public key of RSA with 4096 bits has 550
	maxText       = 1024
	maxWhere      = 200
	maxName       = 253
	maxAccount    = 128
	maxAttributes = 16
	maxAttrName   = 32
	maxAttrValue  = 2048
)

// A request is what the daemon asks; statement is that of askSign alone.
type request struct {
	operation operation
	statement certbind.Statement
}

// encode returns the request as it travels.
func (r *request) encode() ([]byte, error) {
	var w wire.Writer
	w.U8(byte(r.operation))
	if r.operation == askSign {
		s := &r.statement
		w.Put("static key", s.StaticKey[:], len(s.StaticKey))
		w.Put("leaf", s.Leaf[:], len(s.Leaf))
		w.Opaque8("machine", []byte(s.Machine), 1, maxName)
		w.Opaque8("account", []byte(s.Account), 1, maxAccount)
		if len(s.Attributes) > maxAttributes {
			return nil, fmt.Errorf("a statement has %d attributes, more than %d", len(s.Attributes), maxAttributes)
		}
		w.U8(byte(len(s.Attributes)))
		for _, a := range s.Attributes {
			w.Opaque8("attribute name", []byte(a.Name), 1, maxAttrName)
			w.Opaque16("attribute value", []byte(a.Value), 0, maxAttrValue)
		}
		for _, t := range []time.Time{s.NotBefore, s.NotAfter} {
			w.Put("time", binary.BigEndian.AppendUint64(nil, uint64(t.Unix())), 8)
		}
	}
	return w.Bytes()
}

// parseRequest reads a request. It judges its form alone; what Statement.Marshal refuses as well is left to that.
func parseRequest(b []byte) (*request, error) {
	if len(b) > maxRequest {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(b), maxRequest)
	}
	r := wire.NewReader(b)
	req := &request{operation: operation(r.U8("operation"))}
	switch req.operation {
	case askPublic, askProof:
		return req, r.End()
	case askSign:
	default:
		r.Fail(fmt.Errorf("it asks for operation %d, which is not known here", req.operation))
		return nil, r.Err()
	}
	s := &req.statement
	copy(s.StaticKey[:], r.Take("static key", len(s.StaticKey)))
	copy(s.Leaf[:], r.Take("leaf", len(s.Leaf)))
	s.Machine = string(r.Opaque8("machine", 1, maxName))
	s.Account = string(r.Opaque8("account", 1, maxAccount))
	n := int(r.U8("number of attributes"))
	if n > maxAttributes {
		r.Fail(fmt.Errorf("it has %d attributes, more than %d", n, maxAttributes))
	}
	for range n {
		if r.Err() != nil {
			break
		}
		s.Attributes = append(s.Attributes, certbind.Attribute{
			Name:  string(r.Opaque8("attribute name", 1, maxAttrName)),
			Value: string(r.Opaque16("attribute value", 0, maxAttrValue)),
		})
	}
	s.NotBefore, s.NotAfter = takeTime(r), takeTime(r)
	if err := r.End(); err != nil {
		return nil, err
	}
	return req, nil
}

// maxUnixTime is the end of the year 9999, beyond which there is no statement.
const maxUnixTime = 253402300799

func takeTime(r *wire.Reader) time.Time {
	b := r.Take("time", 8)
	if b == nil {
		return time.Time{}
	}
	t := binary.BigEndian.Uint64(b)
	if t > maxUnixTime {
		r.Fail(errors.New("one of its times is beyond the year 9999"))
		return time.Time{}
	}
	return time.Unix(int64(t), 0).UTC()
}

// An answer is a public key with where its private key is, a signature, or why there is neither, in words for the daemon's log.
type answer struct {
	outcome outcome
	value   []byte // of done
	public  bool   // it is that of askPublic
	where   string // of done, then
	text    string // of all others
}

// encode returns the answer as it travels: what a text has too much is cut off.
func (a *answer) encode() []byte {
	var w wire.Writer
	w.U8(byte(a.outcome))
	if a.outcome == done {
		w.Opaque16("value", a.value, 1, maxValue)
		if a.public {
			where := ascii.Plain(a.where)
			w.Opaque8("where", []byte(where[:min(len(where), maxWhere)]), 0, maxWhere)
		}
	} else {
		text := ascii.Plain(a.text)
		w.Opaque16("text", []byte(text[:min(len(text), maxText)]), 0, maxText)
	}
	b, err := w.Bytes()
	if err != nil {
		return (&answer{outcome: keyFailed, text: err.Error()}).encode()
	}
	return b
}

// parseAnswer reads the answer to an operation.
func parseAnswer(to operation, b []byte) (*answer, error) {
	r := wire.NewReader(b)
	a := &answer{outcome: outcome(r.U8("outcome")), public: to == askPublic}
	if a.outcome == done {
		a.value = r.Opaque16("value", 1, maxValue)
		if a.public {
			a.where = ascii.Plain(string(r.Opaque8("where", 0, maxWhere)))
		}
	} else {
		a.text = ascii.Plain(string(r.Opaque16("text", 0, maxText)))
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return a, nil
}
