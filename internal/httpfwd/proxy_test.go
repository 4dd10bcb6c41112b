package httpfwd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// echo answers each piece of a body as it comes, and tells in a trailer that it has ended.
func echo(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	c.EnableFullDuplex()
	w.Header().Set("Trailer", "Outcome")
	w.WriteHeader(http.StatusOK)
	c.Flush()
	for b := make([]byte, 64<<10); ; {
		n, err := r.Body.Read(b)
		w.Write(b[:n])
		c.Flush()
		if err != nil {
			w.Header().Set("Outcome", fmt.Sprint(err, " ", r.Trailer.Get("Sum")))
			w.Header().Set(http.TrailerPrefix+"Altsd-Kept", "yes")
			return
		}
	}
}

// A stream in both directions: each piece is back before the next is sent, and the trailers come at the end of either.
func TestStreams(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(echo)), Times{})
	for _, kind := range []string{"HTTP/1.1", "altsd-tcp/1:web", "grpc"} {
		protocol := strings.Replace(kind, "HTTP/1.1", "altsd-tcp/1:web", 1)
		peer, _, _ := connected(t, s, protocol)
		client := http2Client(t, peer)
		if kind == "HTTP/1.1" {
			dial := func(context.Context, string, string) (net.Conn, error) { return peer, nil }
			client = &http.Client{Transport: &http.Transport{DialContext: dial}}
		}
		in, out := io.Pipe()
		r, err := http.NewRequest("POST", "http://x/", in)
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"Sum": nil}
		begun := make(chan error, 1)
		var answer *http.Response
		go func() {
			var err error
			answer, err = client.Do(r)
			begun <- err
		}()
		if err := <-begun; err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		back := bufio.NewReader(answer.Body)
		for i := range 20 {
			piece := strings.Repeat(fmt.Sprint(i), 1+i*1000) + "\n"
			if _, err := io.WriteString(out, piece); err != nil {
				t.Fatal(err)
			}
			if got, err := back.ReadString('\n'); err != nil || got != piece {
				t.Fatalf("%s, piece %d: %d bytes, %v", kind, i, len(got), err)
			}
		}
		r.Trailer["Sum"] = []string{"42"}
		out.Close()
		if rest, err := io.ReadAll(back); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q %v", kind, rest, err)
		}
		if answer.Trailer.Get("Outcome") != "EOF 42" || answer.Trailer.Get("Altsd-Kept") != "yes" {
			t.Errorf("%s: trailers %q", kind, answer.Trailer)
		}
	}
}

// Over the protocol "grpc" anybody on the way can feign an end, so nothing is served that tells none of its own.
func TestRule55Protocols(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("served") })), Times{})
	peer, _, done := connected(t, s, "grpc")
	io.WriteString(peer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, _ := io.ReadAll(peer); len(got) > 0 {
		t.Errorf("HTTP/1.1 over grpc: %q", got)
	}
	peer.Close()
	wait(t, "the end", done)
	for _, c := range []Caller{{Peer: alice, Protocol: "ssh"}, {Peer: alice}, {Protocol: "altsd-tcp/1:web"}} {
		_, served := pair(t)
		if r := s.ServeConn(t.Context(), served, c); r.Err == nil || r.In > 0 {
			t.Errorf("%+v is served", c)
		}
	}
}

// upgrading is a backend that takes every Upgrade, and sends back what comes then.
func upgrading(w http.ResponseWriter, r *http.Request) {
	if err := told(r.Header); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	rw.Flush()
	io.Copy(c, rw)
}

func TestRule55Upgrade(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(upgrading)), Times{})
	for _, row := range []struct {
		request string
		status  int
	}{
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 101},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nAltsd_Peer: root\r\n", 101},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", 501},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n", 501},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", 501},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n", 501},
		{"CONNECT beta:22 HTTP/1.1\r\nHost: beta:22\r\n", 501},
	} {
		peer, _, _ := connected(t, s, "altsd-tcp/1:web")
		if _, err := io.WriteString(peer, row.request+"\r\n"); err != nil {
			t.Fatal(err)
		}
		back := bufio.NewReader(peer)
		answer, err := http.ReadResponse(back, nil)
		if err != nil || answer.StatusCode != row.status {
			t.Errorf("%q: %v %v", row.request, answer, err)
			continue
		}
		if row.status == 101 {
			io.WriteString(peer, "hello\n")
			if got, err := back.ReadString('\n'); got != "hello\n" {
				t.Errorf("%q: %q %v", row.request, got, err)
			}
		}
	}
}

