package service

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	_ "unsafe" // for go:linkname

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

//go:linkname vmOnGCP google.golang.org/grpc/credentials/alts.vmOnGCP
var vmOnGCP bool

// trustPlatform lets the stock credentials run here; the variable is set by the library itself when it is first used.
var trustPlatform = sync.OnceFunc(func() {
	alts.NewClientCreds(alts.DefaultClientOptions())
	vmOnGCP = true
})

// altsServer is a stock gRPC server with stock ALTS credentials on loopback TCP; it sends the callers' accounts to the
// channel.
func altsServer(t *testing.T, socket string) (addr string, callers <-chan string) {
	t.Helper()
	trustPlatform()
	creds := alts.NewServerCreds(&alts.ServerOptions{HandshakerServiceAddress: "unix:" + socket})
	seen := make(chan string, 100)
	srv := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			info, err := alts.AuthInfoFromContext(ctx)
			if err != nil {
				return nil, err
			}
			seen <- info.PeerServiceAccount()
			return h(ctx, req)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String(), seen
}

// call makes one call over a new channel with stock ALTS credentials, and tells who the server is.
func call(t *testing.T, socket, addr string, targets ...string) (string, error) {
	t.Helper()
	trustPlatform()
	creds := alts.NewClientCreds(&alts.ClientOptions{HandshakerServiceAddress: "unix:" + socket,
		TargetServiceAccounts: targets})
	c, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var p peer.Peer
	if _, err := healthpb.NewHealthClient(c).Check(testContext(t), new(healthpb.HealthCheckRequest),
		grpc.Peer(&p)); err != nil {
		return "", err
	}
	info, err := alts.AuthInfoFromPeer(&p)
	if err != nil {
		t.Fatal(err)
	}
	return info.PeerServiceAccount(), nil
}

// Stock grpc-go on both sides, through two daemons.
func TestStockGRPC(t *testing.T) {
	me, _ := currentUser(t)
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	addr, callers := altsServer(t, beta.socket)
	got, err := call(t, alpha.socket, addr, "bob@beta.test", me.Username+"@BETA.test")
	if err != nil {
		t.Fatal(err)
	}
	if want := me.Username + "@beta.test"; got != want {
		t.Errorf("the server is %q, want %q", got, want)
	}
	if got, want := <-callers, me.Username+"@alpha.test"; got != want {
		t.Errorf("the client is %q, want %q", got, want)
	}

	_, err = call(t, alpha.socket, addr, "bob@beta.test")
	wantErr(t, err, codes.PermissionDenied, "target_mismatch", "bob@beta.test", "this machine's daemon refused")

	// 127.0.0.1 is this machine, which beta is not; by beta's own daemon it is.
	_, err = call(t, alpha.socket, addr)
	wantErr(t, err, codes.PermissionDenied, "target_mismatch", "127.0.0.1")
	if _, err := call(t, beta.socket, strings.Replace(addr, "127.0.0.1", "localhost", 1)); err != nil {
		t.Errorf("one machine with itself: %v", err)
	}

	// A server account that the other machine's daemon refuses: the client learns why.
	nobody := startDaemon(t, "beta.test", Config{Accounts: named("Not An Account")})
	addr, _ = altsServer(t, nobody.socket)
	_, err = call(t, alpha.socket, addr, me.Username+"@beta.test")
	wantErr(t, err, codes.PermissionDenied, byPeer+"local_account", "the peer's daemon refused", "(local_account)")
}

// Fifty channels at once.
func TestStockGRPCConcurrent(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	addr, _ := altsServer(t, beta.socket)
	me, _ := currentUser(t)
	errs := make(chan error)
	const n = 50
	for range n {
		go func() {
			_, err := call(t, alpha.socket, addr, me.Username+"@beta.test")
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
