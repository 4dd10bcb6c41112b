package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// startConnect runs connect with listeners as an account until the test ends, and returns it once it listens.
func startConnect(t testing.TB, attr *syscall.SysProcAttr, args ...string) *process {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.SysProcAttr = attr
	p := launch(t, "", cmd)
	p.told.waitAfter(t, 0, "READY=1")
	return p
}

// asUID calls do on a thread of its own whose effective uid is another.
func asUID(t testing.TB, uid uint32, do func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		do()
	})
	wg.Wait()
}

// dialAs connects to addr as an account, from a port that is given or 0.
func dialAs(t testing.TB, uid uint32, addr netip.AddrPort, from uint16) net.Conn {
	t.Helper()
	var fd int
	var err error
	asUID(t, uid, func() {
		local := sockaddr(netip.AddrPortFrom(addr.Addr(), from))
		if fd, err = unix.Socket(family(addr), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil && from != 0 {
			if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
				err = unix.Bind(fd, local)
			}
		}
		if err == nil {
			err = unix.Connect(fd, sockaddr(addr))
		}
	})
	if err != nil {
		t.Fatalf("uid %d to %v: %v", uid, addr, err)
	}
	f := os.NewFile(uintptr(fd), "dialled")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// freeze stops the process, and returns once all of it stands still.
func (p *process) freeze() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	stands := func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Cmd.Process.Pid))
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if err == nil && !strings.Contains(string(stat), ") T ") {
				return false
			}
		}
		return err == nil && len(tasks) > 0
	}
	for deadline := time.Now().Add(testprog.Patience); !stands(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatal("it does not stop")
		}
	}
}

// freePort returns a port that nobody has at the moment.
func freePort(t testing.TB, addr netip.Addr) uint16 {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// carries fails unless what is sent over c comes back, and closes it.
func carries(t testing.TB, who string, c net.Conn) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(testprog.Patience))
	sent := random(1000)
	if _, err := c.Write(sent); err != nil {
		t.Errorf("%s: %v", who, err)
		return
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%s: %v", who, err)
	}
}

// turnedAway fails unless c ends without a byte.
func turnedAway(t testing.TB, who string, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(testprog.Patience))
	c.Write([]byte("x"))
	n, err := c.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); n != 0 || err == nil || ok && ne.Timeout() {
		t.Errorf("%s: read %d bytes, %v", who, n, err)
	}
}