// What a gRPC library and what a person sees when the backend is away.
func TestBackendAway(t *testing.T) {
	s := New(Config{Service: "web", Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("secret path") }})
	t.Cleanup(func() { s.Close() })
	peer, _, _ := connected(t, s, "altsd-tcp/1:web")
	answer := ask(t, peer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	text := body(t, answer)
	if answer.StatusCode != http.StatusBadGateway || !strings.Contains(text, "does not answer") || strings.Contains(text, "secret") {
		t.Errorf("%d %q", answer.StatusCode, text)
	}
	peer, _, _ = connected(t, s, "grpc")
	r, err := http.NewRequest("POST", "http://x/a.B/C", strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc+proto")
	answer, err = http2Client(t, peer).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if text := body(t, answer); answer.StatusCode != http.StatusOK || answer.Header.Get("Grpc-Status") != "14" || text != "" ||
		answer.Header.Get("Content-Type") != "application/grpc" {
		t.Errorf("%d %q %q", answer.StatusCode, answer.Header, text)
	}
}

// An end is clean between two requests alone.
func TestRule55Ends(t *testing.T) {
	release := make(chan struct{})
	s := forwarding(t, serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/broken":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/long":
			http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})), Times{})
	defer close(release)
	for _, row := range []struct {
		request string
		clean   bool
	}{
		{"", true},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true},
		{"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", false},
		{"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", false},
	} {
		peer, served := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var result Result
		go func() {
			defer close(done)
			result = s.ServeConn(ctx, served, caller("altsd-tcp/1:web"))
		}()
		if row.request != "" {
			answer := ask(t, peer, row.request)
			if !strings.Contains(row.request, "/long") {
				io.Copy(io.Discard, answer.Body)
			}
		}
		switch {
		case strings.Contains(row.request, "/long"):
			cancel()
		case !strings.Contains(row.request, "broken"):
			peer.CloseWrite()
		}
		wait(t, "the end", done)
		if served.clean.Load() != row.clean || (result.Err == nil) != row.clean || result.In != int64(len(row.request)) ||
			(result.Out > 0) != (row.request != "") {
			t.Errorf("%q: clean %v, %+v", row.request, served.clean.Load(), result)
		}
		cancel()
	}
}

// A peer that says nothing, stops within its headers, does not take its answer, or sends headers without end, is ended.
func TestBounds(t *testing.T) {
	const moment = 50 * time.Millisecond
	soon := Times{Header: moment, Idle: moment, Write: moment, Linger: moment, Ping: moment}
	path := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1<<20); r.URL.Path == "/endless"; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	s := forwarding(t, path, soon)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for what, request := range map[string]string{
		"silent":                           "",
		"half a line":                      "GET / HT",
		"half a header":                    "GET / HTTP/1.1\r\nHost",
		"half a preface":                   preface[:15],
		"idle":                             "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"does not read":                    "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
		"no answer to a ping, no requests": preface,
	} {
		peer, _, done := connected(t, s, "altsd-tcp/1:web")
		if _, err := io.WriteString(peer, request); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(testprog.Patience):
			t.Errorf("%s: it is not ended", what)
		}
	}
	peer, _, _ := connected(t, forwarding(t, path, Times{}), "altsd-tcp/1:web")
	go fmt.Fprintf(peer, "GET / HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n", strings.Repeat("a", 1<<20))
	answer, err := http.ReadResponse(bufio.NewReader(peer), nil)
	if err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v %v", answer, err)
	}
}

