package altscreds_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// attempt does both ends' handshakes and returns their errors; an end that fails closes its connection.
func attempt(t *testing.T, co altscreds.ClientOptions, so altscreds.ServerOptions) (client, server error) {
	t.Helper()
	rc, rs := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		s := altscreds.Server(rs, so)
		err := s.Handshake()
		if err != nil {
			s.Close()
		}
		done <- err
	}()
	c := altscreds.Client(rc, co)
	client = c.Handshake()
	if client != nil {
		c.Close()
	}
	return client, <-done
}

func TestRefusedHere(t *testing.T) {
	cs, ss := twoMachines(t)
	client, server := attempt(t, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{"carol@node2.example.com"}},
		altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss})
	var he *altscreds.HandshakeError
	if !errors.As(client, &he) || he.Reason != altscreds.ReasonTargetMismatch || he.ByPeer || he.HandshakeID == "" ||
		!errors.Is(client, altscreds.ErrRefused) ||
		errors.Is(client, altscreds.ErrPeerRejected) || errors.Is(client, altscreds.ErrNoDaemon) ||
		errors.Is(client, altscreds.ErrTimeout) {
		t.Errorf("client: %v", client)
	}
	he = nil
	told := errors.As(server, &he) && he.Reason == altscreds.ReasonTargetMismatch && he.ByPeer && errors.Is(server, altscreds.ErrPeerRejected)
	if os.Getenv(altscreds.RelayOnly) != "" { // then the client's daemon cannot tell the server's
		told = he != nil && he.Reason == "" && errors.Is(server, io.ErrUnexpectedEOF)
	}
	if !told {
		t.Errorf("server: %v", server)
	}
	for _, o := range []altscreds.ClientOptions{
		{TargetMachines: []string{"node2.example.com"}}, {TargetMachines: []string{"Node2.EXAMPLE.com"}},
		{TargetAccounts: []string{"Alice@Node2.EXAMPLE.com"}}, {ServerName: "NODE2.example.com."}, {ServerName: "node2.example.com:99"},
		{TargetAccounts: []string{"carol@node2.example.com", alice2}, ServerName: "elsewhere.example.com"},
	} {
		o.Socket, o.ApplicationProtocols = cs, spoken
		if client, server := attempt(t, o, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}); client != nil || server != nil {
			t.Errorf("%+v: %v, %v", o, client, server)
		}
	}
	for _, o := range []altscreds.ClientOptions{
		{TargetMachines: []string{"node3.example.com"}}, {ServerName: "node3.example.com"}, {},
	} {
		o.Socket, o.ApplicationProtocols = cs, spoken
		if client, _ := attempt(t, o, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}); !errors.Is(client, altscreds.ErrRefused) {
			t.Errorf("%+v: %v", o, client)
		}
	}
}

func TestRejectedByPeer(t *testing.T) {
	// The server's machine trusts only testCA, which did not issue the client's certificate.
	cs := daemon(t, "node1.example.com", daemonOptions{user: "bob", issuer: must(testca.NewCA(testca.Options{}))})
	ss := daemon(t, "node2.example.com", daemonOptions{})
	client, server := attempt(t, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}},
		altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss})
	var he *altscreds.HandshakeError
	if !errors.As(client, &he) || he.Reason != altscreds.ReasonUnknownCA || !he.ByPeer || he.Temporary() ||
		!errors.Is(client, altscreds.ErrPeerRejected) || errors.Is(client, altscreds.ErrRefused) {
		t.Errorf("client: %v", client)
	}
	id := he.HandshakeID
	if !errors.As(server, &he) || he.Reason != altscreds.ReasonUnknownCA || he.ByPeer ||
		!errors.Is(server, altscreds.ErrRefused) {
		t.Errorf("server: %v", server)
	}
	if len(id) != 16 || he.HandshakeID != id {
		t.Errorf("the client's handshake is %q, the server's %q", id, he.HandshakeID)
	}
}

func TestNoProtocolInCommon(t *testing.T) {
	cs, ss := twoMachines(t)
	co := altscreds.ClientOptions{Socket: cs, TargetAccounts: []string{alice2}, ApplicationProtocols: []string{"a", "b"}}
	so := altscreds.ServerOptions{Socket: ss, ApplicationProtocols: []string{"c", "b"}}
	if client, server := attempt(t, co, so); client != nil || server != nil {
		t.Errorf("%v, %v", client, server)
	}
	so.ApplicationProtocols = []string{"c"}
	client, _ := attempt(t, co, so)
	var he *altscreds.HandshakeError
	if !errors.As(client, &he) || he.Reason != altscreds.ReasonNoApplicationProtocol {
		t.Errorf("%v", client)
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	rc, _ := tcpPair(t)
	path := filepath.Join(t.TempDir(), "none")
	err := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path, TargetAccounts: []string{alice2}}).Handshake()
	var nd *altscreds.NoDaemonError
	if !errors.Is(err, altscreds.ErrNoDaemon) || !errors.As(err, &nd) || nd.Socket != path ||
		!errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), altscreds.SocketVariable) {
		t.Errorf("%v", err)
	}
}