// listeningAt returns the addresses at which a process listens, as it logs them.
func listeningAt(t testing.TB, p *process) (addrs []netip.AddrPort) {
	t.Helper()
	p.log.waitAfter(t, 0, "shared-altsd connect starts")
	_, list, _ := strings.Cut(p.log.String(), "listens=")
	list, _, _ = strings.Cut(list, "\n")
	for _, a := range strings.Split(strings.Trim(list, `"`), ", ") {
		if addr, err := netip.ParseAddrPort(a); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// lender runs connect as an account of no privileges, as only root can, and returns its uid and that of a stranger.
func lender(t testing.TB) (attr *syscall.SysProcAttr, own, stranger uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to connect as several accounts: run the tests of this package as root")
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}, 1, 2
}

// Two accounts at one connect: who is not its own is refused, and no handshake is begun for him.
func TestRule51TwoUIDs(t *testing.T) {
	attr, own, stranger := lender(t)
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	dir := ownedDir(t, own)
	path := filepath.Join(dir, "socket")
	p := startConnect(t, attr, far.args("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", "unix:"+path)...)
	addrs := listeningAt(t, p)
	if len(addrs) != 2 {
		t.Fatalf("it listens at %v", addrs)
	}
	for _, addr := range addrs {
		carries(t, fmt.Sprint("its own account at ", addr), dialAs(t, own, addr, 0))
	}
	carries(t, "its own account at the UNIX socket", dialUnixAs(t, own, path))
	before := daemon.handshakes()
	if before != 3 {
		t.Errorf("%d handshakes, want 3", before)
	}
	for _, addr := range addrs {
		for _, uid := range []uint32{stranger, 0, 65534} {
			turnedAway(t, fmt.Sprint("uid ", uid, " at ", addr), dialAs(t, uid, addr, 0))
		}
	}
	// A socket whose file was removed is bound again, and lends no more.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.log.waitAfter(t, 0, "was bound again")
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	carries(t, "its own account at the new UNIX socket", dialUnixAs(t, own, path))
	before++
	// Root alone can come near the UNIX socket.
	turnedAway(t, "root at the UNIX socket", dialUnixAs(t, 0, path))
	if now := daemon.handshakes(); now != before {
		t.Errorf("%d handshakes were begun for strangers", now-before)
	}
	for _, uid := range []uint32{stranger, 0, 65534} {
		line := fmt.Sprintf("a connection of uid %d was refused", uid)
		p.log.waitAfter(t, 0, line)
		if n := strings.Count(p.log.String(), line); n != 1 {
			t.Errorf("%d lines about uid %d", n, uid)
		}
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, p.log)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// What was a connection of an account's when it came, and is none or another's when it is looked up, is refused.
func TestRule51EndingAndReused(t *testing.T) {
	attr, own, stranger := lender(t)
	t.Run("an account", func(t *testing.T) { endingAndReused(t, attr, own, stranger) })
	// What the kernel keeps of a socket that is closed (TIME_WAIT) shows uid 0.
	t.Run("root", func(t *testing.T) { endingAndReused(t, nil, 0, stranger) })
}

func endingAndReused(t *testing.T, attr *syscall.SysProcAttr, own, stranger uint32) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	p := startConnect(t, attr, far.args("--listen", "127.0.0.1:0", "--listen", "[::1]:0")...)
	for _, addr := range listeningAt(t, p) {
		before := daemon.handshakes()
		p.freeze()
		// Closed or reset before they are accepted: nobody owns the other end any more.
		for _, uid := range []uint32{own, stranger} {
			closed, reset := dialAs(t, uid, addr, 0), dialAs(t, uid, addr, 0)
			for _, c := range []net.Conn{closed, reset} {
				c.Write([]byte("closed"))
			}
			reset.(*net.TCPConn).SetLinger(0)
			closed.Close()
			reset.Close()
		}
		// A stranger's connection, whose port an honest program has by the time that it is accepted.
		port := freePort(t, addr.Addr())
		first := dialAs(t, stranger, addr, port)
		first.Write([]byte("stranger's"))
		first.(*net.TCPConn).SetLinger(0)
		first.Close()
		honest := dialAs(t, own, addr, port)
		// And the other way round.
		port = freePort(t, addr.Addr())
		mine := dialAs(t, own, addr, port)
		mine.(*net.TCPConn).SetLinger(0)
		mine.Close()
		taken := dialAs(t, stranger, addr, port)
		p.signal(syscall.SIGCONT)
		carries(t, "the honest program", honest)
		turnedAway(t, "who took a port", taken)
		// Half closed is not closed.
		half := dialAs(t, own, addr, 0).(*net.TCPConn)
		half.Write([]byte("half"))
		half.CloseWrite()
		half.SetDeadline(time.Now().Add(testprog.Patience))
		if got, err := io.ReadAll(half); string(got) != "half" || err != nil {
			t.Errorf("half closed: %q, %v", got, err)
		}
		if n := daemon.handshakes() - before; n != 2 {
			t.Errorf("%v: %d handshakes, want 2:\n%s", addr, n, p.log)
		}
	}
}

// ownedDir returns a directory of an account's, which every other may enter.
func ownedDir(t testing.TB, uid uint32) string {
	t.Helper()
	dir := filepath.Join(testprog.Dir(t), "own")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(uid), -1); err != nil {
		t.Fatal(err)
	}
	return dir
}

