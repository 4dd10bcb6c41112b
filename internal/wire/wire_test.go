package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// What is written is read back, to the last byte, and the bytes are the ones of the format.
func TestRoundTrip(t *testing.T) {
	var w Writer
	w.U8(7)
	w.Put("fixed", []byte("abc"), 3)
	w.Opaque8("short", []byte("de"), 0, 255)
	w.Opaque16("long", bytes.Repeat([]byte("f"), 0x102), 1, 0xffff)
	w.Opaque16("empty", nil, 0, 1)
	w.U32(0x01020304)
	b, err := w.Bytes()
	if want := "\x07abc\x02de\x01\x02" + strings.Repeat("f", 0x102) + "\x00\x00\x01\x02\x03\x04"; err != nil || string(b) != want {
		t.Fatalf("wrote %q, %v", b, err)
	}
	r := NewReader(b)
	if n := r.U8("u8"); n != 7 {
		t.Errorf("read %d", n)
	}
	for name, got := range map[string][]byte{"abc": r.Take("fixed", 3), "de": r.Opaque8("short", 0, 255)} {
		if string(got) != name || cap(got) != len(got) || &got[0] != &b[strings.Index(string(b), name)] {
			t.Errorf("read %q with the capacity %d, want %q of the input itself", got, cap(got), name)
		}
	}
	if f := r.Opaque16("long", 1, 0xffff); len(f) != 0x102 || cap(f) != len(f) {
		t.Errorf("read %d bytes with the capacity %d", len(f), cap(f))
	}
	if f := r.Opaque16("empty", 0, 1); len(f) != 0 || r.Len() != 4 {
		t.Errorf("read %q, %d bytes are left", f, r.Len())
	}
	if n := r.U32("u32"); n != 0x01020304 || r.Err() != nil || r.End() != nil {
		t.Errorf("read %x, %v", n, r.Err())
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		in   string
		read func(*Reader)
		want string
	}{
		{"ab", func(r *Reader) { r.Take("x", 3) }, `it ends inside the field "x"`},
		{"", func(r *Reader) { r.U8("x") }, `it ends inside the field "x"`},
		{"abc", func(r *Reader) { r.U32("x") }, `it ends inside the field "x"`},
		{"", func(r *Reader) { r.Opaque8("x", 0, 255) }, `it ends inside the field "x"`},
		{"\x00", func(r *Reader) { r.Opaque16("x", 0, 9) }, `it ends inside the field "x"`},
		{"\x02a", func(r *Reader) { r.Opaque8("x", 0, 2) }, `it ends inside the field "x"`},
		{"\x00", func(r *Reader) { r.Opaque8("x", 1, 2) }, `the field "x" has 0 bytes, it must have 1 to 2`},
		{"\x03abc", func(r *Reader) { r.Opaque8("x", 1, 2) }, `the field "x" has 3 bytes, it must have 1 to 2`},
		// The length alone is judged, before what stands behind it.
		{"\xff\xff", func(r *Reader) { r.Opaque16("x", 0, 4096) }, `the field "x" has 65535 bytes, it must have 0 to 4096`},
		{"abc", func(r *Reader) { r.U8("x") }, "2 bytes follow its last field"},
		{"", func(r *Reader) { r.Fail(errors.New("not that")) }, "not that"},
	} {
		r := NewReader([]byte(c.in))
		c.read(r)
		err := r.End()
		if err == nil || err.Error() != c.want || r.Err() != err {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
		// The first error stands, and nothing is read any more.
		r.Fail(errors.New("later"))
		if r.Take("y", 0) != nil || r.U8("y") != 0 || r.U32("y") != 0 || r.Opaque8("y", 0, 9) != nil ||
			r.Opaque16("y", 1, 9) != nil || r.End() != err {
			t.Errorf("%q: after the error something was read, or it became %v", c.in, r.Err())
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		write func(*Writer)
		want  string
	}{
		{func(w *Writer) { w.Put("x", []byte("ab"), 3) }, `the field "x" has 2 bytes, it must have 3 to 3`},
		{func(w *Writer) { w.Opaque8("x", nil, 1, 255) }, `the field "x" has 0 bytes, it must have 1 to 255`},
		{func(w *Writer) { w.Opaque8("x", make([]byte, 256), 0, 255) }, `the field "x" has 256 bytes, it must have 0 to 255`},
		{func(w *Writer) { w.Opaque16("x", make([]byte, 10), 0, 9) }, `the field "x" has 10 bytes, it must have 0 to 9`},
	} {
		var w Writer
		c.write(&w)
		w.Opaque8("y", nil, 1, 1) // the first error stands
		if b, err := w.Bytes(); b != nil || err == nil || err.Error() != c.want {
			t.Errorf("%q, %v, want %q", b, err, c.want)
		}
	}
}

// Whatever comes, in whatever order it is read, the fields are parts of the input, one behind the other and in their
// bounds, and written out again they are the input.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 3, 2, 9, 1, 4}, []byte("\x07\x02ab\x00\x01c\x00\x00\x00\x01z"))
	f.Add([]byte{3, 0, 4, 1}, []byte("\x00"))
	f.Add([]byte{4, 2}, []byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, script, in []byte) {
		r, read := NewReader(in), 0
		var w Writer
		for _, op := range script {
			before := r.Len()
			lo, hi := int(op>>3)%5, int(op>>3)
			var field []byte
			switch op % 5 {
			case 0:
				w.U8(r.U8("u8"))
			case 1:
				w.U32(r.U32("u32"))
			case 2:
				field = r.Take("fixed", hi)
				w.Put("fixed", field, hi)
			case 3:
				field = r.Opaque8("opaque8", lo, hi)
				w.Opaque8("opaque8", field, lo, hi)
			case 4:
				field = r.Opaque16("opaque16", lo, hi)
				w.Opaque16("opaque16", field, lo, hi)
			}
			if r.Err() != nil {
				if field != nil || r.Take("more", 0) != nil {
					t.Fatal("something was read after an error")
				}
				return
			}
			read += before - r.Len()
			if cap(field) != len(field) || op%5 > 2 && (len(field) < lo || len(field) > hi) ||
				!bytes.Equal(field, in[read-len(field):read]) && op%5 > 1 {
				t.Fatalf("%q with the capacity %d, after %d bytes of %q", field, cap(field), read, in)
			}
		}
		if out, err := w.Bytes(); err != nil || !bytes.Equal(out, in[:read]) {
			t.Fatalf("%q came back as %q, %v", in[:read], out, err)
		}
		if (r.End() == nil) != (read == len(in)) {
			t.Fatalf("%v with %d of %d bytes read", r.Err(), read, len(in))
		}
	})
}
