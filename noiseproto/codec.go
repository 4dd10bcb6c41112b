package noiseproto

import (
	"encoding/binary"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A decoder reads a payload from its beginning. The first thing that breaks a bound is kept as err, and everything
// after it reads as empty, so that a caller may read all fields and look at err once, in end.
type decoder struct {
	b   []byte
	err error
}

// take gives the next n bytes.
func (d *decoder) take(what string, n int) []byte {
	if d.err != nil {
		return nil
	}
	if len(d.b) < n {
		d.err = reason.Errorf(reason.Malformed, "the peer's message ends inside its %s", what)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// opaque gives a field that stands behind its own length of size bytes (1 or 2), which must be from lo to hi.
func (d *decoder) opaque(what string, size, lo, hi int) []byte {
	n := 0
	for _, b := range d.take(what, size) {
		n = n<<8 | int(b)
	}
	if d.err == nil && (n < lo || n > hi) {
		d.err = reason.Errorf(reason.Malformed, "the peer's %s has %d bytes, it must have %d to %d", what, n, lo, hi)
	}
	return d.take(what, n)
}

func (d *decoder) u8(what string) int {
	if b := d.take(what, 1); b != nil {
		return int(b[0])
	}
	return 0
}

func (d *decoder) u32(what string) uint32 {
	if b := d.take(what, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// end gives the first error, or one if anything is left.
func (d *decoder) end(what string) error {
	if d.err == nil && len(d.b) > 0 {
		d.err = reason.Errorf(reason.Malformed, "%d bytes follow the end of the peer's %s", len(d.b), what)
	}
	return d.err
}

func appendOpaque8[T string | []byte](b []byte, v T) []byte {
	return append(append(b, byte(len(v))), v...)
}

func appendOpaque16(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}
