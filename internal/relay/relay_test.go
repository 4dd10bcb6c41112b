package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// reports collects what a relay says.
type reports struct {
	mu   sync.Mutex
	said []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, err.Error())
}

func (r *reports) contains(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(strings.Join(r.said, "\n"), s)
}

// start gives a relay to a UNIX socket that serve answers, and the relay's address.
func start(t *testing.T, serve func(net.Conn)) (*Relay, *net.TCPAddr, *reports) {
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
	var rep reports
	r, err := New(path, rep.add)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		r.Close()
	})
	return r, l.Addr().(*net.TCPAddr), &rep
}

func echo(c net.Conn) {
	io.Copy(c, c)
	c.Close()
}

func TestRelayCarriesBytes(t *testing.T) {
	_, addr, rep := start(t, echo)
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
	r, addr, rep := start(t, nil)
	if err := r.Probe(); err == nil || !strings.Contains(err.Error(), "no shared-altsd daemon answers at") {
		t.Errorf("Probe: %v", err)
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
	_, addr, rep := start(t, func(c net.Conn) { reached <- struct{}{}; echo(c) })
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

func TestOwner(t *testing.T) {
	_, server := testnet.Pair(t)
	first, err := owner(server)
	if err != nil {
		t.Fatal(err)
	}
	if first.uid != uint32(os.Geteuid()) || first.inode == 0 || first.cookie == [2]uint32{} {
		t.Errorf("owner: %+v", first)
	}
	if again, err := owner(server); err != nil || again != first {
		t.Errorf("owner again: %+v, %v", again, err)
	}
	_, other := testnet.Pair(t)
	if second, err := owner(other); err != nil || second == first {
		t.Errorf("owner of another connection: %+v, %v", second, err)
	}
}

// TestOwnerOfEnding has the kernel's answers that name uid 0 for sockets that are nobody's any more.
func TestOwnerOfEnding(t *testing.T) {
	client, server := testnet.Pair(t)
	client.Close()
	if _, err := io.ReadAll(server); err != nil { // the client's FIN has arrived
		t.Fatal(err)
	}
	if p, err := owner(server); err == nil {
		t.Errorf("a closed client: %+v", p)
	}
	src, dst := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
	server.Close() // the client's side is in TIME_WAIT now, or gone
	if p, err := lookupPeer(src, dst); err == nil {
		t.Errorf("TIME_WAIT: %+v", p)
	}

	// Our own end no longer connected, the other end's socket still open.
	_, server = testnet.Pair(t)
	server.CloseWrite()
	if _, err := owner(server); err == nil {
		t.Error("own end in FIN_WAIT")
	}
}

// TestOwnerOfBothFamilies has an IPv6 socket that is connected to an IPv4 address, as C-core makes them.
func TestOwnerOfBothFamilies(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p, err := owner(c); err != nil || p.uid != uint32(os.Geteuid()) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestLookupFindsNoListener(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err := lookupPeer(addrPort(l.Addr()), netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Errorf("a listening socket was taken for a peer: %+v", p)
	}
	for _, a := range []string{"192.0.2.1:5", "[::1]:5"} {
		if _, err := lookupPeer(netip.MustParseAddrPort(a), addrPort(l.Addr())); err == nil ||
			!strings.Contains(err.Error(), "not an IPv4 loopback connection") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestCheckDiag(t *testing.T) {
	src, dst := netip.MustParseAddrPort("127.0.0.1:1000"), netip.MustParseAddrPort("127.1.2.3:8080")
	good := func() *diagMessage {
		m := &diagMessage{family: unix.AF_INET, state: tcpEstablished, uid: 1000, inode: 77, id: newSockID(src, dst)}
		m.id.cookie = [2]uint32{5, 6}
		return m
	}
	raw := func(m *diagMessage) []byte {
		return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(m)), unsafe.Sizeof(*m)))
	}
	if p, err := checkDiag(raw(good()), src, dst); err != nil || p != (peer{1000, 77, [2]uint32{5, 6}}) {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := checkDiag(raw(good())[:71], src, dst); err == nil {
		t.Error("a short answer was taken")
	}
	for name, spoil := range map[string]func(*diagMessage){
		"TIME_WAIT":     func(m *diagMessage) { m.state = 6 },
		"LISTEN":        func(m *diagMessage) { m.state = 10 },
		"no inode":      func(m *diagMessage) { m.inode = 0 },
		"UNIX":          func(m *diagMessage) { m.family = unix.AF_UNIX },
		"not mapped":    func(m *diagMessage) { m.family = unix.AF_INET6 },
		"source port":   func(m *diagMessage) { m.id.sport[1]++ },
		"other port":    func(m *diagMessage) { m.id.dport[1]++ },
		"source":        func(m *diagMessage) { m.id.src[3]++ },
		"destination":   func(m *diagMessage) { m.id.dst[3]++ },
		"IPv6 leftover": func(m *diagMessage) { m.id.dst[15]++ },
	} {
		m := good()
		spoil(m)
		if p, err := checkDiag(raw(m), src, dst); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	header := func(size uint32, kind uint16, body ...byte) []byte {
		b := make([]byte, unix.NLMSG_HDRLEN, 64)
		binary.NativeEndian.PutUint32(b, size)
		binary.NativeEndian.PutUint16(b[4:], kind)
		return append(b, body...)
	}
	if b, err := parseAnswer(header(18, diagByFamily, 1, 2)); err != nil || !bytes.Equal(b, []byte{1, 2}) {
		t.Errorf("%v, %v", b, err)
	}
	noEntry := make([]byte, 4)
	minus := -int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(noEntry, uint32(minus))
	if _, err := parseAnswer(header(20, unix.NLMSG_ERROR, noEntry...)); err != syscall.ENOENT {
		t.Errorf("ENOENT: %v", err)
	}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"cut header":    header(16, diagByFamily)[:15],
		"longer":        header(40, diagByFamily, 1),
		"less":          header(15, diagByFamily),
		"acknowledged":  header(20, unix.NLMSG_ERROR, 0, 0, 0, 0),
		"cut error":     header(18, unix.NLMSG_ERROR, 0, 0),
		"done":          header(16, unix.NLMSG_DONE),
		"another topic": header(18, 21, 1, 2),
	} {
		if got, err := parseAnswer(b); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestReleaseChecksAgain gives a connection whose other end is not the socket that was seen at accept.
func TestReleaseChecksAgain(t *testing.T) {
	r, _, rep := start(t, func(c net.Conn) { c.Write([]byte("secret")); echo(c) })
	client, server := testnet.Pair(t)
	id, err := owner(server)
	if err != nil {
		t.Fatal(err)
	}
	id.cookie[0]++
	r.serve(server, id)
	client.SetDeadline(time.Now().Add(30 * time.Second))
	if b, _ := io.ReadAll(client); len(b) != 0 {
		t.Errorf("released %q", b)
	}
	if !rep.contains("no longer the one that was accepted") {
		t.Errorf("reports: %q", rep.said)
	}
}

func TestServeLoopbackOnly(t *testing.T) {
	r, _, _ := start(t, echo)
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := r.Serve(l); err == nil || !strings.Contains(err.Error(), "loopback addresses only") {
		t.Errorf("Serve: %v", err)
	}
}
