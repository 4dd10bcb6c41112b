package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A copy of the test binary with this variable listens at its value, "NETWORK ADDRESS HOW", and prints what it reads.
const beServer = "SHARED_ALTSD_LISTEN_TEST"

// Under the race detector a process sleeps for a second at its end, unless told not to.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

const (
	owner    = 54321 // the account that backends of the tests run as
	impostor = 54322
)

func TestMain(m *testing.M) {
	if v := os.Getenv(beServer); v != "" {
		serve(strings.Fields(v))
	}
	os.Exit(m.Run())
}

// serve listens until it reads a line, and at the end of standard input says how many bytes it has read of all connections.
func serve(words []string) {
	network, addr, how := words[0], words[1], words[2]
	l, err := listenReusing(network, addr, how == "reuse")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("at", l.Addr())
	var total atomic.Int64
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			l.Close()
			fmt.Println("stopped")
		}
		fmt.Println("read", total.Load())
		os.Exit(0)
	}()
	for how != "deaf" {
		c, err := l.Accept()
		if err != nil {
			break
		}
		go func() {
			b := make([]byte, 1)
			for {
				n, err := c.Read(b)
				total.Add(int64(n))
				if err != nil {
					break
				}
			}
			c.Close()
		}()
	}
	select {}
}

func listenReusing(network, addr string, reuse bool) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if reuse {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
	}}
	return lc.Listen(context.Background(), network, addr)
}

// A server is a process that listens as an account.
type server struct {
	cmd  *exec.Cmd
	out  *bufio.Scanner
	in   io.WriteCloser
	addr netip.AddrPort
}

// program is a copy of the test binary that every account may run.
func program(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no other accounts")
	}
	path := filepath.Join(testprog.Dir(t), "server")
	if err := testprog.CopySelf(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// run has a server listen, and returns when it does.
func run(t *testing.T, program string, uid uint32, network, addr, how string) *server {
	t.Helper()
	s := &server{cmd: exec.Command(program)}
	s.cmd.Env = []string{beServer + "=" + network + " " + addr + " " + how, noRaceSleep}
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end() })
	if !s.out.Scan() || !strings.HasPrefix(s.out.Text(), "at ") {
		t.Fatalf("%s %s: %s", network, addr, s.out.Text())
	}
	s.addr, _ = netip.ParseAddrPort(strings.TrimPrefix(s.out.Text(), "at ")) // not of a UNIX socket
	return s
}

// end ends the process, and returns what it says that it has read.
func (s *server) end() (said string) {
	s.in.Close()
	for s.out.Scan() {
		said = s.out.Text()
	}
	s.cmd.Wait()
	return said
}

// stop has it listen no more, and keep its connections.
func (s *server) stop(t *testing.T) {
	t.Helper()
	fmt.Fprintln(s.in)
	if !s.out.Scan() || s.out.Text() != "stopped" {
		t.Fatalf("it does not stop: %q", s.out.Text())
	}
}

func targetAt(addr netip.AddrPort) *tcpTarget {
	return &tcpTarget{addr: addr, account: "owner", uid: owner, dial: plainDial}
}

func outcome(err error) forward.Outcome {
	if r, ok := errors.AsType[*forward.Refusal](err); ok {
		return r.Outcome
	}
	return ""
}

// at returns the address at which a server on any address of this machine is reached by loopback.
func at(s *server, host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), s.addr.Port())
}

