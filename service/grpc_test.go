package service

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// A connection of which the kernel says nothing has no identity, and neither has a call that came by none.
func TestPeerCreds(t *testing.T) {
	if _, err := (&listener{srv: new(Server)}).newConn(1<<20, peercred.Cred{}, share{}); err == nil {
		t.Error("no error from a closed connection")
	}
	if _, err := CallerFromContext(t.Context()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call without peer credentials: %v", err)
	}
	refused := context.WithValue(t.Context(), callerKey{}, Caller{UID: 1, refusal: errStopping})
	if _, err := CallerFromContext(refused); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("a caller whom the socket refuses: %v", err)
	}
}

// Streams of the services beside the handshaker count as well, and do not hold up the daemon's stop.
func TestRule24StreamsOfAllServices(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 3, Handshakes: 2}}, func(r grpc.ServiceRegistrar) {
		grpc_health_v1.RegisterHealthServer(r, health.NewServer())
	})
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
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "10 streams open")
	_, err = newParty(testContext(t), conn).do(clientStart(nil))
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "10 streams open")
	if err := d.Shutdown(testContext(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := first.Recv(); err == nil {
		t.Error("the daemon's stop left a watch open")
	}
	for d.allStreams.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// A client whose streams are refused again and again costs nothing that stays.
func TestRefusedStreamsLeaveNothing(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 1, Handshakes: 1}})
	for d.allStreams.enter(share{ofAccount, uint32(os.Geteuid())}) { // the account's streams are used up
	}
	conn := dial(t, d.socket, "")
	for range 300 {
		_, err := newParty(testContext(t), conn).do(clientStart(nil))
		wantErr(t, err, codes.ResourceExhausted, "overloaded")
	}
	if streams, held := d.allStreams.sum(), d.heldBytes.sum(); streams != d.allStreams.perAccount || held != 0 {
		t.Errorf("%d streams and %d bytes are left", streams, held)
	}
}

// At least 256 streams on a connection, requests of up to 128 KiB.
func TestRule24StreamsPerConnection(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	conn := dial(t, d.socket, "")
	for i := range 256 {
		p := newParty(testContext(t), conn)
		if i == 255 {
			big := clientStart(func(r *altspb.StartClientHandshakeReq) {
				r.RecordProtocols = append(r.RecordProtocols, strings.Repeat("x", 127<<10))
			})
			p.must(t, big)
			break
		}
		p.must(t, serverStart(nil, nil))
	}
	if n := d.Snapshot().Streams; n != 255 {
		t.Errorf("%d streams wait, want 255", n)
	}
}
