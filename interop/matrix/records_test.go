package matrix

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/splitter"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// keyFrames is how many frames of one direction have the same key.
const keyFrames = 1 << 16

// A frameCounter counts the frames of one direction of a connection that is written to it.
type frameCounter struct {
	header []byte // of the frame that has begun
	skip   int    // bytes of its body still to come

	mu      sync.Mutex
	records int
	err     error
}

// Write fails at anything but handshake frames (docs/spec/protocol.md, section 3) and record frames, whose headers are both
// of 8 bytes.
func (c *frameCounter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if c.skip > 0 {
			n := min(c.skip, len(rest))
			rest, c.skip = rest[n:], c.skip-n
			continue
		}
		n := min(8-len(c.header), len(rest))
		c.header, rest = append(c.header, rest[:n]...), rest[n:]
		if len(c.header) < 8 {
			break
		}
		if err := c.begin(); err != nil {
			return 0, err
		}
		c.header = c.header[:0]
	}
	return len(b), nil
}

// begin takes a whole header.
func (c *frameCounter) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if string(c.header[:4]) == "salt" && c.records == 0 {
		c.skip = int(binary.BigEndian.Uint16(c.header[6:]))
		return nil
	}
	length, kind := binary.LittleEndian.Uint32(c.header), binary.LittleEndian.Uint32(c.header[4:])
	if length < 4+16 || length > 1<<20 || kind != 6 {
		c.err = fmt.Errorf("after %d record frames, the header of none: %x", c.records, c.header)
		return c.err
	}
	c.records++
	c.skip = int(length) - 4
	return nil
}

func (c *frameCounter) count(t *testing.T) int {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c.records
}

// TestRecordsWithCPP: altscreds and stock C++ understand each other's frames, for messages of all sizes both ways at
// once, in segments of 16 bytes, and over the change of keys in both directions.
func TestRecordsWithCPP(t *testing.T) {
	w := theWorld(t)
	own := goOwn
	own.need(t, w)
	cpp.need(t, w)
	large, small, fewer := echoDigest(24, 8<<20), echoDigest(4096, 32<<10), echoDigest(16, 64<<10)
	for _, pair := range [][2]*kind{{own, cpp}, {cpp, own}} {
		t.Run(pair[0].name+" to "+pair[1].name, func(t *testing.T) {
			t.Parallel()
			server := serverOf(t, w, pair[1])
			echo := func(c *testprog.Talker, n, largest int, digest string) {
				t.Helper()
				if got := c.Ask(fmt.Sprint("echo ", n, " ", largest)); got != "ok "+digest {
					t.Fatalf("%d messages of up to %d bytes: %q, not digest %s", n, largest, got, digest)
				}
			}

			connections := make(chan [2]*frameCounter, 16)
			watched := splitter.Start(t, server, 128<<10, func() (client, server io.Writer) {
				counters := [2]*frameCounter{new(frameCounter), new(frameCounter)}
				connections <- counters
				return counters[0], counters[1]
			})
			c := clientOf(t, w, pair[0], w.alpha, watched, w.server.on(w.beta))
			echo(c, 24, 8<<20, large)
			var counters [2]*frameCounter
			for len(connections) > 0 { // the last: gRPC 1.51 may take the first for failed (cpp/peer.cc)
				counters = <-connections
			}
			for _, counter := range counters {
				for counter.count(t) < keyFrames+1000 {
					echo(c, 4096, 32<<10, small)
					if len(connections) > 0 {
						t.Fatal("the client has made another connection, so that the frames are not all of one")
					}
				}
			}
			echo(c, 24, 8<<20, large)

			c = clientOf(t, w, pair[0], w.alpha, splitter.Start(t, server, 16, nil), w.server.on(w.beta))
			echo(c, 16, 64<<10, fewer)
		})
	}
}