func dialUnixAs(t testing.TB, uid uint32, path string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	asUID(t, uid, func() { c, err = net.Dial("unix", path) })
	if err != nil {
		t.Fatalf("uid %d: %v", uid, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// --for serves the accounts that it names, and no others.
func TestRule51For(t *testing.T) {
	attr, own, stranger := lender(t)
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	path := filepath.Join(ownedDir(t, own), "socket")
	p := startConnect(t, attr, far.args("--for", fmt.Sprintf("%d,root", stranger), "--listen", "unix:"+path, "--listen", "127.0.0.1:0")...)
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info, err)
	}
	for _, uid := range []uint32{own, stranger, 0} {
		carries(t, fmt.Sprint("uid ", uid), dialUnixAs(t, uid, path))
		carries(t, fmt.Sprint("uid ", uid), dialAs(t, uid, listeningAt(t, p)[0], 0))
	}
	for _, uid := range []uint32{3, 65534} {
		turnedAway(t, fmt.Sprint("uid ", uid), dialUnixAs(t, uid, path))
		turnedAway(t, fmt.Sprint("uid ", uid), dialAs(t, uid, listeningAt(t, p)[0], 0))
	}
	if n := daemon.handshakes(); n != 6 {
		t.Errorf("%d handshakes, want 6", n)
	}
	code, _, said := altsd(t, far.args("--for", "65534", "--listen", "127.0.0.1:0")...)
	if code != 2 || !strings.Contains(said, "every account unknown here") {
		t.Errorf("--for 65534: exit status %d: %s", code, said)
	}
}

// The socket's file never has more permissions than 0600, from its first moment on, and is not in a directory where somebody
// else could put another.
func TestRule51SocketFile(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	path := filepath.Join(testprog.Dir(t), "socket")
	seen := 0
	for range 10 {
		modes, stop, done := map[fs.FileMode]bool{}, make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				if info, err := os.Lstat(path); err == nil {
					modes[info.Mode().Perm()] = true
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		cmd := exec.Command("sh", append([]string{"-c", `umask 0; exec "$0" "$@"`, program(t)}, far.args("--listen", "unix:"+path)...)...)
		p := launch(t, "", cmd)
		p.told.waitAfter(t, 0, "READY=1")
		close(stop)
		<-done
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		for mode := range modes {
			if mode&^0o600 != 0 {
				t.Errorf("the socket had mode %04o", mode)
			}
		}
		p.stop()
		seen += len(modes)
	}
	if seen == 0 {
		t.Error("the socket's file was never seen while it was made")
	}
	open := testprog.Dir(t)
	if err := os.Chmod(open, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{open: "chmod go-w"}
	if os.Geteuid() == 0 {
		dirs[ownedDir(t, 1)] = "belongs to uid 1"
	} else {
		dirs["/usr"] = "belongs to uid 0"
	}
	for dir, want := range dirs {
		code, _, said := altsd(t, far.args("--listen", "unix:"+filepath.Join(dir, "socket"))...)
		if code != 1 || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d: %s", dir, code, said)
		}
	}
}

// What the peer does at a listener: clean ends pass both ways, and any other is a reset at TCP, and silence or an end at a
// UNIX socket as --unclean says.
func TestConnectListenerEnds(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "")
	dir := testprog.Dir(t)
	for _, hold := range []bool{false, true} {
		word := map[bool]string{false: "close", true: "hold"}[hold]
		path := filepath.Join(dir, word)
		p := startConnect(t, nil, far.args("--unclean", word, "--listen", "127.0.0.1:0", "--listen", "unix:"+path)...)
		tcp := listeningAt(t, p)[0].String()
		for _, network := range []string{"tcp", "unix"} {
			addr := map[string]string{"tcp": tcp, "unix": path}[network]
			// Half-close both ways.
			c, peer := dialThrough(t, far, network, addr)
			up, down := random(megabytes), random(1<<20)
			go func() {
				c.Write(up)
				c.(interface{ CloseWrite() error }).CloseWrite()
			}()
			if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, up) {
				t.Errorf("%s: %d bytes, %v", network, len(got), err)
			}
			go func() {
				peer.Write(down)
				peer.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, down) {
				t.Errorf("%s: %d bytes back, %v", network, len(got), err)
			}
			// Cut by the peer.
			first := p.log.Count()
			c, peer = dialThrough(t, far, network, addr)
			peer.Write([]byte("part"))
			io.ReadFull(c, make([]byte, 4))
			peer.Close()
			switch {
			case network == "unix" && hold:
				p.log.waitAfter(t, first, "connection begins")
				c.SetDeadline(time.Now().Add(100 * time.Millisecond))
				if n, err := c.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
					t.Errorf("%s, %s: %d, %v", network, word, n, err)
				}
				c.Close()
			case network == "unix":
				if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("%s, %s: %d, %v", network, word, n, err)
				}
			default:
				if n, err := c.Read(make([]byte, 1)); n != 0 || !isReset(err) {
					t.Errorf("%s, %s: %d, %v", network, word, n, err)
				}
			}
			p.log.waitAfter(t, first, "outcome=unclean")
		}
		// A SIGKILL of connect is a reset at TCP, and no clean end for the peer.
		c, peer := dialThrough(t, far, "tcp", tcp)
		p.Kill()
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("after a SIGKILL: %v", err)
		}
		if _, err := io.ReadAll(peer); err == nil {
			t.Error("after a SIGKILL the peer saw a clean end")
		}
	}
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset by peer") }

