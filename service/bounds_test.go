package service

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// A connection that begins as one that hands over sockets, and stops in the middle of its hello, is closed by the preface's
// deadline, which grpc takes back at that moment. Else it would stay, and hold up the daemon's stop.
func TestRule24HalfHello(t *testing.T) {
	t.Parallel() // it waits for the deadline
	d := startDaemon(t, "beta.test", Config{})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, handed.Hello[:1]); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("half a hello: %v, want the connection's end", err)
	}
}

// A connection that hands over sockets ends when it is too old: the identity that it stands for is of its beginning.
func TestRule21HandoverAge(t *testing.T) {
	before := handoverAge
	handoverAge = 50 * time.Millisecond
	t.Cleanup(func() { handoverAge = before })
	d := startDaemon(t, "beta.test", Config{})
	c := greet(t, d.socket)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection that is too old: %v, want its end", err)
	}
}

// Streams of the services beside the handshaker count as well, and do not hold up the daemon's stop.
func TestRule24StreamsOfAllServices(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 3, Handshakes: 2}, Register: func(r grpc.ServiceRegistrar) {
		grpc_health_v1.RegisterHealthServer(r, health.NewServer())
	}})
	conn := dial(t, d.socket, "")
	watch := func() (grpc.ServerStreamingClient[grpc_health_v1.HealthCheckResponse], error) {
		w, err := grpc_health_v1.NewHealthClient(conn).Watch(testContext(t), new(grpc_health_v1.HealthCheckRequest))
		if err == nil {
			_, err = w.Recv()
		}
		return w, err
	}
	first, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if _, err := watch(); err != nil {
			t.Fatal(err)
		}
	}
	// A call of which only the header comes.
	if _, err := conn.NewStream(testContext(t), &grpc.StreamDesc{ClientStreams: true}, "/grpc.health.v1.Health/Check"); err != nil {
		t.Fatal(err)
	}
	if _, err = watch(); err == nil { // the one before may come to the daemon after this one
		_, err = watch()
	}
	wantErr(t, err, codes.ResourceExhausted, "10 streams open", "overloaded")
	_, err = newParty(testContext(t), conn).do(clientStart(nil))
	wantErr(t, err, codes.ResourceExhausted, "10 streams open")
	if err := d.Shutdown(testContext(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := first.Recv(); err == nil {
		t.Error("the daemon's stop left a watch open")
	}
	for d.open.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// A client whose streams are refused again and again loses its connection, with what grpc keeps of each.
func TestRefusedStreamsEndTheConnection(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 1, Handshakes: 1}})
	for d.open.enter(uint32(os.Geteuid())) { // the account's streams are used up
	}
	conn := dial(t, d.socket, "")
	for range refusalsKept {
		_, err := newParty(testContext(t), conn).do(clientStart(nil))
		wantErr(t, err, codes.ResourceExhausted)
	}
	if _, err := newParty(testContext(t), conn).do(clientStart(nil)); status.Code(err) != codes.Unavailable {
		t.Errorf("one refusal more: %v, want the connection's end", err)
	}
}

// Rule 27: only a connection that asked to hand over sockets can be sent a descriptor, where the kernel can see to that:
// one that lingers would hold the thread that drops it.
func TestRule27DescriptorsOnlyWhereAsked(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	open(t, d, "").must(t, clientStart(nil)) // it serves
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := c.(*net.UnixConn)
	_, _, err = u.WriteMsgUnix([]byte("PRI * HTTP/2.0"), unix.UnixRights(0), nil)
	if errors.Is(handed.TakeDescriptors(u, true), errors.ErrUnsupported) {
		t.Log("this kernel cannot keep descriptors out (before Linux 6.16)")
		if err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("a descriptor on a connection that speaks HTTP/2: %v, want EPERM", err)
	}
	a, _ := testnet.Pair(t)
	g := greet(t, d.socket)
	give(t, g, &altspb.HandshakerReq{}, a)
	wantStatus(t, answer(t, g), "neither client_start nor server_start")
}

// Rule 24: a uid has only so many connections for handing over; above them an application is left to use gRPC.
func TestRule24Givers(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Connections: 3}})
	var first *net.UnixConn
	for range 2 {
		first = greet(t, d.socket)
	}
	d.givers.limit = 2
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, handed.Hello)
	if n, err := c.Read(make([]byte, 8)); n > 0 || err == nil {
		t.Errorf("a third connection for handing over: %d bytes, %v", n, err)
	}
	open(t, d, "").must(t, clientStart(nil))
	first.Close()
	for d.givers.sum() > 1 {
		time.Sleep(time.Millisecond)
	}
	greet(t, d.socket)
}

// Rule 24: uids without a name share the few connections on which they are told so, and take none of the others'.
func TestRule24NamelessUIDs(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Accounts: accountsFunc(func(_ context.Context, uid uint32) (Account, error) {
		return Account{}, reason.Errorf(reason.LocalAccount, "uid %d has no name", uid)
	})})
	_, err := open(t, d, "").do(clientStart(nil))
	wantErr(t, err, codes.PermissionDenied, "has no name")
	if d.nameless(0) || d.nameless(uint32(os.Geteuid())) || !d.nameless(12345) {
		t.Error("root and the daemon's own uid are to have places of their own, and others without a name are not")
	}
	spare := newTally(spareConnections, spareInAll)
	entered := 0
	for uid := range uint32(65536) {
		if spare.enter(uid) {
			entered++
		}
	}
	if entered != spareInAll {
		t.Errorf("65536 uids got %d spare connections, want %d", entered, spareInAll)
	}
}
