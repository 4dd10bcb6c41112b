// Package wire reads and writes length-prefixed fields within bounds.
package wire

import (
	"encoding/binary"
	"fmt"
)

// A Reader takes fields off a byte string. The first error sticks, and every later read returns nothing, so that a
// caller may read all fields and look at the error once, in End. What a read returns aliases the input and has no
// capacity beyond its own end. Errors name the field and hold nothing of its bytes.
type Reader struct {
	rest []byte
	err  error
}

// NewReader returns a Reader of b.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Take returns a field of n bytes.
func (r *Reader) Take(name string, n int) []byte {
	switch {
	case r.err != nil:
		return nil
	case len(r.rest) < n:
		r.err = fmt.Errorf("it ends inside the field %q", name)
		return nil
	}
	field := r.rest[:n:n]
	r.rest = r.rest[n:]
	return field
}

// U8 returns a field that is a number of one byte.
func (r *Reader) U8(name string) byte {
	if b := r.Take(name, 1); b != nil {
		return b[0]
	}
	return 0
}

// U32 returns a field that is a number of four bytes.
func (r *Reader) U32(name string) uint32 {
	if b := r.Take(name, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Opaque8 returns a field of lo to hi bytes that stands behind its length of one byte.
func (r *Reader) Opaque8(name string, lo, hi int) []byte { return r.opaque(name, 1, lo, hi) }

// Opaque16 returns a field of lo to hi bytes that stands behind its length of two bytes.
func (r *Reader) Opaque16(name string, lo, hi int) []byte { return r.opaque(name, 2, lo, hi) }

func (r *Reader) opaque(name string, prefix, lo, hi int) []byte {
	n := 0
	for _, b := range r.Take(name, prefix) {
		n = n<<8 | int(b)
	}
	if n < lo || n > hi {
		r.Fail(outside(name, n, lo, hi))
	}
	return r.Take(name, n)
}

func outside(name string, n, lo, hi int) error {
	return fmt.Errorf("the field %q has %d bytes, it must have %d to %d", name, n, lo, hi)
}

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Fail makes err the Reader's error if it has none yet: what a caller finds wrong with a field.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// End returns the first error, or one if bytes are left over.
func (r *Reader) End() error {
	if len(r.rest) > 0 {
		r.Fail(fmt.Errorf("%d bytes follow its last field", len(r.rest)))
	}
	return r.err
}

// A Writer is the Reader's counterpart, with the same bounds: what it refuses a Reader would have refused.
type Writer struct {
	out []byte
	err error
}

// Put writes a field that must have n bytes.
func (w *Writer) Put(name string, field []byte, n int) { w.put(name, field, n, n) }

// U8 writes a number of one byte.
func (w *Writer) U8(n byte) { w.out = append(w.out, n) }

// U32 writes a number of four bytes.
func (w *Writer) U32(n uint32) { w.out = binary.BigEndian.AppendUint32(w.out, n) }

// Opaque8 writes a field of lo to hi bytes behind its length of one byte.
func (w *Writer) Opaque8(name string, field []byte, lo, hi int) {
	w.U8(byte(len(field)))
	w.put(name, field, lo, hi)
}

// Opaque16 writes a field of lo to hi bytes behind its length of two bytes.
func (w *Writer) Opaque16(name string, field []byte, lo, hi int) {
	w.out = binary.BigEndian.AppendUint16(w.out, uint16(len(field)))
	w.put(name, field, lo, hi)
}

func (w *Writer) put(name string, field []byte, lo, hi int) {
	if n := len(field); w.err == nil && (n < lo || n > hi) {
		w.err = outside(name, n, lo, hi)
	}
	w.out = append(w.out, field...)
}

// Bytes returns what was written, or the first error.
func (w *Writer) Bytes() ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	return w.out, nil
}
