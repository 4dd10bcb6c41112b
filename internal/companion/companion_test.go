package companion

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const protocol = "shared-altsd test 1"

// echo answers what it is asked, but for nothing, which breaks the protocol.
func echo(_ context.Context, req []byte) []byte {
	if len(req) == 0 {
		return nil
	}
	return req
}

// serve has s serve a socket until stop or the end of the test, and returns the socket's path.
func serve(t testing.TB, s *Server, path string) (log *testprog.Log, stop func()) {
	t.Helper()
	if s.Protocol == "" {
		s.Protocol = protocol
	}
	if s.InFlight == 0 {
		s.InFlight = 8
	}
	log = new(testprog.Log)
	s.Log = slog.New(slog.NewTextHandler(log, nil))
	t.Cleanup(func() { testlog.Load(t, "../..").Sections["Companions"].CheckText(t, log.String()) })
	ctx, end := context.WithCancel(context.Background())
	stop = testnet.Serve(t, path, func(l *net.UnixListener) error { return s.Serve(ctx, l) }, func(context.Context) error { end(); return nil })
	return log, stop
}

func client(t testing.TB, path string) *Client {
	c := NewClient(path, protocol)
	t.Cleanup(func() { c.Close() })
	return c
}

func must(t testing.TB, c *Client, req string) {
	t.Helper()
	if answer, err := c.Call(t.Context(), []byte(req)); err != nil || string(answer) != req {
		t.Fatalf("%.40q, %v, want %.40q", answer, err, req)
	}
}

// Answers find their calls, in whatever order they come, and the largest ones pass.
func TestCalls(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	second := make(chan struct{})
	serve(t, &Server{Handle: func(ctx context.Context, req []byte) []byte {
		switch string(req) {
		case "first":
			<-second
		case "second":
			defer close(second)
		}
		return echo(ctx, req)
	}}, path)
	c := client(t, path)
	var calls sync.WaitGroup
	calls.Go(func() { must(t, c, "first") })
	calls.Go(func() { must(t, c, "second") })
	for i := range 200 {
		calls.Go(func() { must(t, c, fmt.Sprint("call ", i)) })
	}
	calls.Go(func() { must(t, c, strings.Repeat("x", MaxBody)) })
	calls.Wait()
	if _, err := c.Call(t.Context(), make([]byte, MaxBody+1)); err == nil || !strings.Contains(err.Error(), "at most 16384") {
		t.Errorf("a request that is too large: %v", err)
	}
	if n, m := len(c.made.link.asked), len(c.made.link.window); n != 0 || m != 0 {
		t.Errorf("%d calls and %d places are left", n, m)
	}
}