// TestRestart: a handshake that meets a daemon which is being restarted waits for it.
func TestRestart(t *testing.T) {
	cs, ss := twoMachines(t)
	co := altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}}
	if client, server := attempt(t, co, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}); client != nil || server != nil {
		t.Fatalf("%v, %v", client, server)
	}
	path := filepath.Join(t.TempDir(), "s")
	stop := startDaemon(t, path, "node1.example.com", daemonOptions{user: "bob"})
	co.Socket = path
	if client, server := attempt(t, co, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}); client != nil || server != nil {
		t.Fatalf("%v, %v", client, server)
	}
	stop()
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		time.Sleep(100 * time.Millisecond) // the outage; the handshake below begins in it or after it
		startDaemon(t, path, "node1.example.com", daemonOptions{user: "bob"})
	}()
	client, server := attempt(t, co, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss})
	<-restarted
	if client != nil || server != nil {
		t.Errorf("%v, %v", client, server)
	}
}

// TestUntrustedDaemon: a socket that somebody else serves is not believed (rule 28), unless the options say so.
func TestUntrustedDaemon(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to listen as somebody else")
	}
	const other = 4321
	dir := must(os.MkdirTemp("", "altscreds")) // not t.TempDir(), whose parent is closed to others
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l := listenAs(t, other, path)
	defer l.Close()
	accepted := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	rc, _ := tcpPair(t)
	err := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path, TargetAccounts: []string{alice2}}).Handshake()
	if !errors.Is(err, altscreds.ErrNoDaemon) || !strings.Contains(err.Error(), "uid 4321") {
		t.Errorf("%v", err)
	}
	if n, err := (<-accepted).Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("it was sent something: %d, %v", n, err)
	}
	// With the uid in the options it is spoken to: it is asked whether it takes sockets, or greeted in HTTP/2.
	greeting := "sal"
	if os.Getenv(altscreds.RelayOnly) != "" {
		greeting = "PRI"
	}
	rc, _ = tcpPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path, DaemonUID: other,
			TargetAccounts: []string{alice2}}).HandshakeContext(ctx)
	}()
	for word := make([]byte, 3); string(word) != greeting; {
		c, ok := <-accepted // the first attempt may have left others, which were closed without a word
		if !ok {
			t.Fatal("it was not spoken to")
		}
		io.ReadFull(c, word)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestHandshakeEnds: whatever ends a handshake ends it at once, at either side, with an error that says what it was.
func TestHandshakeEnds(t *testing.T) {
	cs, ss := twoMachines(t)
	past := time.Unix(1, 0)
	for name, test := range map[string]struct {
		end  func(c *altscreds.Conn, cancel func())
		want []error
	}{
		"cancel":   {func(_ *altscreds.Conn, cancel func()) { cancel() }, []error{context.Canceled}},
		"close":    {func(c *altscreds.Conn, _ func()) { c.Close() }, []error{net.ErrClosed}},
		"deadline": {func(c *altscreds.Conn, _ func()) { c.SetDeadline(past) }, []error{altscreds.ErrTimeout, context.DeadlineExceeded, os.ErrDeadlineExceeded}},
		"read":     {func(c *altscreds.Conn, _ func()) { c.SetReadDeadline(past) }, []error{altscreds.ErrTimeout}},
		"write":    {func(c *altscreds.Conn, _ func()) { c.SetWriteDeadline(past) }, []error{altscreds.ErrTimeout}},
	} {
		for _, side := range []string{"client", "server"} {
			t.Run(name+"/"+side, func(t *testing.T) {
				t.Parallel()
				rc, rs := tcpPair(t)
				var c *altscreds.Conn
				if side == "client" {
					c = altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}})
				} else {
					c = altscreds.Server(rc, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss})
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- c.HandshakeContext(ctx) }()
				if side == "client" {
					// Message 1 is there: the client waits for message 2, which never comes.
					if _, err := io.ReadFull(rs, make([]byte, 8+1232)); err != nil {
						t.Fatal(err)
					}
				}
				test.end(c, cancel)
				err := <-done
				for _, want := range test.want {
					if !errors.Is(err, want) {
						t.Errorf("%v is not %v", err, want)
					}
				}
				if _, again := c.Read(make([]byte, 1)); again != err {
					t.Errorf("%v, then %v", err, again)
				}
				var timeout net.Error
				if errors.Is(err, altscreds.ErrTimeout) && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					t.Errorf("%v is not a net.Error of a timeout", err)
				}
				c.Close()
			})
		}
	}
}

func TestTimeout(t *testing.T) {
	cs, ss := twoMachines(t)
	rc, rs := tcpPair(t)
	rc.SetDeadline(time.Time{})
	rs.SetDeadline(time.Time{})
	if err := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2},
		Timeout: time.Millisecond}).Handshake(); !errors.Is(err, altscreds.ErrTimeout) {
		t.Errorf("client: %v", err)
	}
	if err := altscreds.Server(rs, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss, Timeout: time.Millisecond,
		Mixed: new(altscreds.Mixed)}).Handshake(); !errors.Is(err, altscreds.ErrTimeout) {
		// What the client wrote may have been read before: then the daemon or the peer is waited for.
		t.Errorf("server: %v", err)
	}
}

