package altscreds

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFrameBounds(t *testing.T) {
	header := func(length, typ uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, length), typ)
	}
	held := 0
	defer CountBuffers(func(delta int) { held += delta })()
	for _, test := range []struct {
		name string
		in   []byte
		err  error
	}{
		{"no type", header(0, 6), errFrameTooShort},
		{"no tag", header(4+tagSize-1, 6), errFrameTooShort},
		{"over the limit", header(maxLength+1, 6), nil},
		{"a frame of the handshake", []byte("salt\x01\x01\x04\xd0"), nil},
		{"type 7", header(100, 7), nil},
		{"type 6 and more", header(100, 0x106), nil},
	} {
		_, err := opened(t, bytes.NewReader(test.in))
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || test.err != nil && !errors.Is(err, test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// The largest frame is taken, and a header that claims it buys only what one read needs.
	var s cipherState
	s.init(testKey, false)
	largest := make([]byte, lengthSize+maxLength)
	n, err := sealFrame(&s, largest, make([]byte, maxLength-4-tagSize))
	if err != nil || n != len(largest) {
		t.Fatal(n, err)
	}
	if got, err := opened(t, iotest.HalfReader(bytes.NewReader(largest))); err != nil || len(got) != maxLength-4-tagSize {
		t.Errorf("the largest frame: %d bytes, %v", len(got), err)
	}
	r, _ := newRecord(wire{Reader: iotest.TimeoutReader(io.MultiReader(bytes.NewReader(largest[:100]), blocked{}))},
		false, testKey, 0, nil)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a header alone: %v", err)
	}
	r.release()
	if held != 0 {
		t.Errorf("%d buffers are not returned", held)
	}
}

type blocked struct{}

func (blocked) Read([]byte) (int, error) { return 0, iotest.ErrTimeout }

// TestFrameSize: no frame is larger than the peer advertised, with its length field, and none larger than our own
// limit.
func TestFrameSize(t *testing.T) {
	for peerMax, want := range map[uint32]int{0: defaultFrame, 1: defaultFrame, 4096: 4096, 5000: 5000, 16384: sentFrame,
		1 << 20: sentFrame, 1<<32 - 1: sentFrame} {
		var out bytes.Buffer
		r, _ := newRecord(wire{Writer: &out}, true, testKey, peerMax, nil)
		message := make([]byte, 3*sentFrame)
		if n, err := r.Write(message); n != len(message) || err != nil {
			t.Fatal(n, err)
		}
		if first := lengthSize + int(binary.LittleEndian.Uint32(out.Bytes())); first != want {
			t.Errorf("towards %d the first frame has %d bytes, not %d", peerMax, first, want)
		}
		if got, err := opened(t, &out); err != nil || len(got) != len(message) {
			t.Errorf("towards %d: %d bytes, %v", peerMax, len(got), err)
		}
	}
}