// What an account has under way is bounded over all of its connections.
func TestRequestsUnderWay(t *testing.T) {
	release := make(chan struct{})
	s := forwarding(t, serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-release
	})), Times{})
	const streams = 64
	got := map[int]int{}
	var last *http.Client
	for n := range maxOfAccount + streams {
		if n%streams == 0 {
			peer, _, _ := connected(t, s, "altsd-tcp/1:web")
			last = http2Client(t, peer)
		}
		answer, err := last.Get("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		got[answer.StatusCode]++
		t.Cleanup(func() { answer.Body.Close() })
	}
	if got[http.StatusOK] != maxOfAccount || got[http.StatusServiceUnavailable] != streams {
		t.Errorf("%v", got)
	}
	close(release)
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if answer, err := last.Get("http://x/"); err == nil && answer.StatusCode == http.StatusOK {
			answer.Body.Close()
			break
		}
		if time.Since(begin) > testprog.Patience {
			t.Fatal("there is no place again")
		}
	}
}

// An answer of headers alone stays one: gRPC's libraries find no status in headers that an end follows.
func TestTrailersOnly(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "9")
	})), Times{})
	peer, _, _ := connected(t, s, "grpc")
	io.WriteString(peer, http2.ClientPreface)
	f := http2.NewFramer(peer, peer)
	f.WriteSettings()
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	for round := range uint32(300) {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/a.B/C"}, {":authority", "x"}} {
			fields.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		id := 2*round + 1
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if frame.Header().StreamID != id {
				continue
			}
			if headers, ok := frame.(*http2.HeadersFrame); !ok || !headers.StreamEnded() {
				t.Fatalf("round %d: %v", round, frame)
			}
			break
		}
	}
}

// What one peer does not read keeps no other waiting, and a body is asked for only by who wants it.
func TestNobodyWaits(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			for b := make([]byte, 1<<20); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})), Times{})
	for range 20 {
		lazy, _, _ := connected(t, s, "altsd-tcp/1:web")
		r, err := http.NewRequest("GET", "http://x/endless", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http2Client(t, lazy).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
	}
	peer, _, _ := connected(t, s, "altsd-tcp/1:web")
	const size = 8 << 20
	_, err := fmt.Fprintf(peer, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", size)
	if err != nil {
		t.Fatal(err)
	}
	back := bufio.NewReader(peer)
	if line, err := back.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	if _, err := back.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	go peer.Write(make([]byte, size))
	answer, err := http.ReadResponse(back, nil)
	if err != nil || body(t, answer) != fmt.Sprint(size, nil) {
		t.Errorf("%v %v", answer, err)
	}
}

// Requests under way end before the stop, and none begin after it.
func TestShutdown(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	path := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		<-release
		io.WriteString(w, "whole")
	}))
	quick := DefaultTimes
	quick.Linger = 10 * time.Millisecond
	s := forwarding(t, path, quick)
	peer, _, done := connected(t, s, "altsd-tcp/1:web")
	if _, err := io.WriteString(peer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the request", inside)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	for {
		_, late := pair(t)
		if r := s.ServeConn(t.Context(), late, caller("grpc")); errors.Is(r.Err, http.ErrServerClosed) {
			break
		}
	}
	close(release)
	answer, err := http.ReadResponse(bufio.NewReader(peer), nil)
	if err != nil || body(t, answer) != "whole" {
		t.Errorf("%v %v", answer, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	peer.Close()
	wait(t, "the end", done)
}

// A backend that cannot do what a request needs, or is another one than at the last request, is looked at again each time.
func TestEachConnectIsLookedAt(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, "backend")
	allowed := true
	s := New(Config{Service: "web", Dial: func(ctx context.Context) (net.Conn, error) {
		if !allowed {
			return nil, errors.New("another account listens")
		}
		return dialUNIX(path)(ctx)
	}})
	t.Cleanup(func() { s.Close() })
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	backend := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go backend.Serve(l)
	t.Cleanup(func() { backend.Close() })
	peer, _, _ := connected(t, s, "altsd-tcp/1:web")
	if answer := ask(t, peer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); answer.StatusCode != http.StatusOK {
		t.Fatal(answer)
	}
	allowed = false
	if answer := ask(t, peer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); answer.StatusCode != http.StatusBadGateway {
		t.Error(answer)
	}
}