// Who is not named gets nothing, and does not fill the log; who is named has four connections.
func TestRule59Clients(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be other accounts")
	}
	path := filepath.Join(testprog.Dir(t), "socket")
	log, _ := serve(t, &Server{Handle: echo, Clients: func(uid uint32) bool { return uid == 4711 || uid == 65534 }}, path)
	as := func(uid int) (c net.Conn, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // the thread ends with this
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				err = errno
				return
			}
			c, err = net.Dial("unix", path)
		}()
		<-done
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(testprog.Patience))
		_, err = io.ReadFull(c, make([]byte, lengthSize+idSize+len(protocol)))
		return c, err
	}
	var first net.Conn
	for i := range maxConns {
		c, err := as(4711)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if i == 0 {
			first = c
		}
	}
	for _, uid := range []int{4711, 4712, 65534, 4712, 4713} {
		if _, err := as(uid); err == nil {
			t.Errorf("uid %d is served", uid)
		}
	}
	if _, err := as(0); err != nil {
		t.Errorf("root: %v", err)
	}
	if n := strings.Count(log.String(), "refused"); n != 1 || !strings.Contains(log.String(), "uid 4711 has 4 connections") {
		t.Errorf("%d lines of refusals:\n%s", n, log)
	}
	first.Close() // its place is for another one
	for end := time.Now().Add(testprog.Patience); ; {
		if _, err := as(4711); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A companion that is restarted is asked again by a new connection, the requests that it had as well.
func TestRestart(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	asked := make(chan struct{})
	_, stop := serve(t, &Server{Handle: func(ctx context.Context, req []byte) []byte {
		close(asked)
		<-ctx.Done()
		return req
	}}, path)
	c := client(t, path)
	answered := make(chan error)
	go func() {
		<-asked
		stop()
		serve(t, &Server{Handle: echo}, path)
		close(answered)
	}()
	// Between the two nobody is there, which the call tells.
	for end := time.Now().Add(testprog.Patience); ; {
		answer, err := c.Call(t.Context(), []byte("held"))
		if err == nil && string(answer) == "held" {
			break
		}
		if away, ok := errors.AsType[*AwayError](err); !ok || !strings.Contains(away.Error(), "systemctl start shared-altsd-test.socket") ||
			time.Now().After(end) {
			t.Fatal(err)
		}
	}
	<-answered
	must(t, c, "again")
}

// A connection by which nothing comes for long is left for another one; one that is only slow is not.
func TestSilentConnection(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int32
	go testnet.ServeEach(l, func(c net.Conn) {
		n := conns.Add(1)
		r := bufio.NewReader(c)
		greet(c, r, protocol)
		for {
			id, req, err := readFrame(c, r)
			if err != nil {
				return
			}
			if n > 2 {
				c.Write(appendFrame(nil, id, req))
			}
		}
	})
	c := client(t, path)
	give := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := c.Call(ctx, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	give()
	give()
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections before its time is over", n)
	}
	c.stuck = 0
	give() // leaves it
	give() // and the next one
	must(t, c, "by the third one")
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// No end takes descriptors, where the kernel can keep them out: the closing of one could hold it.
func TestRule59NoDescriptors(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	send := func(conn net.Conn) error {
		_, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(1), nil)
		return err
	}
	serve(t, &Server{Handle: echo}, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if errors.Is(handed.TakeDescriptors(conn.(*net.UnixConn), true), errors.ErrUnsupported) {
		return // Linux before 6.16
	}
	conn.SetDeadline(time.Now().Add(testprog.Patience))
	if _, err := io.ReadFull(conn, make([]byte, lengthSize+idSize+len(protocol))); err != nil {
		t.Fatal(err)
	}
	if err := send(conn); !errors.Is(err, unix.EPERM) {
		t.Errorf("to the companion: %v", err)
	}
	other := filepath.Join(testprog.Dir(t), "socket")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 2) // the call is made again once
	go testnet.ServeEach(l, func(c net.Conn) {
		r := bufio.NewReader(c)
		if greet(c, r, protocol) == nil {
			readFrame(c, r)
			sent <- send(c)
		}
	})
	client(t, other).Call(t.Context(), []byte("x")) // whose connection ends
	if err := <-sent; !errors.Is(err, unix.EPERM) {
		t.Errorf("to the daemon: %v", err)
	}
}

// Who waits for another call's attempt to connect, which fails, tries by itself: the companion may have come meanwhile.
func TestJoinedAttempt(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	c := client(t, path)
	early := &attempt{done: make(chan struct{})} // of a call before
	c.made = early
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if answer, err := c.Call(t.Context(), []byte("after it")); err != nil || string(answer) != "after it" {
			t.Errorf("%q, %v", answer, err)
		}
	}()
	serve(t, &Server{Handle: echo}, path)
	early.err = unix.ECONNREFUSED
	close(early.done)
	<-answered
}

// While the companion has enough to do the next request waits, and no account has all of it. What was given up does not keep it from
// what is wanted: of that it has no more than the client's window.
func TestInFlight(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	var now, most, all atomic.Int32
	hold := make(chan struct{})
	serve(t, &Server{InFlight: 4, Handle: func(ctx context.Context, req []byte) []byte {
		all.Add(1)
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-hold
		return echo(ctx, req)
	}}, path)
	c := client(t, path)
	c.Window = 8
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if _, err := c.Call(ctx, bytes.Repeat([]byte("x"), MaxBody)); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for now.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	calls.Wait()
	close(hold)
	must(t, c, "after them")
	if most.Load() != 3 || all.Load() > 9 {
		t.Errorf("%d requests at a time, want 3; %d in all, want 9 at most", most.Load(), all.Load())
	}
}

