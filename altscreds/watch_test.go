package altscreds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/service"
)

// deny puts denials in force.
func deny(tb testing.TB, srv *service.Server, lines string) {
	tb.Helper()
	d, err := policy.ParseDenied([]policy.File{{Name: "denied.policy", Data: []byte(lines)}})
	if err != nil {
		tb.Fatal(err)
	}
	srv.SetPolicy(policy.New(d, nil))
}

// wantEnded checks that a connection is ended as denied, for Read and Write, and that it can be closed.
func wantEnded(tb testing.TB, c *altscreds.Conn, text string) {
	tb.Helper()
	_, err := c.Read(make([]byte, 1))
	_, werr := c.Write([]byte("x"))
	for _, err := range []error{err, werr} {
		e, ok := errors.AsType[*altscreds.EndedError](err)
		if !ok || e.Reason != altscreds.ReasonDeniedByPolicy || len(e.HandshakeID) != 16 || !strings.Contains(e.Error(), text) {
			tb.Errorf("the connection ended by %v", err)
		}
	}
	if err := c.Close(); err != nil {
		tb.Errorf("closing what was ended: %v", err)
	}
}

// wantEcho checks that a connection goes on.
func wantEcho(tb testing.TB, c *altscreds.Conn) {
	tb.Helper()
	b := []byte("still here")
	_, err := c.Write(b)
	if err == nil {
		_, err = io.ReadFull(c, b)
	}
	if err != nil {
		tb.Errorf("a connection that nobody refuses: %v", err)
	}
}

func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal(what)
		}
	}
}

// three are bob@node1, who dials, and alice@node2 and alice@node3, who echo.
type three struct {
	client, server *service.Server // of node1 and node2
	socket         string          // of node1
	to2, to3       string          // addresses
}

func startThree(t *testing.T, served func(*altscreds.Conn)) *three {
	t.Helper()
	dir := t.TempDir()
	path := func(n string) string { return filepath.Join(dir, n) }
	s := &three{socket: path("1")}
	s.client, _ = startServer(t, s.socket, "node1.example.com", daemonOptions{user: "bob"})
	s.server, _ = startServer(t, path("2"), "node2.example.com", daemonOptions{})
	startServer(t, path("3"), "node3.example.com", daemonOptions{})
	s.to2 = listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: path("2")}, served)
	s.to3 = listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: path("3")}, echo)
	return s
}

func (s *three) dial(t *testing.T, addr string) *altscreds.Conn {
	return dial(t, addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: s.socket, TargetMachines: []string{"node2.example.com", "node3.example.com"}})
}

// TestRule49ConnectionsEnd: of many connections those end whose peer is denied, at either end's daemon, and no others.
func TestRule49ConnectionsEnd(t *testing.T) {
	const n = 30
	for _, at := range []string{"the client's daemon", "the server's daemon"} {
		t.Run(at, func(t *testing.T) {
			served := make(chan error, n)
			s := startThree(t, func(c *altscreds.Conn) {
				_, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				served <- err
			})
			var theirs, others []*altscreds.Conn
			for range n {
				theirs, others = append(theirs, s.dial(t, s.to2)), append(others, s.dial(t, s.to3))
			}
			for i := range theirs {
				wantEcho(t, theirs[i])
				wantEcho(t, others[i])
			}
			if at == "the client's daemon" {
				deny(t, s.client, "deny any * *@node2.example.com\n")
				for _, c := range theirs {
					wantEnded(t, c, "denied")
				}
			} else {
				deny(t, s.server, "deny any * bob@node1.example.com\n")
				for range n {
					if e, ok := errors.AsType[*altscreds.EndedError](<-served); !ok || e.Reason != altscreds.ReasonDeniedByPolicy {
						t.Errorf("served until %v", e)
					}
				}
			}
			for _, c := range others {
				wantEcho(t, c)
			}
		})
	}
}

