// Package splitter has a relay of TCP connections for tests, which cuts what passes into small segments and can show
// it.
package splitter

import (
	"io"
	"net"
	"testing"
)

// Start relays connections to addr until the test ends, and gives the loopback address to connect to instead. It reads
// and writes at most size bytes at a time. watch, if not nil, is called for each connection; what it returns is given
// all that the client and the server send, before it is sent on, and an error of either ends that direction.
func Start(t testing.TB, addr string, size int, watch func() (client, server io.Writer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if watch == nil {
		watch = func() (client, server io.Writer) { return io.Discard, io.Discard }
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				continue
			}
			client, server := watch()
			go relay(b, a, client, size)
			go relay(a, b, server, size)
		}
	}()
	return l.Addr().String()
}

func relay(to, from net.Conn, shown io.Writer, size int) {
	defer to.Close()
	buf := make([]byte, size)
	for {
		n, err := from.Read(buf)
		if n > 0 { // Go sets TCP_NODELAY
			if _, err := shown.Write(buf[:n]); err != nil {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
