package altscreds

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The chunks of altsd-tcp/1, which run over the bytes that the records protect, wherever one of those ends. A chunk is
//
//	length  4 bytes, big-endian: of what follows; 0 is the end of this direction
//	data
const (
	chunkHeader = 4
	maxChunk    = 1 << 20
)

var (
	errCut = fmt.Errorf("altscreds: the connection was cut: the peer did not say that it has ended, so that its program, "+
		"its machine or something on the way was stopped: %w", io.ErrUnexpectedEOF)
	errAfterEnd = errors.New("altscreds: the peer sent something after its end: it is faulty")
)

// chunkReader finds the data in a sequence of chunks that comes in any segmentation.
type chunkReader struct {
	left  int // of the data of the chunk begun
	ended bool
	head  [chunkHeader]byte
	got   int // of head
}

// skip takes headers off the beginning of b until there is data, b is at its end, or the peer's direction is. It returns
// how many bytes it took; c.left is then how many of those that follow are data.
func (c *chunkReader) skip(b []byte) (n int, err error) {
	for c.left == 0 && n < len(b) {
		if c.ended {
			return n, errAfterEnd
		}
		m := copy(c.head[c.got:], b[n:])
		n += m
		if c.got += m; c.got < chunkHeader {
			break
		}
		c.got = 0
		length := binary.BigEndian.Uint32(c.head[:])
		if length > maxChunk {
			return n, fmt.Errorf("altscreds: a chunk of %d bytes is over the limit of %d: the peer does not speak %s", length,
				maxChunk, servicePrefix[:len(servicePrefix)-1])
		}
		c.left, c.ended = int(length), length == 0
	}
	return n, nil
}
