package service

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// The age to which a connection is let live, with grpc's jitter and the grace, is at most 30 minutes.
func TestRule21Age(t *testing.T) {
	if age := connectionAge + connectionAge/10 + connectionGrace; age > 30*time.Minute {
		t.Errorf("a connection may live %v", age)
	}
	if connectionGrace < 2*handshakeTimeout {
		t.Error("a handshake could be cut by the age of its connection")
	}
}

// A connection that sends no HTTP/2 preface does not hold up the stop.
func TestShutdownWithSilentConnection(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for d.Snapshot().Connections == 0 {
		time.Sleep(time.Millisecond)
	}
	d.Shutdown(canceled())
	if n := d.Snapshot().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// A thousand idle applications, each with one handshake behind it, cost less than 40 MB.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const n, limit = 1000, 40 << 20
	d := startDaemon(t, "beta.test", Config{})
	var hdr bytes.Buffer
	enc := hpack.NewEncoder(&hdr)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", altspb.FullMethod},
		{":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "grpc-c/29"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	memory := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	for i := range n {
		c, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, http2.ClientPreface)
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hdr.Bytes(), EndStream: true,
			EndHeaders: true})
		for done := false; !done; { // until the stream's end
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			h, ok := f.(*http2.HeadersFrame)
			done = ok && h.StreamEnded()
		}
	}
	if got := d.Snapshot().Connections; got != n {
		t.Fatalf("%d connections", got)
	}
	cost := memory() - before
	t.Logf("%d idle connections: %.1f MB, both ends here", n, float64(cost)/(1<<20))
	if cost > limit {
		t.Errorf("%d idle connections cost %d bytes, more than %d", n, cost, limit)
	}
}