func TestGarbage(t *testing.T) {
	cs, ss := twoMachines(t)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "salt\x01\x09\x00\x00",
		"salt\x09\x01\x00\x00",
		"salt\x01\x02\xff\xff", "sa", "SSH-2.0-x\r\n"} {
		for _, side := range []string{"client", "server"} {
			rc, rs := tcpPair(t)
			go func() {
				rs.Write([]byte(garbage))
				rs.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, rs)
			}()
			var c *altscreds.Conn
			if side == "client" {
				c = altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}})
			} else {
				c = altscreds.Server(rc, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss})
			}
			err := c.Handshake()
			var he *altscreds.HandshakeError
			if !errors.As(err, &he) || errors.Is(err, altscreds.ErrTimeout) {
				t.Errorf("%s %q: %v", side, garbage, err)
			}
			c.Close()
		}
	}
}

func TestOptionMistakes(t *testing.T) {
	for _, o := range []altscreds.ClientOptions{
		{Socket: "relative"}, {Timeout: -1}, {TargetAccounts: []string{"alice"}}, {TargetAccounts: []string{"@node"}},
		{TargetAccounts: []string{"alice@"}}, {TargetMachines: []string{"a@b"}}, {TargetMachines: []string{""}},
		{ApplicationProtocols: []string{""}},
	} {
		if _, err := altscreds.NewClientCredentials(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
		if _, err := altscreds.Dial("tcp", "127.0.0.1:1", o); err == nil {
			t.Errorf("%+v: no error", o)
		}
		if err := altscreds.Client(nil, o).Handshake(); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	bad := altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: "relative"}
	if _, err := altscreds.NewServerCredentials(bad); err == nil {
		t.Error("no error")
	}
	if _, err := altscreds.Listen("tcp", "127.0.0.1:0", bad); err == nil {
		t.Error("no error")
	}
	if _, err := altscreds.NewListener(nil, bad); err == nil {
		t.Error("no error")
	}
	c, s := ourClient("/none"), ourServer("/none")
	if _, _, err := s.ClientHandshake(context.Background(), "x", nil); err == nil {
		t.Error("server credentials worked as a client's")
	}
	if _, _, err := c.ServerHandshake(nil); err == nil {
		t.Error("client credentials worked as a server's")
	}
	clone := c.Clone()
	//lint:ignore SA1019 deprecated, but part of the interface
	if err := clone.OverrideServerName("x"); err != nil {
		t.Error(err)
	}
	//lint:ignore SA1019 grpc still takes the authority from it
	if before, after := c.Info().ServerName, clone.Info().ServerName; before != "" || after != "x" {
		t.Errorf("%q, %q", before, after)
	}
	if c.Info().SecurityProtocol != "alts" {
		t.Errorf("%+v", c.Info())
	}
}

// TestLeaks counts goroutines, descriptors and buffers before and after handshakes that succeed and that fail in each
// way.
func TestLeaks(t *testing.T) {
	cs, ss := twoMachines(t)
	ok := altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}}
	wrong := altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{"carol@node2.example.com"}}
	so := altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}
	settle(t, func() bool { return altscreds.CloseDaemonConnections() == 0 })
	time.Sleep(10 * time.Millisecond)
	goroutines, descriptors := runtime.NumGoroutine(), testnet.Descriptors(t)
	var buffers atomic.Int64
	stop := altscreds.CountBuffers(func(delta int) { buffers.Add(int64(delta)) })
	defer stop()
	for range 5 {
		rc, rs := tcpPair(t)
		server := make(chan struct{})
		go func() {
			defer close(server)
			s := altscreds.Server(rs, so)
			echo(s)
			s.Close()
		}()
		c := altscreds.Client(rc, ok)
		if _, err := c.Write(make([]byte, 100000)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // more is left in the buffer
			t.Fatal(err)
		}
		c.Close()
		<-server
		if client, server := attempt(t, wrong, so); client == nil || server == nil {
			t.Errorf("%v, %v", client, server)
		}
		rc, rs = tcpPair(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		c = altscreds.Client(rc, ok)
		go func() {
			c.HandshakeContext(ctx)
			close(done)
		}()
		io.ReadFull(rs, make([]byte, 8+1232))
		cancel()
		<-done
		c.Close()
		rs.Close()
	}
	settle(t, func() bool { return altscreds.CloseDaemonConnections() == 0 })
	settle(t, func() bool { return buffers.Load() == 0 })
	settle(t, func() bool { runtime.GC(); return runtime.NumGoroutine() <= goroutines })
	settle(t, func() bool { return testnet.Descriptors(t) <= descriptors })
}

// settle waits for what must become true.
func settle(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become true")
		}
	}
}
