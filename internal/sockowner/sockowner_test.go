package sockowner

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

func TestLookup(t *testing.T) {
	_, server := testnet.Pair(t)
	first, err := Lookup(server)
	if err != nil {
		t.Fatal(err)
	}
	if first.UID != uint32(os.Geteuid()) || first.inode == 0 || first.cookie == [2]uint32{} {
		t.Errorf("owner: %+v", first)
	}
	if again, err := Lookup(server); err != nil || again != first {
		t.Errorf("owner again: %+v, %v", again, err)
	}
	_, other := testnet.Pair(t)
	if second, err := Lookup(other); err != nil || second == first {
		t.Errorf("owner of another connection: %+v, %v", second, err)
	}
}

// TestLookupOfEnding has the kernel's answers that name uid 0 for sockets that are nobody's any more.
func TestLookupOfEnding(t *testing.T) {
	client, server := testnet.Pair(t)
	client.Close()
	if _, err := io.ReadAll(server); err != nil { // the client's FIN has arrived
		t.Fatal(err)
	}
	if p, err := Lookup(server); err == nil {
		t.Errorf("a closed client: %+v", p)
	}
	src, dst := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
	server.Close() // the client's side is in TIME_WAIT now, or gone
	if p, err := lookup(src, dst, halfEnds.theirs); err == nil {
		t.Errorf("TIME_WAIT: %+v", p)
	}

	// Our own end no longer connected, the other end's socket still open.
	_, server = testnet.Pair(t)
	server.CloseWrite()
	if _, err := Lookup(server); err == nil {
		t.Error("own end in FIN_WAIT")
	}
}

// TestLookupOfBothFamilies has an IPv6 socket that is connected to an IPv4 address, as C-core makes them.
func TestLookupOfBothFamilies(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p, err := Lookup(c); err != nil || p.UID != uint32(os.Geteuid()) {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestLookupOfHalfClosed has a client that sent its last byte before it was accepted, over IPv4 and IPv6: it is its account
// as long as it has its socket, and nobody's afterwards.
func TestLookupOfHalfClosed(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("%s: %v", addr, err) // no IPv6
			continue
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client.(*net.TCPConn).CloseWrite()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if _, err := io.ReadAll(server); err != nil {
			t.Fatal(err)
		}
		if o, err := Lookup(server.(*net.TCPConn)); err != nil || o.UID != uint32(os.Geteuid()) {
			t.Errorf("%s: %+v, %v", addr, o, err)
		}
		if o, err := LookupEstablished(server.(*net.TCPConn)); err == nil {
			t.Errorf("%s: established: %+v", addr, o)
		}
		client.Close()
		if o, err := Lookup(server.(*net.TCPConn)); err == nil || errors.Is(err, ErrNotAccepted) {
			t.Errorf("%s, closed: %+v, %v", addr, o, err)
		}
	}
}

// TestLookupOfNotAccepted has a connection that a program has yet to accept.
func TestLookupOfNotAccepted(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if o, err := Lookup(c); !errors.Is(err, ErrNotAccepted) {
		t.Errorf("before: %+v, %v", o, err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if o, err := Lookup(c); err != nil || o.UID != uint32(os.Geteuid()) {
		t.Errorf("after: %+v, %v", o, err)
	}
}
