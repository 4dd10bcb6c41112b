package execns

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/sockowner"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// saidReports collects what a relay says.
type saidReports struct {
	mu   sync.Mutex
	said []string
}

func (r *saidReports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, err.Error())
}

func (r *saidReports) contains(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(strings.Join(r.said, "\n"), s)
}

// startRelay returns a relay to a UNIX socket that serve answers, and the relay's address.
func startRelay(t *testing.T, serve func(net.Conn)) (*relay, *net.TCPAddr, *saidReports) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	if serve != nil {
		ul, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ul.Close() })
		go func() {
			for {
				c, err := ul.Accept()
				if err != nil {
					return
				}
				go serve(c)
			}
		}()
	}
	var rep saidReports
	r, err := newRelay(path, 0, rep.add)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r, l.Addr().(*net.TCPAddr), &rep
}

func echo(c net.Conn) {
	io.Copy(c, c)
	c.Close()
}

func TestRelayCarriesBytes(t *testing.T) {
	_, addr, rep := startRelay(t, echo)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c, err := net.DialTCP("tcp4", nil, addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			sent := make([]byte, 100_000)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			go c.Write(sent)
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(c, got); err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
				t.Errorf("echo: %v, %d bytes", err, len(got))
			}
		})
	}
	wg.Wait()
	if len(rep.said) != 0 {
		t.Errorf("reports: %q", rep.said)
	}
}

func TestRelayWithoutDaemon(t *testing.T) {
	r, addr, rep := startRelay(t, nil)
	if err := r.probe(); err == nil || !strings.Contains(err.Error(), "no shared-altsd daemon answers at") {
		t.Errorf("probe: %v", err)
	}
	c, err := net.DialTCP("tcp4", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a relay without a daemon", n)
	}
	if !rep.contains("no shared-altsd daemon answers at") {
		t.Errorf("reports: %q", rep.said)
	}
}

// dialAs connects to addr with a socket that belongs to uid.
func dialAs(t *testing.T, uid int, addr *net.TCPAddr) int {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	syscall.RawSyscall(unix.SYS_SETFSUID, uintptr(os.Geteuid()), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestRelayRefusesAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's socket")
	}
	reached := make(chan struct{}, 8)
	_, addr, rep := startRelay(t, func(c net.Conn) { reached <- struct{}{}; echo(c) })
	for _, uid := range []int{1, 12345} {
		fd := dialAs(t, uid, addr)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
		unix.Sendto(fd, []byte("x"), unix.MSG_NOSIGNAL, nil)
		if n, err := unix.Read(fd, make([]byte, 1)); n > 0 || err == unix.EAGAIN {
			t.Errorf("uid %d: read %d, %v", uid, n, err)
		}
	}
	if !rep.contains("a connection of uid 12345 was refused") {
		t.Errorf("reports: %q", rep.said)
	}
	select {
	case <-reached:
		t.Error("another user's connection reached the daemon")
	default:
	}
}

// TestReleaseChecksAgain gives a connection whose other end is not the socket that was seen at accept.
func TestReleaseChecksAgain(t *testing.T) {
	r, _, rep := startRelay(t, func(c net.Conn) { c.Write([]byte("secret")); echo(c) })
	client, server := testnet.Pair(t)
	_, other := testnet.Pair(t)
	seen, err := sockowner.LookupEstablished(other)
	if err != nil {
		t.Fatal(err)
	}
	r.carry(server, seen)
	client.SetDeadline(time.Now().Add(30 * time.Second))
	if b, _ := io.ReadAll(client); len(b) != 0 {
		t.Errorf("released %q", b)
	}
	if !rep.contains("no longer the one that was accepted") {
		t.Errorf("reports: %q", rep.said)
	}
}

func TestServeLoopbackOnly(t *testing.T) {
	r, _, _ := startRelay(t, echo)
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := r.serve(l); err == nil || !strings.Contains(err.Error(), "loopback addresses only") {
		t.Errorf("serve: %v", err)
	}
}