// A client that does not read its answers is not read.
func TestAnswersNotTaken(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	var all atomic.Int32
	serve(t, &Server{InFlight: 8, Handle: func(context.Context, []byte) []byte {
		all.Add(1)
		return make([]byte, MaxBody)
	}}, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	conn.Write(appendFrame(nil, helloID, []byte(protocol)))
	frames := bytes.Repeat(appendFrame(nil, 5, []byte{2}), 1000)
	for range 1000 {
		if _, err := conn.Write(frames); err != nil {
			break
		}
	}
	if all.Load() > 1000 { // what the kernel's buffers hold, and six more
		t.Errorf("%d requests were worked on", all.Load())
	}
	conn.Close()
	if _, err := client(t, path).Call(t.Context(), []byte("x")); err != nil {
		t.Errorf("when it is gone: %v", err)
	}
}

// A peer that breaks the frame is cut, and others are not.
func TestBrokenFrames(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	log, _ := serve(t, &Server{Handle: echo}, path)
	c := client(t, path)
	must(t, c, "before")
	hello := string(appendFrame(nil, helloID, []byte(protocol)))
	for _, tt := range []struct{ name, says string }{
		{"another protocol", string(appendFrame(nil, helloID, []byte("shared-altsd test 2")))},
		{"a hello with an id", string(appendFrame(nil, 1, []byte(protocol)))},
		{"a frame that is too short", hello + "\x00\x03abc"},
		{"a frame that is too long", hello + "\x40\x05"},
		{"a request that cannot be answered", hello + string(appendFrame(nil, 1, nil))},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n"},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(testprog.Patience))
		conn.Write([]byte(tt.says))
		if got, err := io.ReadAll(conn); err != nil && !errors.Is(err, unix.ECONNRESET) || !strings.HasPrefix(hello, string(got)) {
			t.Errorf("%s: %q, %v, want no more than the hello", tt.name, got, err)
		}
		conn.Close()
	}
	must(t, c, "after")
	if n := strings.Count(log.String(), "a connection was closed"); n != 2 { // one of each kind
		t.Errorf("%d lines, want 2:\n%s", n, log)
	}
}

// A companion that answers what nobody asked is left.
func TestAnswerToNothing(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go testnet.ServeEach(l, func(c net.Conn) {
		c.SetDeadline(time.Now().Add(testprog.Patience))
		c.Write(appendFrame(appendFrame(nil, helloID, []byte(protocol)), 4711, []byte("x")))
		io.Copy(io.Discard, c)
	})
	if _, err := client(t, path).Call(t.Context(), []byte("x")); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Error(err)
	}
}

