package handed

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

func poller(t *testing.T) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// pair returns a connected TCP pair on loopback and a duplicate of the first end's descriptor, as SCM_RIGHTS would give.
func pair(t *testing.T) (a, b *net.TCPConn, fd int) {
	t.Helper()
	a, b = testnet.Pair(t)
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var derr error
	if err := raw.Control(func(f uintptr) { fd, derr = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || derr != nil {
		t.Fatal(err, derr)
	}
	return a, b, fd
}

func adopt(t *testing.T, p *Poller, fd int) *Socket {
	t.Helper()
	s, err := p.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readFull(s *Socket, b []byte) error {
	for len(b) > 0 {
		n, err := s.Read(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func setBlocking(t *testing.T, fd int, blocking bool) {
	t.Helper()
	if err := unix.SetNonblock(fd, !blocking); err != nil {
		t.Fatal(err)
	}
}

func TestReadWrite(t *testing.T) {
	t.Run("non-blocking", func(t *testing.T) { testReadWrite(t, false) })
	t.Run("blocking", func(t *testing.T) { testReadWrite(t, true) })
}

func testReadWrite(t *testing.T, blocking bool) {
	p := poller(t)
	a, b, fd := pair(t)
	setBlocking(t, fd, blocking)
	s := adopt(t, p, fd)
	defer s.Close()
	if byPoller := s.p != nil; byPoller != blocking {
		t.Errorf("waits by the poller: %v", byPoller)
	}
	defer func() {
		if flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0); err != nil || (flags&unix.O_NONBLOCK == 0) != blocking {
			t.Errorf("the mode was changed: flags %o, %v", flags, err)
		}
	}()
	if got, want := s.Peer().String(), a.RemoteAddr().String(); got != want {
		t.Errorf("Peer() = %s, want %s", got, want)
	}
	// More than the socket buffers hold, so that Write has to wait for room and Read for bytes.
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	go func() {
		got, _ := io.ReadAll(io.LimitReader(b, int64(len(sent))))
		b.Write(got)
	}()
	if _, err := s.Write(sent[:5<<20]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := a.Write(sent[5<<20:]); done <- err }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(sent))
	if err := readFull(s, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("bytes differ")
	}
	b.Close()
	if _, err := s.Read(got); err != io.EOF {
		t.Errorf("after the peer's end: %v, want EOF", err)
	}
}

// Rule 27: whatever is not a connected TCP stream socket is refused and closed.
func TestRule27OnlyConnectedTCP(t *testing.T) {
	p := poller(t)
	socket := func(domain, typ int) func() int {
		return func() int {
			fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	for name, open := range map[string]func() int{
		"file":                func() int { fd, _ := unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0); return fd },
		"directory":           func() int { fd, _ := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0); return fd },
		"path only":           func() int { fd, _ := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); return fd },
		"pipe":                func() int { r, w, _ := os.Pipe(); w.Close(); fd, _ := unix.Dup(int(r.Fd())); r.Close(); return fd },
		"udp":                 socket(unix.AF_INET, unix.SOCK_DGRAM),
		"unix":                socket(unix.AF_UNIX, unix.SOCK_STREAM),
		"netlink":             socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"tcp, not connected":  socket(unix.AF_INET, unix.SOCK_STREAM),
		"tcp6, not connected": socket(unix.AF_INET6, unix.SOCK_STREAM),
		"tcp, listening": func() int {
			fd := socket(unix.AF_INET, unix.SOCK_STREAM)()
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		"epoll": func() int { fd, _ := unix.EpollCreate1(unix.EPOLL_CLOEXEC); return fd },
	} {
		fd := open()
		if fd < 0 {
			t.Fatalf("%s: could not be made", name)
		}
		if s, err := p.Adopt(fd); !errors.Is(err, ErrNotTCP) {
			t.Errorf("%s: Adopt gave %v, %v", name, s, err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: the descriptor is still open", name)
		}
	}
}

// Rule 27: a giver who switches the socket to blocking mode, with nothing to read and no room to write, holds no
// thread.
func TestRule27BlockingModeHoldsNoThread(t *testing.T) {
	p := poller(t)
	var wg sync.WaitGroup
	threads := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "Threads:"); ok {
				var v int
				for _, c := range strings.TrimSpace(n) {
					v = v*10 + int(c-'0')
				}
				return v
			}
		}
		t.Fatal("no Threads line")
		return 0
	}
	const n = 100
	big := make([]byte, 32<<20)
	before := threads()
	var sockets []*Socket
	for i := range n {
		_, _, fd := pair(t)
		// Half of them before the socket is adopted, half only then.
		early := i%4 < 2
		if early {
			setBlocking(t, fd, true)
		}
		s := adopt(t, p, fd)
		if !early {
			setBlocking(t, fd, true)
		}
		sockets = append(sockets, s)
		wg.Go(func() {
			defer s.Close()
			var err error
			if i%2 == 0 {
				_, err = s.Read(make([]byte, 10))
			} else {
				_, err = s.Write(big)
			}
			if !errors.Is(err, ErrInterrupted) {
				t.Errorf("got %v, want ErrInterrupted", err)
			}
		})
	}
	// Let all of them get to their wait: then every thread that could be stuck is.
	for range 100 {
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	if after := threads(); after-before > n/8 {
		t.Errorf("%d threads before, %d with %d sockets waiting", before, after, n)
	}
	for _, s := range sockets {
		s.Interrupt()
	}
	wg.Wait()
}

// An interrupt ends one wait, that which is under way or the next, takes nothing, and may come at any time.
func TestInterrupt(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		p := poller(t)
		_, b, fd := pair(t)
		setBlocking(t, fd, blocking)
		s := adopt(t, p, fd)
		s.Interrupt()
		s.Interrupt()
		buf := make([]byte, 10)
		if n, err := s.Read(buf); n != 0 || err != ErrInterrupted {
			t.Errorf("blocking %v: Read gave %d, %v", blocking, n, err)
		}
		b.Write([]byte("x"))
		if n, err := s.Read(buf); n != 1 || err != nil {
			t.Errorf("blocking %v: then Read gave %d, %v", blocking, n, err)
		}
		s.Interrupt()
		if n, err := s.Write([]byte("y")); n != 0 || err != ErrInterrupted {
			t.Errorf("blocking %v: Write gave %d, %v", blocking, n, err)
		}
		s.Interrupt()
		if n, err := s.Offer([]byte("z")); n != 1 || err != nil {
			t.Errorf("blocking %v: Offer gave %d, %v", blocking, n, err)
		}
		s.Close()
		s.Interrupt()
	}
}

func TestRule27LingerIsCleared(t *testing.T) {
	p := poller(t)
	_, _, fd := pair(t)
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := unix.SetsockoptLinger(other, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
		t.Fatal(err)
	}
	adopt(t, p, fd).Close()
	var l unix.Linger
	if l.Onoff, err = lingerOn(other); err != nil || l.Onoff != 0 {
		t.Errorf("SO_LINGER after Close: %d, %v", l.Onoff, err)
	}
}

func lingerOn(fd int) (int32, error) {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER)
	return int32(v), err
}

// Rule 27: a socket that has hung up wakes the poller once, not again and again while nobody waits for it.
func TestRule27HungUpSocketWakesOnce(t *testing.T) {
	p := poller(t)
	hungUp := func() *Socket {
		_, _, fd := pair(t)
		setBlocking(t, fd, true)
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		return adopt(t, p, fd)
	}
	s := hungUp()
	defer s.Close()
	<-s.ready // EPOLLHUP comes unasked
	o := hungUp()
	defer o.Close()
	<-o.ready // the poller has been round
	select {
	case <-s.ready:
		t.Error("the poller was woken again")
	default:
	}
}

// Rule 27: a giver who goes on reading from the socket steals bytes from himself, and does not make us look for ever.
func TestRule27GiverStealsBytes(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		p := poller(t)
		a, b, fd := pair(t)
		setBlocking(t, fd, blocking)
		s := adopt(t, p, fd)
		defer s.Close()
		tries := 0
		done := make(chan error, 1)
		go func() {
			done <- s.wait(false, func() bool { // the giver was faster each time
				tries++
				return false
			})
		}()
		for err := error(nil); err == nil; {
			select {
			case err = <-done:
				if err != ErrTaken || tries != maxFruitless {
					t.Errorf("blocking %v: %v after %d tries, want ErrTaken after %d", blocking, err, tries, maxFruitless)
				}
			default:
				if _, err = b.Write([]byte{0}); err == nil {
					_, err = a.Read(make([]byte, 1))
				}
				if err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// A connection from which nobody reads is watched: bytes are nothing, its end is something, and our own reading end's
// closing is told apart.
func TestWatch(t *testing.T) {
	p := poller(t)
	x, y := unixPair(t)
	events := make(chan bool, 8)
	stop, err := p.Watch(y, func(closed bool) { events <- closed })
	if err != nil {
		t.Fatal(err)
	}
	x.Write([]byte("bytes"))
	y.CloseRead()
	if closed := <-events; closed {
		t.Error("the end of our own reading is the other's closing")
	}
	x.Close()
	for !<-events {
	}
	stop()

	// What ended before is told as well, and nothing once it is stopped.
	x, y = unixPair(t)
	x.CloseWrite()
	if stop, err = p.Watch(y, func(closed bool) { events <- closed }); err != nil {
		t.Fatal(err)
	}
	if closed := <-events; closed {
		t.Error("half a connection's end is the whole's")
	}
	stop()
	x.Close()
	x, y = unixPair(t)
	if _, err = p.Watch(y, func(closed bool) { events <- closed }); err != nil {
		t.Fatal(err)
	}
	x.Close()
	if closed := <-events; !closed {
		t.Error("the first event is of a connection that is watched no longer")
	}
	y.Close()
	if _, err := p.Watch(y, nil); err == nil {
		t.Error("a connection that is closed was taken")
	}
	if len(p.wake) != 1 { // the one that was not stopped
		t.Errorf("%d are watched", len(p.wake))
	}
}

func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

func TestRequestAndAnswer(t *testing.T) {
	p := poller(t)
	for _, size := range []int{1, 100, 5000, MaxMessage - 4} {
		x, y := unixPair(t)
		a, b, dup := pair(t)
		unix.Close(dup)
		raw, err := a.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		want := wrapperspb.Bytes(make([]byte, size))
		rand.Read(want.Value)
		sent := make(chan error, 1)
		go func() { sent <- WriteRequest(x, want, raw) }()
		if c, err := Peek(y); err != nil || c != 0 {
			t.Fatalf("Peek gave %q, %v", c, err)
		}
		var got wrapperspb.BytesValue
		message, fd, err := ReadRequest(y, time.Minute)
		if err != nil || proto.Unmarshal(message, &got) != nil || !proto.Equal(&got, want) {
			t.Fatalf("%d bytes: ReadRequest gave %v", size, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !Alive(x) {
			t.Error("a silent connection is not alive")
		}
		go func() { sent <- WriteAnswer(y, want) }()
		got.Reset()
		if err := ReadAnswer(x, &got); err != nil || !proto.Equal(&got, want) {
			t.Fatalf("%d bytes: ReadAnswer gave %v", size, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		s := adopt(t, p, fd)
		if _, err := s.Write([]byte("through")); err != nil {
			t.Fatal(err)
		}
		s.Close()
		through := make([]byte, 7)
		if _, err := io.ReadFull(b, through); err != nil || string(through) != "through" {
			t.Errorf("the peer got %q, %v", through, err)
		}
		if _, err := a.Write([]byte("still")); err != nil {
			t.Errorf("the giver's own descriptor: %v", err)
		}
		y.Close()
		if Alive(x) {
			t.Error("a closed connection is alive")
		}
		if _, err := Peek(x); err != io.EOF {
			t.Errorf("Peek at the end gave %v", err)
		}
	}
}

// Rule 27: none, two, or many descriptors: all that came are closed.
func TestRule27ExactlyOneDescriptor(t *testing.T) {
	for _, count := range []int{0, 2, 3, 200} {
		x, y := unixPair(t)
		before := testnet.Descriptors(t)
		var oob []byte
		if count > 0 {
			oob = unix.UnixRights(make([]int, count)...)
		}
		if _, _, err := x.WriteMsgUnix([]byte("\x00\x00\x00\x00"), oob, nil); err != nil {
			t.Fatal(err)
		}
		if _, fd, err := ReadRequest(y, time.Minute); !errors.Is(err, ErrNoDescriptor) || fd != -1 {
			t.Errorf("%d descriptors: ReadRequest gave %d, %v", count, fd, err)
		}
		if after := testnet.Descriptors(t); after != before {
			t.Errorf("%d descriptors: %d open before, %d after", count, before, after)
		}
	}
}

// What breaks the format is an error at once, and the descriptor is closed.
func TestBadRequests(t *testing.T) {
	for name, b := range map[string]string{
		"too long":          "\x00\x02\x00\x01",
		"far too long":      "\xff\xff\xff\xff",
		"bytes after it":    "\x00\x00\x00\x00x",
		"ends in the size":  "\x00\x00",
		"ends in the body":  "\x00\x00\x00\x05abc",
		"HTTP/2":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"ends in much body": "\x00\x01\xff\xffabc",
	} {
		x, y := unixPair(t)
		before := testnet.Descriptors(t)
		if _, _, err := x.WriteMsgUnix([]byte(b), unix.UnixRights(0), nil); err != nil {
			t.Fatal(err)
		}
		x.CloseWrite()
		if _, fd, err := ReadRequest(y, time.Minute); err == nil || err == io.EOF || fd != -1 {
			t.Errorf("%s: ReadRequest gave %d, %v", name, fd, err)
		}
		if after := testnet.Descriptors(t); after != before {
			t.Errorf("%s: %d descriptors open before, %d after", name, before, after)
		}
	}
	x, y := unixPair(t)
	x.Close()
	if _, _, err := ReadRequest(y, time.Minute); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
}