// dialThrough connects by a listener of connect's, and returns both ends.
func dialThrough(t testing.TB, far *farEnd, network, addr string) (net.Conn, *altscreds.Conn) {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testprog.Patience))
	if _, err := c.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	peer := far.accept()
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

// Sockets of the service manager are served by their name, with the checks of their kind.
func TestConnectSystemd(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	path := filepath.Join(testprog.Dir(t), "socket")
	passed := func(t *testing.T, names string, ls []net.Listener, args ...string) *process {
		var given []*os.File
		for _, l := range ls {
			f, err := l.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			given = append(given, f)
		}
		cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, program(t)}, far.args(args...)...)...)
		cmd.ExtraFiles = given
		cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(ls)), "LISTEN_FDNAMES="+names)
		return launch(t, path, cmd)
	}
	listen := func(network, addr string) net.Listener {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	local, tcp := listen("unix", path), listen("tcp", "127.0.0.1:0")
	p := passed(t, "connect:connect", []net.Listener{local, tcp}, "--listen", "systemd:connect")
	p.told.waitAfter(t, 0, "READY=1")
	for _, l := range []net.Listener{local, tcp} {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		carries(t, l.Addr().String(), c)
	}
	if os.Geteuid() == 0 {
		turnedAway(t, "another account", dialAs(t, 2, tcp.Addr().(*net.TCPAddr).AddrPort(), 0))
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, p.log)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the manager's socket was removed: %v", err)
	}
	for _, tt := range []struct{ names, listen, want string }{
		{"other", "systemd:connect", "no socket of that name"}, {"connect:more", "systemd:connect", "is in no --listen"},
		{"wide", "systemd:wide", "not loopback"},
	} {
		ls := []net.Listener{local, tcp}[:strings.Count(tt.names, ":")+1]
		if tt.names == "wide" {
			ls = []net.Listener{listen("tcp", "0.0.0.0:0")}
		}
		p := passed(t, tt.names, ls, "--listen", tt.listen)
		if code := p.wait(); code != 1 || !strings.Contains(p.log.String(), tt.want) {
			t.Errorf("%s: exit status %d: %s", tt.names, code, p.log)
		}
	}
}

// Where the peer is not reached at all, --unclean says what a UNIX socket shows as well; TCP is reset.
func TestConnectListenerUnreached(t *testing.T) {
	daemon := start(t, single(t)...)
	dir := testprog.Dir(t)
	for _, word := range []string{"close", "hold"} {
		path := filepath.Join(dir, word)
		p := startConnect(t, nil, "connect", "--socket", daemon.socket, "--dial", testnet.Refusing(t), "--unclean", word,
			"--listen", "127.0.0.1:0", "--listen", "unix:"+path, me(t)+"@a.test:1")
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p.log.waitAfter(t, 0, "connection refused")
		c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if word == "close" {
			c.SetDeadline(time.Now().Add(testprog.Patience))
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || word == "close" && err != io.EOF || word == "hold" && !os.IsTimeout(err) {
			t.Errorf("%s: %d, %v", word, n, err)
		}
		tcp, err := net.Dial("tcp", listeningAt(t, p)[0].String())
		if isReset(err) {
			continue // before it was seen to be connected
		}
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		tcp.SetDeadline(time.Now().Add(testprog.Patience))
		if n, err := tcp.Read(make([]byte, 1)); n != 0 || !isReset(err) {
			t.Errorf("TCP: %d, %v", n, err)
		}
	}
}