// The account's own backend, whatever it listens at, and root's for it.
func TestRule52RightBackend(t *testing.T) {
	p := program(t)
	for _, c := range []struct {
		network, addr, host string
		uid                 uint32
	}{
		{"tcp4", "127.0.0.1:0", "127.0.0.1", owner}, {"tcp4", "0.0.0.0:0", "127.0.0.1", owner}, {"tcp", "[::]:0", "127.0.0.1", owner},
		{"tcp6", "[::1]:0", "::1", owner}, {"tcp", "[::]:0", "::1", owner}, {"tcp4", "127.0.0.1:0", "127.0.0.1", 0},
	} {
		s := run(t, p, c.uid, c.network, c.addr, "reuse")
		run(t, p, c.uid, c.network, s.addr.String(), "reuse") // two processes of one server
		for range 8 {
			conn, release, err := targetAt(at(s, c.host)).connect(t.Context(), "")
			if err != nil {
				t.Fatalf("%s %s as %d: %v", c.network, c.addr, c.uid, err)
			}
			conn.Close()
			release()
		}
	}
}

// The ports that are taken by connections to one server are free for those to another: in a network with eight ports, six to each.
func TestPortsOfTargets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	if err := testdns.NewNetwork(t).Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40007"), 0); err != nil {
			return err
		}
		for _, addr := range []string{"127.0.0.1:20001", "127.0.0.1:20002"} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			defer l.Close()
			for n := range 6 {
				conn, release, err := plainDial(t.Context(), netip.MustParseAddrPort(addr), "")
				if err != nil {
					return fmt.Errorf("connection %d: %w", n+1, err)
				}
				defer release()
				defer conn.Close()
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Another account has the port, at any address that the connection could go to: it is not connected to at all.
func TestRule52PortTaken(t *testing.T) {
	p := program(t)
	for _, c := range []struct{ network, addr, host string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"}, {"tcp4", "0.0.0.0:0", "127.0.0.1"}, {"tcp", "[::]:0", "127.0.0.1"},
		{"tcp6", "[::1]:0", "::1"}, {"tcp6", "[::]:0", "::1"},
	} {
		s := run(t, p, impostor, c.network, c.addr, "reuse")
		target := targetAt(at(s, c.host))
		target.dial = func(context.Context, netip.AddrPort, string) (*net.TCPConn, func(), error) {
			t.Errorf("%s %s was connected to", c.network, c.addr)
			return nil, nil, errors.New("no")
		}
		_, _, err := target.connect(t.Context(), "")
		if outcome(err) != forward.Impostor || !strings.Contains(err.Error(), fmt.Sprint("uid ", impostor)) ||
			!strings.Contains(err.Error(), "--target-account") {
			t.Errorf("%s %s: %v", c.network, c.addr, err)
		}
	}
}

// The backend stops between the look and the connection, another account takes its port, and the backend is back, or is not,
// by the next look: the impostor reads nothing.
func TestRule52TakenBetween(t *testing.T) {
	p := program(t)
	for _, c := range []struct {
		name, network, addr, how string
		back                     bool
	}{
		{"stays", "tcp4", "127.0.0.1:0", "-", false}, {"is back", "tcp4", "127.0.0.1:0", "-", true}, {"with SO_REUSEPORT", "tcp4", "127.0.0.1:0", "reuse", true},
		{"both families", "tcp", "[::]:0", "-", true}, {"wildcard", "tcp4", "0.0.0.0:0", "-", true}, {"does not accept", "tcp4", "127.0.0.1:0", "deaf", true},
		{"does not accept and stays", "tcp4", "127.0.0.1:0", "deaf", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			right := run(t, p, owner, c.network, c.addr, c.how)
			addr := right.addr.String()
			target := targetAt(at(right, "127.0.0.1"))
			var wrong *server
			target.dial = func(ctx context.Context, to netip.AddrPort, peer string) (*net.TCPConn, func(), error) {
				if wrong != nil { // tried again
					return plainDial(ctx, to, peer)
				}
				right.end()
				wrong = run(t, p, impostor, c.network, addr, c.how)
				conn, release, err := plainDial(ctx, to, peer)
				if err == nil && c.back {
					if c.how != "deaf" {
						awaitAccepted(t, conn)
					}
					// Its listener is gone, its connection is not.
					wrong.stop(t)
					run(t, p, owner, c.network, addr, strings.Replace(c.how, "deaf", "-", 1))
				}
				return conn, release, err
			}
			conn, _, err := target.connect(t.Context(), "")
			switch {
			case !c.back && outcome(err) != forward.Impostor:
				t.Errorf("%v", err)
			case c.back && err != nil: // the second try finds the backend
				t.Errorf("%v", err)
			case c.back:
				conn.Close()
			}
			if said := wrong.end(); said != "read 0" {
				t.Errorf("the impostor: %q", said)
			}
		})
	}
}