// TestRule49ClosedIsNotWatched: what is closed is taken off, and the stream ends some time after the last.
func TestRule49ClosedIsNotWatched(t *testing.T) {
	defer altscreds.WatchWithin(time.Millisecond, 20*time.Millisecond)()
	s := startThree(t, echo)
	var conns []*altscreds.Conn
	for range 10 {
		conns = append(conns, s.dial(t, s.to2))
	}
	eventually(t, "the connections are not watched", func() bool { return s.client.Snapshot().Standing.Watched == 10 })
	for _, c := range conns[1:] {
		c.Close()
	}
	eventually(t, "closed connections are watched", func() bool { return s.client.Snapshot().Standing.Watched == 1 })
	conns[0].Close()
	eventually(t, "the stream outlives its connections", func() bool { _, streams := altscreds.Watched(s.socket); return streams == 0 })
	wantEcho(t, s.dial(t, s.to2))
	eventually(t, "a new connection is not watched", func() bool { return s.client.Snapshot().Standing.Watched == 1 })
}

// TestRule49DaemonRestarts: a daemon that stays away ends nothing; the next one is told of all connections, and ends what
// it would refuse.
func TestRule49DaemonRestarts(t *testing.T) {
	defer altscreds.WatchWithin(50*time.Millisecond, time.Minute)()
	dir := t.TempDir()
	path := func(n string) string { return filepath.Join(dir, n) }
	first, stop := startServer(t, path("1"), "node1.example.com", daemonOptions{user: "bob"})
	startServer(t, path("2"), "node2.example.com", daemonOptions{})
	startServer(t, path("3"), "node3.example.com", daemonOptions{})
	to2 := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: path("2")}, echo)
	to3 := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: path("3")}, echo)
	o := altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path("1"), TargetMachines: []string{"node2.example.com", "node3.example.com"}}
	const n = 700 // more than a request holds
	var theirs, others []*altscreds.Conn
	for range n {
		theirs = append(theirs, dial(t, to2, o))
	}
	others = append(others, dial(t, to3, o))
	eventually(t, "the connections are not watched", func() bool { return first.Snapshot().Standing.Watched == n+1 })
	stop()
	for _, c := range append(theirs[:3:3], others...) {
		wantEcho(t, c)
	}
	next, _ := startServer(t, path("1"), "node1.example.com", daemonOptions{user: "bob"})
	eventually(t, "the next daemon is not told", func() bool { return next.Snapshot().Standing.Watched == n+1 })
	deny(t, next, "deny any * *@node2.example.com\n")
	for _, c := range theirs {
		wantEnded(t, c, "denied")
	}
	wantEcho(t, others[0])
}

// TestRule49GRPC: a channel's user is told by the status of his call.
func TestRule49GRPC(t *testing.T) {
	dir := t.TempDir()
	client, _ := startServer(t, filepath.Join(dir, "1"), "node1.example.com", daemonOptions{user: "bob"})
	startServer(t, filepath.Join(dir, "2"), "node2.example.com", daemonOptions{})
	sc := must(altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: filepath.Join(dir, "2")}))
	srv := grpc.NewServer(grpc.Creds(sc))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	cc := must(altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: filepath.Join(dir, "1"), TargetAccounts: []string{alice2}}))
	conn := must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(cc)))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	deny(t, client, "deny any * *@node2.example.com\n")
	_, err = stream.Recv()
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the connection was ended") ||
		!strings.Contains(err.Error(), "denied_by_policy") {
		t.Errorf("the call ended by %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); !strings.Contains(fmt.Sprint(err), "denied") {
		t.Errorf("the next call: %v", err)
	}
}

// TestRule49CloseMeanwhile: connections that are closed, written to and read from while they are ended.
func TestRule49CloseMeanwhile(t *testing.T) {
	defer altscreds.WatchWithin(time.Millisecond, 5*time.Millisecond)()
	s := startThree(t, echo)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 12 {
				c, err := altscreds.Dial("tcp", s.to2, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: s.socket, TargetAccounts: []string{alice2}})
				if err != nil {
					if !errors.Is(err, altscreds.ErrRefused) && !errors.Is(err, altscreds.ErrPeerRejected) {
						t.Error(err)
					}
					continue
				}
				c.SetDeadline(time.Now().Add(patience))
				if (i+j)%3 == 0 {
					go c.Close()
				}
				b := []byte("x")
				for range 20 {
					if _, err := c.Write(b); err == nil {
						c.Read(b)
					}
				}
				c.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-time.After(3 * time.Millisecond):
		}
		who := "mallory@node2.example.com"
		if i%2 == 0 {
			who = alice2
		}
		deny(t, s.client, "deny any * "+who+"\n")
	}
}
