package altscreds_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/service"
)

// byNumber is a user database in which uid 7 has the name u7.
type byNumber struct{}

func (byNumber) Lookup(_ context.Context, uid uint32) (service.Account, error) {
	return service.Account{UID: uid, Name: "u" + strconv.Itoa(int(uid))}, nil
}

// droppingPrivileges is set in the process that does.
const droppingPrivileges = "ALTSCREDS_TEST_DROPPING_PRIVILEGES"

// TestRule31PrivilegesDropped: what a program had open to the daemon before it dropped privileges, or took others, does
// not speak for it after, and is not kept.
func TestRule31PrivilegesDropped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to drop it")
	}
	// In a process of its own: other tests leave threads of other accounts, where libc aborts when all are to change.
	if os.Getenv(droppingPrivileges) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), droppingPrivileges+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := testprog.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	srv := must(service.New(service.Config{Machine: testmachine.New(t, "node1.example.com", testmachine.Options{}),
		Accounts: byNumber{}, Logger: slog.New(slog.DiscardHandler)}))
	testnet.Serve(t, path, func(l *net.UnixListener) error { return srv.Serve(l, nil) }, srv.Shutdown)
	server := filepath.Join(dir, "t")
	startDaemon(t, server, "node2.example.com", daemonOptions{})
	for _, socket := range []string{path, server} {
		if err := os.Chmod(socket, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []struct {
		name string
		conn func(net.Conn) net.Conn
	}{
		{"handed over", func(c net.Conn) net.Conn { return c }},
		{"relayed", func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }},
	} {
		// Whom the peer sees.
		seen := func() string {
			t.Helper()
			rc, rs := tcpPair(t)
			s := altscreds.Server(rs, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: server})
			done := make(chan error, 1)
			go func() { done <- s.Handshake() }()
			c := altscreds.Client(o.conn(rc), altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path, TargetAccounts: []string{alice2}})
			if err := c.Handshake(); err != nil {
				t.Fatalf("%s: %v", o.name, err)
			}
			if err := <-done; err != nil {
				t.Fatalf("%s: %v", o.name, err)
			}
			return s.Peer().User
		}
		as := func(set func(int) error, id int, want string) {
			t.Helper()
			if err := set(id); err != nil {
				t.Fatal(err)
			}
			defer set(0)
			if got := seen(); got != want {
				t.Errorf("%s: as %s the peer sees %s", o.name, want, got)
			}
			end := time.Now().Add(10 * time.Second)
			// One by which sockets are handed over, if they are, and one by which connections are watched.
			for srv.Snapshot().Connections > 2 && time.Now().Before(end) {
				time.Sleep(time.Millisecond)
			}
			if got := srv.Snapshot().Connections; got > 2 {
				t.Errorf("%s: as %s: %d connections to the daemon, those of another identity among them", o.name, want, got)
			}
		}
		if got := seen(); got != "u0" {
			t.Fatalf("%s: at first the peer sees %s", o.name, got)
		}
		as(syscall.Seteuid, 4711, "u4711")
		as(syscall.Seteuid, 4712, "u4712")
		as(syscall.Seteuid, 0, "u0")
		as(syscall.Setegid, 4713, "u0") // the socket's permissions may have been for the group
	}
}

// TestRule28OverflowUID: the uid that stands for every account without one in a user namespace is no daemon's, whatever
// the options say.
func TestRule28OverflowUID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to listen as somebody else")
	}
	dir := testprog.Dir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l := listenAs(t, 65534, path)
	defer l.Close()
	rc, _ := tcpPair(t)
	err := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: path, DaemonUID: 65534,
		TargetAccounts: []string{alice2}}).Handshake()
	if !errors.Is(err, altscreds.ErrNoDaemon) || !strings.Contains(err.Error(), "never the daemon; map") ||
		strings.Contains(err.Error(), "set DaemonUID") {
		t.Errorf("%v", err)
	}
}