// awaitAccepted waits until somebody has accepted a connection.
func awaitAccepted(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	for end := time.Now().Add(testprog.Patience); ; {
		if _, err := sockowner.Lookup(conn); !errors.Is(err, sockowner.ErrNotAccepted) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not accepted")
		}
	}
}

// A backend of the account that accepts, though root listens, and one whose connections another account accepts.
func TestRule52WhoAccepts(t *testing.T) {
	p := program(t)
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	for uid, want := range map[uint32]forward.Outcome{owner: "", impostor: forward.Impostor} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(p)
		cmd.Env, cmd.Dir = []string{acceptVariable + "=1", noRaceSleep}, "/"
		cmd.ExtraFiles = []*os.File{f}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		conn, _, err := targetAt(addr).connect(t.Context(), "")
		if outcome(err) != want || (err == nil) != (want == "") {
			t.Errorf("accepted by %d: %v", uid, err)
		}
		if conn != nil {
			conn.Close()
		}
		if text, _ := io.ReadAll(out); string(text) != "read 0\n" {
			t.Errorf("accepted by %d: %q", uid, text)
		}
		cmd.Wait()
	}
}

// acceptVariable has a copy of the test binary accept one connection at descriptor 3.
const acceptVariable = "SHARED_ALTSD_ACCEPT_TEST"

func init() {
	if os.Getenv(acceptVariable) == "" {
		return
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	n, _ := io.Copy(io.Discard, c)
	fmt.Println("read", n)
	os.Exit(0)
}

func TestBackendThatIsDown(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if _, _, err := targetAt(addr).connect(t.Context(), ""); outcome(err) != forward.Backend || !strings.Contains(err.Error(), "start the backend") {
		t.Error(err)
	}
}

// A backend that waits for a first byte, or for ever, gets none.
func TestBackendThatDoesNotAccept(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := targetAt(l.Addr().(*net.TCPAddr).AddrPort())
	target.uid = uint32(os.Geteuid())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := target.connect(ctx, ""); outcome(err) != forward.Backend || !strings.Contains(err.Error(), "TCP_DEFER_ACCEPT") {
		t.Error(err)
	}
}

// A UNIX socket's server is asked for by SO_PEERCRED, wherever the socket is.
func TestRule52UNIX(t *testing.T) {
	p := program(t)
	for _, uid := range []uint32{owner, impostor, 0} {
		dir := testprog.Dir(t)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "s")
		s := run(t, p, uid, "unix", path, "-")
		conn, err := (&unixTarget{path: path, uids: uidsOf(owner)}).connect(t.Context())
		if (err == nil) != (uid != impostor) || uid == impostor && outcome(err) != forward.Impostor {
			t.Errorf("served by %d: %v", uid, err)
		}
		if err == nil {
			conn.Close()
		}
		if said := s.end(); said != "read 0" {
			t.Errorf("served by %d: %q", uid, said)
		}
	}
}

// A UNIX backend whose queue is full is waited for.
func TestUNIXBackendThatIsSlow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	target := &unixTarget{path: path, uids: uidsOf()}
	first, err := target.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := target.connect(ctx); outcome(err) != forward.Backend {
		t.Error(err)
	}
	second := make(chan error)
	go func() {
		c, err := target.connect(t.Context())
		if err == nil {
			c.Close()
		}
		second <- err
	}()
	accepted, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	if err := <-second; err != nil {
		t.Error(err)
	}
}
