package localgrpc

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Each PING is answered by its own bytes, in its turn, one alone too.
func TestPingsAreAnswered(t *testing.T) {
	c := startServer(t, nil).dial(t)
	var got, want []byte
	for n := byte(1); n <= 7; n++ {
		want = append(want, n)
		c.fr.WritePing(false, [8]byte{n})
		if n%3 == 0 {
			continue // with the next
		}
		for len(got) < len(want) && (n < 4 || n == 7) {
			f, err := c.fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
				got = append(got, p.Data[0])
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("answers to %v, want %v", got, want)
	}
}

// A pingCounter counts the PINGs that its client sends.
type pingCounter struct {
	net.Conn
	mu    sync.Mutex
	bytes []byte
}

func (c *pingCounter) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.bytes = append(c.bytes, b...)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *pingCounter) pings() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := c.bytes[len(http2.ClientPreface):]
	for len(frames) >= 9 {
		if http2.FrameType(frames[3]) == http2.FramePing && frames[4] == 0 {
			n++
		}
		frames = frames[min(len(frames), 9+int(frames[0])<<16+int(frames[1])<<8+int(frames[2])):]
	}
	return n
}

// A stock client, which sends a PING with DATA that it received, sends few of them.
func TestStockClientSendsFewPings(t *testing.T) {
	s := startServer(t, nil)
	counter := new(pingCounter)
	conn, err := grpc.NewClient("passthrough:///echo", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			counter.Conn = s.dialRaw(t)
			return counter, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const calls = 300
	began := time.Now()
	for range calls {
		if err := conn.Invoke(t.Context(), echoPath, wrapperspb.Bytes([]byte("x")), new(wrapperspb.BytesValue)); err != nil {
			t.Fatal(err)
		}
	}
	most := int(time.Since(began)/pingDelay) + 1
	if n := counter.pings(); n == 0 || n > most {
		t.Errorf("%d PINGs for %d calls, want 1 to %d", n, calls, most)
	}
}
