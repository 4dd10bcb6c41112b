package forward_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
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
type account string

func (a account) Lookup(_ context.Context, uid uint32) (service.Account, error) {
	return service.Account{UID: uid, Name: string(a)}, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// daemon serves one of a machine, on which everybody is the one user, and returns its socket.
func daemon(tb testing.TB, name, user string) (socket string, srv *service.Server) {
	tb.Helper()
	socket = filepath.Join(tb.TempDir(), "s")
	srv = must(service.New(service.Config{Accounts: account(user), Logger: slog.New(slog.DiscardHandler),
		Machine: testmachine.New(tb, name, testmachine.Options{Leaf: testca.Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}})}))
	testnet.Serve(tb, socket, func(l *net.UnixListener) error { return srv.Serve(l, nil) }, srv.Shutdown)
	return socket, srv
}

// A world is bob@node1, who dials, and alice@node2.
type world struct {
	tb           testing.TB
	protocol     string
	sockets      [2]string
	bobs, alices *service.Server
}

func newWorld(tb testing.TB) *world {
	w := &world{tb: tb, protocol: must(altscreds.ServiceProtocol("test"))}
	w.sockets[0], w.bobs = daemon(tb, "node1.example.com", "bob")
	w.sockets[1], w.alices = daemon(tb, "node2.example.com", "alice")
	return w
}

func (w *world) client() altscreds.ClientOptions {
	return altscreds.ClientOptions{Socket: w.sockets[0], ApplicationProtocols: []string{w.protocol},
		TargetAccounts: []string{"alice@node2.example.com"}}
}

func (w *world) server() altscreds.ServerOptions {
	return altscreds.ServerOptions{Socket: w.sockets[1], ApplicationProtocols: []string{w.protocol}}
}

// secure does the handshake of two ends of a connection.
func (w *world) secure(dialed, accepted net.Conn) (bob, alice *altscreds.Conn) {
	w.tb.Helper()
	bob, alice = altscreds.Client(dialed, w.client()), altscreds.Server(accepted, w.server())
	done := make(chan error, 1)
	go func() { done <- alice.Handshake() }()
	if err := errors.Join(bob.Handshake(), <-done); err != nil {
		w.tb.Fatal(err)
	}
	return bob, alice
}
