package certbind

import (
	"encoding/binary"
	"fmt"
)

// A reader takes length-prefixed fields off a byte string. The first error sticks; every later read gives nil.
type reader struct {
	rest []byte
	err  error
}

// opaque8 and opaque16 read a field of lo to hi bytes after its length of one or two bytes. The result aliases the
// input.
func (r *reader) opaque8(name string, lo, hi int) []byte  { return r.opaque(name, 1, lo, hi) }
func (r *reader) opaque16(name string, lo, hi int) []byte { return r.opaque(name, 2, lo, hi) }

func (r *reader) opaque(name string, prefix, lo, hi int) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.rest) < prefix {
		r.err = fmt.Errorf("it ends before the field %q", name)
		return nil
	}
	n := int(r.rest[0])
	if prefix == 2 {
		n = int(binary.BigEndian.Uint16(r.rest))
	}
	if n < lo || n > hi {
		r.err = fmt.Errorf("the field %q has %d bytes, outside %d to %d", name, n, lo, hi)
		return nil
	}
	r.rest = r.rest[prefix:]
	if len(r.rest) < n {
		r.err = fmt.Errorf("it ends inside the field %q", name)
		return nil
	}
	field := r.rest[:n:n]
	r.rest = r.rest[n:]
	return field
}

// end gives the first error, or one if bytes are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes follow its last field", len(r.rest))
	}
	return r.err
}

// A writer is the reader's counterpart, with the same bounds: what it refuses a reader would have refused.
type writer struct {
	out []byte
	err error
}

func (w *writer) opaque8(name string, field []byte, lo, hi int)  { w.opaque(name, 1, field, lo, hi) }
func (w *writer) opaque16(name string, field []byte, lo, hi int) { w.opaque(name, 2, field, lo, hi) }

func (w *writer) opaque(name string, prefix int, field []byte, lo, hi int) {
	if n := len(field); w.err == nil && (n < lo || n > hi) {
		w.err = fmt.Errorf("the field %q has %d bytes, outside %d to %d", name, n, lo, hi)
	}
	if prefix == 1 {
		w.out = append(w.out, byte(len(field)))
	} else {
		w.out = binary.BigEndian.AppendUint16(w.out, uint16(len(field)))
	}
	w.out = append(w.out, field...)
}

// bytes gives the result, or the first error.
func (w *writer) bytes() ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	return w.out, nil
}
