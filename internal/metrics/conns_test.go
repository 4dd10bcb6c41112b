package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// Rule 40: however many connections are held at the metrics, silent, idle or in the middle of a request, they take a few
// descriptors, and a scraper is answered.
func TestRule40MetricsConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New("v1", "a.test").Serve(ctx, l, func() State { return State{} }) }()
	descriptors := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := descriptors()
	const held = 200
	for i := range held {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 3 {
		case 0:
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") // then idle
		case 1:
			io.WriteString(c, "GET /metr")
		}
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 {
		resp, err := client.Get("http://" + l.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || len(b) == 0 {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		resp.Body.Close()
	}
	if n := descriptors() - before - held; n > maxConns+4 {
		t.Errorf("%d connections are open at the metrics, want %d at most", n, maxConns)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
