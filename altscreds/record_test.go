package altscreds

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/iotest"
)

// wire is a connection that reads from one place and writes to another.
type wire struct {
	net.Conn
	io.Reader
	io.Writer
}

func (w wire) Read(b []byte) (int, error)  { return w.Reader.Read(b) }
func (w wire) Write(b []byte) (int, error) { return w.Writer.Write(b) }

var testKey = func() []byte {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}()

// sealed returns the frames, one for each message, that one side sends.
func sealed(t testing.TB, client bool, messages ...[]byte) (frames [][]byte) {
	t.Helper()
	var out bytes.Buffer
	r, err := newRecord(wire{Writer: &out}, client, testKey, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		out.Reset()
		if _, err := r.Write(m); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, bytes.Clone(out.Bytes()))
	}
	return frames
}

// opened reads all that a server receives.
func opened(t testing.TB, in io.Reader) ([]byte, error) {
	t.Helper()
	r, err := newRecord(wire{Reader: in}, false, testKey, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(struct{ io.Reader }{r})
	if r.readBuf != nil {
		t.Error("the buffer is kept after the end")
	}
	return got, err
}

func TestDamage(t *testing.T) {
	frames := sealed(t, true, []byte("first"), []byte("second"), []byte("third"))
	if got, err := opened(t, bytes.NewReader(slices.Concat(frames...))); err != nil || string(got) != "firstsecondthird" {
		t.Fatalf("undamaged: %q, %v", got, err)
	}
	whole := slices.Concat(frames...)
	for bit := range 8 * len(whole) {
		damaged := bytes.Clone(whole)
		damaged[bit/8] ^= 1 << (bit % 8)
		for _, in := range []io.Reader{bytes.NewReader(damaged), iotest.OneByteReader(bytes.NewReader(damaged))} {
			got, err := opened(t, in)
			if err == nil || err == io.EOF {
				t.Fatalf("bit %d of byte %d: no error", bit%8, bit/8)
			}
			if !bytes.HasPrefix([]byte("firstsecond"), got) {
				t.Fatalf("bit %d of byte %d: read %q", bit%8, bit/8, got)
			}
		}
	}
	for n := range len(whole) {
		got, err := opened(t, bytes.NewReader(whole[:n]))
		atEnd := n == 0 || n == len(frames[0]) || n == len(frames[0])+len(frames[1])
		if atEnd != (err == nil) || !atEnd && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %q, %v", n, got, err)
		}
	}
	type order struct {
		name   string
		frames [][]byte
		want   string
	}
	for _, o := range []order{
		{"replayed", [][]byte{frames[0], frames[0]}, "first"},
		{"reordered", [][]byte{frames[1], frames[0]}, ""},
		{"one left out", [][]byte{frames[0], frames[2]}, "first"},
		{"reflected", sealed(t, false, []byte("first")), ""},
	} {
		got, err := opened(t, bytes.NewReader(slices.Concat(o.frames...)))
		if !errors.Is(err, errRecordAuth) || string(got) != o.want {
			t.Errorf("%s: %q, %v", o.name, got, err)
		}
	}
}

// TestEmptyFrames: frames without payload are let pass, but not without end.
func TestEmptyFrames(t *testing.T) {
	empty := func(n int) (frames []byte) {
		var s cipherState
		s.init(testKey, false)
		for range n {
			frame := make([]byte, overhead)
			if _, err := sealFrame(&s, frame, nil); err != nil {
				t.Fatal(err)
			}
			frames = append(frames, frame...)
		}
		return frames
	}
	if got, err := opened(t, bytes.NewReader(empty(maxEmptyFrames))); err != nil || len(got) != 0 {
		t.Errorf("%d empty frames: %q, %v", maxEmptyFrames, got, err)
	}
	if _, err := opened(t, bytes.NewReader(empty(maxEmptyFrames+1))); !errors.Is(err, errRecordEmpty) {
		t.Errorf("one more: %v", err)
	}
}

// failing fails after some bytes.
type failing struct{ left int }

func (f *failing) Write(b []byte) (int, error) {
	n := min(len(b), f.left)
	if f.left -= n; n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// TestWriteError: after part of a frame may have left, nothing may follow.
func TestWriteError(t *testing.T) {
	f := &failing{10}
	r, _ := newRecord(wire{Writer: f}, true, testKey, 0, nil)
	for range 2 {
		if n, err := r.Write([]byte("x")); n != 0 || err != io.ErrShortWrite {
			t.Errorf("Write: %d, %v", n, err)
		}
		f.left = 1 << 20
	}
	if f.left != 1<<20 {
		t.Error("something was written after an error")
	}
}

// FuzzRecord gives a reader arbitrary bytes after honest ones: it returns the honest ones, and then an error.
func FuzzRecord(f *testing.F) {
	honest := sealed(f, true, []byte("honest"))[0]
	f.Add([]byte{}, 1)
	f.Add(honest, 3)
	f.Add([]byte("salt\x01\x01\x04\xd0"), 100)
	f.Add(bytes.Repeat([]byte{20, 0, 0, 0, 6, 0, 0, 0}, 10), 7)
	f.Fuzz(func(t *testing.T, tail []byte, size int) {
		in := slices.Concat(honest, tail)
		r, err := newRecord(wire{Reader: bytes.NewReader(in)}, false, testKey, 0, in[:min(len(in), 5)])
		if err != nil {
			t.Fatal(err)
		}
		r.raw = wire{Reader: bytes.NewReader(in[min(len(in), 5):])}
		var got []byte
		b := make([]byte, 1+uint(size)%5000)
		for err == nil {
			var n int
			n, err = r.Read(b)
			got = append(got, b[:n]...)
		}
		if string(got) != "honest" {
			t.Errorf("read %q", got)
		}
		if _, again := r.Read(b); again != err {
			t.Errorf("%v, then %v", err, again)
		}
	})
}
