package altscreds_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/service"
)

// patience is how long a test waits for what must happen; no test takes it unless it fails.
const patience = time.Minute

// account is a user database in which every uid has one name.
type account struct {
	name   string
	groups []string
}

func (a account) Lookup(_ context.Context, uid uint32) (service.Account, error) {
	return service.Account{UID: uid, Name: a.name, Groups: a.groups}, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// daemonOptions say how a test's daemon differs from the usual one.
type daemonOptions struct {
	user    string // "alice"
	groups  []string
	keyType string
	issuer  *testca.CA // of the machine's certificate
	service service.Config
}

// loopback is what the usual machine's certificate is good for besides its name.
var loopback = []net.IP{net.IPv4(127, 0, 0, 1)}

// startDaemon serves a daemon of the machine, with everybody as the one user, at the path of a UNIX socket.
func startDaemon(tb testing.TB, path, name string, o daemonOptions) (stop func()) {
	tb.Helper()
	_, stop = startServer(tb, path, name, o)
	return stop
}

// startServer is startDaemon, and returns the daemon's service as well.
func startServer(tb testing.TB, path, name string, o daemonOptions) (srv *service.Server, stop func()) {
	tb.Helper()
	if o.user == "" {
		o.user = "alice"
	}
	o.service.Machine = testmachine.New(tb, name, testmachine.Options{Issuer: o.issuer,
		Leaf: testca.Leaf{IPs: loopback, KeyType: o.keyType}})
	o.service.Accounts = account{o.user, o.groups}
	if o.service.Logger == nil {
		o.service.Logger = slog.New(slog.DiscardHandler)
	}
	srv = must(service.New(o.service))
	return srv, testnet.Serve(tb, path, func(l *net.UnixListener) error { return srv.Serve(l, nil) }, srv.Shutdown)
}

// daemon starts a daemon and returns its socket.
func daemon(tb testing.TB, name string, o daemonOptions) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "s")
	startDaemon(tb, path, name, o)
	return path
}

// twoMachines returns the sockets of bob@node1 (the client of most tests) and alice@node2 (the server).
func twoMachines(tb testing.TB) (client, server string) {
	tb.Helper()
	return daemon(tb, "node1.example.com", daemonOptions{user: "bob"}), daemon(tb, "node2.example.com", daemonOptions{})
}

// spoken is what connections speak that are not gRPC's.
var spoken = []string{"test"}

const (
	alice2 = "alice@node2.example.com"
	bob1   = "bob@node1.example.com"
)

// listen accepts with the options and hands each connection to serve, which owns it. At the end of the test it waits
// for all of them.
func listen(tb testing.TB, o altscreds.ServerOptions, serve func(*altscreds.Conn)) (addr string) {
	tb.Helper()
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", o)
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				serve(c.(*altscreds.Conn))
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func echo(c *altscreds.Conn) {
	io.Copy(c, c)
	c.CloseWrite()
}

func dial(tb testing.TB, addr string, o altscreds.ClientOptions) *altscreds.Conn {
	tb.Helper()
	c, err := altscreds.Dial("tcp", addr, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestEcho(t *testing.T) {
	cs, ss := twoMachines(t)
	peers, ids := make(chan *altscreds.Peer, 1), make(chan string, 1)
	addr := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss}, func(c *altscreds.Conn) {
		if err := c.Handshake(); err != nil {
			t.Error(err)
		}
		peers <- c.Peer()
		ids <- c.HandshakeID()
		echo(c)
	})
	c := dial(t, addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}})
	if got := c.Peer().Account; got != alice2 {
		t.Errorf("the client's peer is %q", got)
	}
	if got := <-peers; got.Account != bob1 || got.User != "bob" || got.Machine != "node1.example.com" {
		t.Errorf("the server's peer is %+v", got)
	}
	if theirs := <-ids; len(theirs) != 16 || c.HandshakeID() != theirs || c.ApplicationProtocol() != spoken[0] {
		t.Errorf("the handshake is %q here and %q there, and %q is spoken", c.HandshakeID(), theirs, c.ApplicationProtocol())
	}
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	go func() {
		c.Write(sent[:1<<20])
		if n, err := c.ReadFrom(bytes.NewReader(sent[1<<20:])); n != 2<<20 || err != nil {
			t.Errorf("%d bytes were sent, %v", n, err)
		}
		c.CloseWrite()
	}()
	got, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil {
		t.Error(err)
	}
	rest := bytes.NewBuffer(got)
	if n, err := c.WriteTo(rest); n != 2<<20 || err != nil || !bytes.Equal(rest.Bytes(), sent) {
		t.Errorf("%d bytes came back, then %d, %v", len(got), n, err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
}

// Both daemons know both ends of the connection, whether it is handed over or only told of.
func TestEndsAreKnown(t *testing.T) {
	var records [2]chan service.Record
	var sockets [2]string
	for i, user := range []string{"bob", "alice"} {
		records[i] = make(chan service.Record, 1)
		o := daemonOptions{user: user}
		o.service.OnFinish = func(r service.Record) { records[i] <- r }
		sockets[i] = daemon(t, []string{"node1.example.com", "node2.example.com"}[i], o)
	}
	addr := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: sockets[1]}, echo)
	c := dial(t, addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: sockets[0], TargetAccounts: []string{alice2}})
	near, remote := c.LocalAddr().String(), c.RemoteAddr().String()
	for i, ch := range records {
		r := <-ch
		if i == 1 {
			near, remote = remote, near
		}
		if handed := os.Getenv(altscreds.RelayOnly) == ""; r.Near.String() != near || r.Remote.String() != remote || r.Proved != handed {
			t.Errorf("daemon %d has %v and %v, known from the kernel %v; want %s and %s, %v", i, r.Near, r.Remote, r.Proved, near, remote, handed)
		}
	}
}
