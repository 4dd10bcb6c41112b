// Package testnet has the connections over loopback that tests of several packages need.
package testnet

import (
	"net"
	"testing"
)

// Pair returns both ends of a TCP connection over loopback (IPv4), which are closed when the test ends.
func Pair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// Segments is a connection that reads and writes at most Size bytes at a time.
type Segments struct {
	net.Conn
	Size int
}

// Write writes all of b, in pieces.
func (s Segments) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = s.Conn.Write(b[n:min(n+s.Size, len(b))])
		n += m
	}
	return n, err
}

// Read reads one piece at most.
func (s Segments) Read(b []byte) (int, error) { return s.Conn.Read(b[:min(s.Size, len(b))]) }
