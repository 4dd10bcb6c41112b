package httpfwd

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

var alice = &altscreds.Peer{Account: "alice@alpha.example.com", User: "alice", Machine: "alpha.example.com",
	Attributes: map[string]string{"uid": "40001", "groups": "hpc%20users,staff", "socket": "blue"}}

// identity is what the backend is told of alice.
var identity = map[string]string{"Altsd-Peer": "alice@alpha.example.com", "Altsd-Peer-User": "alice",
	"Altsd-Peer-Machine": "alpha.example.com", "Altsd-Peer-Uid": "40001", "Altsd-Peer-Groups": "hpc%20users,staff", "Altsd-Peer-Socket": "blue", "Altsd-Handshake": "0123456789abcdef", "Altsd-Service": "web"}

func caller(protocol string) Caller {
	return Caller{Peer: alice, Protocol: protocol, Handshake: "0123456789abcdef"}
}

// serving runs a backend of the standard library's at a UNIX socket, HTTP/1.1 and HTTP/2, and returns its path.
func serving(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(testprog.Dir(t), "backend")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: p}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return path
}

func dialUNIX(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
}

// forwarding returns a server of `listen --http` before a backend.
func forwarding(t *testing.T, path string, times Times) *Server {
	t.Helper()
	s := New(Config{Service: "web", Dial: dialUNIX(path), Times: times})
	t.Cleanup(func() { s.Close() })
	return s
}

// An ended is a connection that tells how it was closed.
type ended struct {
	*net.TCPConn
	clean atomic.Bool
}

func (e *ended) CloseWrite() error {
	e.clean.Store(true)
	return e.TCPConn.CloseWrite()
}

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (peer *net.TCPConn, served *ended) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	c.SetDeadline(time.Now().Add(testprog.Patience))
	return c.(*net.TCPConn), &ended{TCPConn: s.(*net.TCPConn)}
}

// connected returns the peer's end of a connection that the server serves for alice; done is closed when it is no more.
func connected(t *testing.T, s *Server, protocol string) (peer *net.TCPConn, served *ended, done <-chan struct{}) {
	t.Helper()
	peer, served = pair(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.ServeConn(context.Background(), served, caller(protocol))
	}()
	return peer, served, over
}

// http2Client returns a client of HTTP/2 over one connection.
func http2Client(t *testing.T, c net.Conn) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testprog.Patience}
}

// ask writes a request as it stands and returns the answer.
func ask(t *testing.T, c net.Conn, request string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("the answer to %q: %v", request, err)
	}
	return r
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(testprog.Patience):
		t.Fatalf("%s does not happen", what)
	}
}