// A client believes the companion's end only as who may serve that place, and says of each other one what is wrong.
func TestRule59Companion(t *testing.T) {
	dir := testprog.Dir(t)
	for _, tt := range []struct {
		name  string
		serve func(conn net.Conn) // nil for nobody
		want  string
	}{
		{"nobody", nil, "is away: dial unix"},
		{"another companion", func(c net.Conn) { c.Write(appendFrame(nil, helloID, []byte("shared-altsd signer 1"))) },
			`speaks "shared-altsd signer 1", not "shared-altsd test 1"`},
		{"one that does not know us", func(c net.Conn) {}, "its --client does not name uid"},
		{"what is no companion", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "a frame of 18516 bytes"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
		if tt.serve != nil {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go testnet.ServeEach(l, func(c net.Conn) {
				tt.serve(c)
				c.SetReadDeadline(time.Now().Add(testprog.Patience))
				io.ReadFull(c, make([]byte, lengthSize+idSize+len(protocol)))
			})
		}
		if _, err := client(t, path).Call(t.Context(), []byte("x")); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	// In a directory of the companion's own account it, and nobody else, may serve; below one that everybody writes, not even it.
	sticky := filepath.Join(dir, "sticky")
	if err := errors.Join(os.Mkdir(sticky, 0o777), os.Chmod(sticky, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		above      string
		mode       os.FileMode
		owner, uid int
		want       string // "" for an answer
	}{
		{dir, 0o755, 4711, 4711, ""}, {dir, 0o755, 4711, 4712, "is not believed: it is served by uid 4712"}, {dir, 0o755, 0, 4711, "uid 4711"},
		{dir, 0o775, 4711, 4711, "belongs to uid 4711"}, {sticky, 0o755, 4711, 4711, "belongs to uid 4711"}, {dir, 0o755, 4711, 0, ""},
		{dir, 0o755, 65534, 65534, "belongs to uid 65534"},
	} {
		at := filepath.Join(tt.above, fmt.Sprint("at", i))
		if err := errors.Join(os.Mkdir(at, tt.mode), os.Chmod(at, tt.mode), os.Chown(at, tt.owner, tt.owner)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(at, "socket")
		l := listenAs(t, tt.uid, path)
		ctx, end := context.WithCancel(t.Context())
		served := make(chan error)
		s := &Server{Protocol: protocol, InFlight: 1, Handle: echo, Log: slog.New(slog.DiscardHandler)}
		go func() { served <- s.Serve(ctx, l) }()
		answer, err := client(t, path).Call(t.Context(), []byte("x"))
		if tt.want == "" && (err != nil || string(answer) != "x") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("row %d: %q, %v, want %q", i, answer, err, tt.want)
		}
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// listenAs listens at path as uid, on a thread that ends with that.
func listenAs(t *testing.T, uid int, path string) (l *net.UnixListener) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fd, serr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err = serr; err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		if err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), os.Chmod(path, 0o666)); err != nil {
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		if err = unix.Listen(fd, 8); err != nil { // the kernel takes who listens
			return
		}
		var any net.Listener
		if any, err = net.FileListener(f); err == nil {
			l = any.(*net.UnixListener)
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A closed client ends its calls, and makes no connection any more.
func TestClose(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	asked := make(chan struct{})
	serve(t, &Server{Handle: func(ctx context.Context, req []byte) []byte {
		close(asked)
		<-ctx.Done()
		return nil
	}}, path)
	c := client(t, path)
	go func() {
		<-asked
		c.Close()
	}()
	for range 2 {
		if _, err := c.Call(t.Context(), []byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// Names and uids of --client are accounts; nobody's is none.
func TestAccounts(t *testing.T) {
	may, err := Accounts([]string{"root", "4711"})
	if err != nil || !may(0) || !may(4711) || may(4712) {
		t.Errorf("%v", err)
	}
	for name, want := range map[string]string{"no-such-account-here": "unknown user", "65534": "every account unknown"} {
		if _, err := Accounts([]string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// A frame that is read is the one that was written, and nothing else is read.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 7, []byte("abc")))
	f.Add(appendFrame(appendFrame(nil, helloID, []byte(protocol)), 1<<31, nil))
	f.Add([]byte("\x00\x03abc"))
	f.Add([]byte("\x40\x05"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var again []byte
		for r := bytes.NewReader(in); ; {
			id, body, err := parseFrame(r)
			if err != nil {
				if err == io.EOF && len(again) != len(in) {
					t.Errorf("EOF after %d of %d bytes", len(again), len(in))
				}
				break
			}
			if len(body) > MaxBody {
				t.Errorf("a body of %d bytes", len(body))
			}
			again = appendFrame(again, id, body)
		}
		if !bytes.HasPrefix(in, again) {
			t.Errorf("%x read as %x", in, again)
		}
	})
}

// Whatever a client sends behind its hello, it gets whole frames, each an answer to one that it sent, and the server goes on.
func FuzzServer(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 1, []byte("a")), 2, []byte("b")))
	f.Add(appendFrame(appendFrame(nil, 1, []byte("a")), 1, []byte("a")))
	f.Add(append(appendFrame(nil, 1, []byte("a")), "\x00\x01"...))
	path := filepath.Join(testprog.Dir(f), "socket")
	serve(f, &Server{Handle: echo}, path)
	f.Fuzz(func(t *testing.T, in []byte) {
		sent := map[string]int{}
		for r := bytes.NewReader(in); ; {
			id, body, err := parseFrame(r)
			if err != nil {
				break
			}
			sent[fmt.Sprint(id, body)]++
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testprog.Patience))
		go func() {
			conn.Write(append(appendFrame(nil, helloID, []byte(protocol)), in...))
			conn.(*net.UnixConn).CloseWrite()
		}()
		if id, body, err := parseFrame(conn); id != helloID || string(body) != protocol || err != nil {
			t.Fatalf("%d, %q, %v", id, body, err)
		}
		for {
			id, body, err := parseFrame(conn)
			if err == io.EOF || errors.Is(err, unix.ECONNRESET) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if key := fmt.Sprint(id, body); sent[key] == 0 {
				t.Fatalf("an answer to nothing: %d, %q", id, body)
			} else {
				sent[key]--
			}
		}
	})
}

// What is wrong with a companion is told with what to do about it.
func TestAwayError(t *testing.T) {
	for want, err := range map[string]error{
		"run it as root or as the daemon's account":                &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.EACCES)},
		"start it ('systemctl start shared-altsd-test.socket')":    &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.ENOENT)},
		"see why it fails ('systemctl status shared-altsd-test.se": fmt.Errorf("nobody has taken the connection within %v", pause),
		"is not believed": &helloError{"x", "y"},
	} {
		if text := (&AwayError{"shared-altsd-test", err}).Error(); !strings.Contains(text, want) {
			t.Errorf("%q, want %q", text, want)
		}
	}
}
