package httpfwd

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// looking returns a way into `connect --http`: each connection's end, and how many connections were made to the peer, which is
// a backend here.
func looking(t *testing.T, path string) (connect func() net.Conn, dialled *atomic.Int32) {
	t.Helper()
	l := NewLocal(LocalConfig{Hosts: []string{"127.0.0.1", "::1", "localhost", "beta.example.com"}})
	t.Cleanup(func() { l.Close() })
	dialled = new(atomic.Int32)
	return func() net.Conn {
		here, served := pair(t)
		go l.ServeConn(context.Background(), served, func(ctx context.Context) (net.Conn, error) {
			dialled.Add(1)
			return dialUNIX(path)(ctx)
		})
		return here
	}, dialled
}

func tellHost(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }

// A browser of the right uid that somebody's page has led here reaches nobody.
func TestRule55ConnectHost(t *testing.T) {
	connect, dialled := looking(t, serving(t, http.HandlerFunc(tellHost)))
	for _, row := range []struct {
		method, headers string
		status          int
	}{
		{"GET", "Host: 127.0.0.1:8080\r\n", 200},
		{"GET", "Host: localhost\r\n", 200},
		{"GET", "Host: LOCALHOST:9\r\n", 200},
		{"GET", "Host: [::1]:8080\r\n", 200},
		{"GET", "Host: [::1]\r\n", 200},
		{"GET", "Host: Beta.example.com:8080\r\n", 200},
		{"GET", "Host: evil.example\r\n", 421},
		{"GET", "Host: localhost.evil.example:8080\r\n", 421},
		{"GET", "Host: evil-localhost\r\n", 421},
		{"GET", "Host: 127.0.0.2\r\n", 421},
		{"GET", "Host: localhost:8080:8080\r\n", 421},
		{"GET", "Host:\r\n", 421},
		{"POST", "Host: localhost\r\nOrigin: http://localhost\r\nContent-Length: 0\r\n", 200},
		{"POST", "Host: localhost:80\r\nOrigin: http://localhost:80\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n", 200},
		{"POST", "Host: localhost\r\nOrigin: http://localhost:9999\r\nContent-Length: 0\r\n", 403},
		{"POST", "Host: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n", 403},
		{"POST", "Host: localhost\r\nOrigin: null\r\nContent-Length: 0\r\n", 403},
		{"POST", "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n", 403},
		{"POST", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n", 403},
		{"POST", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nContent-Length: 0\r\n", 403},
		{"GET", "Host: localhost\r\nSec-Fetch-Site: none\r\n", 200},
		{"GET", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", 200},
		{"GET", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", 403},
		{"GET", "Host: localhost\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", 403},
		{"GET", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Site: none\r\n", 403},
		{"GET", "Host: localhost\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 403},
		{"CONNECT", "Host: localhost\r\n", 501},
	} {
		before := dialled.Load()
		target := "/"
		if row.method == "CONNECT" {
			target = "localhost:22"
		}
		answer := ask(t, connect(), row.method+" "+target+" HTTP/1.1\r\n"+row.headers+"\r\n")
		if answer.StatusCode != row.status {
			t.Errorf("%s %q: %s", row.method, row.headers, answer.Status)
		}
		if made := dialled.Load() - before; (made == 1) != (row.status == 200) {
			t.Errorf("%s %q: %d connections to the peer", row.method, row.headers, made)
		}
	}
}

// Every request of a connection is looked at, in both versions of HTTP, and those that pass share one connection to the peer.
func TestRule55ConnectEachRequest(t *testing.T) {
	connect, dialled := looking(t, serving(t, http.HandlerFunc(tellHost)))
	c := connect()
	back := bufio.NewReader(c)
	for _, row := range []struct {
		target, host string
		status       int
	}{
		{"/", "localhost", 200},
		{"/", "evil.example", 421},
		{"/", "localhost", 200},
		{"http://evil.example/", "localhost", 421},
		{"http://localhost/", "evil.example", 200},
	} {
		if _, err := io.WriteString(c, "GET "+row.target+" HTTP/1.1\r\nHost: "+row.host+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(back, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, answer); answer.StatusCode != row.status || row.status == 200 && got != "localhost" {
			t.Errorf("%+v: %s %q", row, answer.Status, got)
		}
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections to the peer", n)
	}
	client := http2Client(t, connect())
	for host, status := range map[string]int{"localhost": 200, "evil.example": 421, "127.0.0.1": 200} {
		r, err := http.NewRequest("GET", "http://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, answer); answer.StatusCode != status || status == 421 && strings.Contains(got, host) {
			t.Errorf("%s by HTTP/2: %s %q", host, answer.Status, got)
		}
	}
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d connections to the peer", n)
	}
}
