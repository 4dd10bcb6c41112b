package ident

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The accounts of the tests: the forward is root here.
const (
	serverUID   = 61201
	strangerUID = 61202
)

const patience = 30 * time.Second

var home = netip.MustParseAddr("127.77.19.1")

// as runs f in a thread that has this uid and no privileges, and ends with it.
func as(t testing.TB, uid int, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be used again
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- errno
			return
		}
		done <- f()
	}()
	return <-done
}

// Whatever listens at port 113 of this machine, or of another package's tests, is not in the way.
func TestMain(m *testing.M) {
	testnet.Own()
	os.Exit(m.Run())
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for port 113 and for several accounts: run the tests of this package as root")
	}
}

// open makes an Ident whose ports have rested.
func open(t testing.TB, c Config) *Ident {
	t.Helper()
	needRoot(t)
	c.Addr, c.Account = home, serverUID
	if c.Ports == 0 {
		c.Ports = 8
	}
	i, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	rested(i)
	return i
}

func rested(i *Ident) {
	i.ports.mu.Lock()
	defer i.ports.mu.Unlock()
	for n := range i.ports.resting {
		i.ports.resting[n].ready = time.Now()
	}
}

// A server listens as its account at 127.0.0.1.
type server struct {
	t testing.TB
	l *net.TCPListener
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t}
	if err := as(t, serverUID, func() (err error) {
		s.l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.l.Close() })
	return s
}

func (s *server) at() netip.AddrPort { return s.l.Addr().(*net.TCPAddr).AddrPort() }

func (s *server) accept() *net.TCPConn {
	s.t.Helper()
	var c *net.TCPConn
	if err := as(s.t, serverUID, func() (err error) {
		c, err = s.l.AcceptTCP()
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// ask makes a query as an account from an address, and returns all that is answered.
func ask(t testing.TB, uid int, from, query string) (string, error) {
	t.Helper()
	var b []byte
	err := as(t, uid, func() error {
		c, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(from)}, &net.TCPAddr{IP: home.AsSlice(), Port: Port})
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, query); err != nil {
			return err
		}
		b, err = io.ReadAll(c)
		return err
	})
	return string(b), err
}

// askAbout makes the server's query about a connection that it has.
func (s *server) askAbout(c *net.TCPConn) string {
	s.t.Helper()
	got, err := ask(s.t, serverUID, "127.0.0.1", query(c))
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

func query(c *net.TCPConn) string {
	return fmt.Sprintf("%d,%d\r\n", c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port)
}

func dial(t testing.TB, i *Ident, s *server, user string) (c, far *net.TCPConn, release func()) {
	t.Helper()
	c, release, err := i.Dial(t.Context(), s.at(), user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return c, s.accept(), release
}

func wantNobody(t testing.TB, what, got string) {
	t.Helper()
	if !strings.HasSuffix(got, " : ERROR : NO-USER\r\n") {
		t.Errorf("%s: %q", what, got)
	}
}

const alice = "alice@alpha.example.com"

func TestRule54Named(t *testing.T) {
	l := new(testprog.Log)
	i := open(t, Config{Log: slog.New(slog.NewTextHandler(l, nil))})
	s := newServer(t)
	c, far, _ := dial(t, i, s, alice)
	if at := c.LocalAddr().(*net.TCPAddr).AddrPort(); at.Addr() != home || at.Port() < lowest {
		t.Errorf("the connection comes from %v", at)
	}
	want := fmt.Sprintf("%d , %d : USERID : UNIX : alice@alpha.example.com\r\n", c.LocalAddr().(*net.TCPAddr).Port, s.at().Port())
	if got := s.askAbout(far); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// No more programs are let in by an answer than there are connections.
	wantNobody(t, "asked again", s.askAbout(far))
	wantNobody(t, "asked a third time", s.askAbout(far))
	if n := strings.Count(l.String(), "\n"); n != 1 || !strings.Contains(l.String(), "not this forward's, or not any more") {
		t.Errorf("%d lines: %s", n, l)
	}
}

// TestRule54OpenAtBothEnds has each way in which a connection is not, or not any more, what is asked about.
func TestRule54OpenAtBothEnds(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	for name, spoil := range map[string]func(near, far *net.TCPConn, release func()){
		"we have sent our end":     func(near, _ *net.TCPConn, _ func()) { near.CloseWrite() },
		"the server has":           func(_, far *net.TCPConn, _ func()) { far.CloseWrite() },
		"the server has closed it": func(_, far *net.TCPConn, _ func()) { far.Close() },
		"reset":                    func(near, _ *net.TCPConn, _ func()) { near.SetLinger(0); near.Close() },
		"released":                 func(_, _ *net.TCPConn, release func()) { release() },
	} {
		near, far, release := dial(t, i, s, alice)
		q := query(far)
		spoil(near, far, release)
		got, err := ask(t, serverUID, "127.0.0.1", q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantNobody(t, name, got)
	}

	_, far, _ := dial(t, i, s, alice)
	ours, theirs := far.RemoteAddr().(*net.TCPAddr).Port, far.LocalAddr().(*net.TCPAddr).Port
	for name, q := range map[string][2]string{
		"another port of ours":   {"127.0.0.1", fmt.Sprintf("%d,%d\r\n", ours^1, theirs)},
		"another of the server":  {"127.0.0.1", fmt.Sprintf("%d,%d\r\n", ours, theirs^1)},
		"the other way round":    {"127.0.0.1", fmt.Sprintf("%d,%d\r\n", theirs, ours)},
		"from another address":   {"127.0.0.2", fmt.Sprintf("%d,%d\r\n", ours, theirs)},
		"from our own address":   {home.String(), fmt.Sprintf("%d,%d\r\n", ours, theirs)},
		"a port that none holds": {"127.0.0.1", fmt.Sprintf("%d,%d\r\n", 1, theirs)},
	} {
		got, err := ask(t, serverUID, q[0], q[1])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantNobody(t, name, got)
	}
	if got := s.askAbout(far); !strings.HasSuffix(got, alice+"\r\n") {
		t.Errorf("after all these: %q", got)
	}
}

// Another account has the server's port, or nobody has taken the connection.
func TestRule54OnlyTheServersConnections(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	c, release, err := i.Dial(t.Context(), s.at(), alice)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	got, err := ask(t, serverUID, "127.0.0.1", fmt.Sprintf("%d,%d\r\n", c.LocalAddr().(*net.TCPAddr).Port, s.at().Port()))
	if err != nil {
		t.Fatal(err)
	}
	wantNobody(t, "not accepted", got)

	var impostor *net.TCPListener
	if err := as(t, strangerUID, func() (err error) {
		impostor, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer impostor.Close()
	if _, release, err = i.Dial(t.Context(), impostor.Addr().(*net.TCPAddr).AddrPort(), alice); err != nil {
		t.Fatal(err)
	}
	defer release()
	var far *net.TCPConn
	if err := as(t, strangerUID, func() (err error) {
		far, err = impostor.AcceptTCP()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	got, err = ask(t, serverUID, "127.0.0.1", query(far))
	if err != nil {
		t.Fatal(err)
	}
	wantNobody(t, "another account's", got)
}

// TestRule54PortsAreHeld has another account try to come from a port of the forward's, in use or not.
func TestRule54PortsAreHeld(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	c, _, _ := dial(t, i, s, alice)
	inUse := uint16(c.LocalAddr().(*net.TCPAddr).Port)
	i.ports.mu.Lock()
	unused := i.ports.resting[0].port
	i.ports.mu.Unlock()
	for _, port := range []uint16{inUse, unused} {
		for _, from := range []netip.Addr{home, netip.IPv4Unspecified()} {
			for _, opts := range [][]int{nil, {unix.SO_REUSEPORT}, {unix.SO_REUSEADDR}, {unix.SO_REUSEPORT, unix.SO_REUSEADDR}} {
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, port)),
					Control: func(_, _ string, c syscall.RawConn) (err error) {
						return errors.Join(c.Control(func(fd uintptr) {
							for _, o := range opts {
								err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1))
							}
						}), err)
					}}
				err := as(t, strangerUID, func() error {
					c, err := d.Dial("tcp4", s.at().String())
					if err == nil {
						c.Close()
					}
					return err
				})
				if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("from %v:%d with %v: %v", from, port, opts, err)
				}
			}
		}
	}
	// IPv6 sockets, which may come from the same address.
	for _, from := range []string{"::ffff:" + home.String(), "::"} {
		err := as(t, strangerUID, func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Logf("no IPv6: %v", err)
				return unix.EADDRINUSE
			}
			defer unix.Close(fd)
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr(from).As16(), Port: int(unused)}))
		})
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("from [%s]:%d: %v", from, unused, err)
		}
	}
	// Nor is such a port chosen for who leaves the choice to connect(2), from a range of one: of those that the kernel gives out.
	_, chosen := candidates()
	for _, port := range chosen {
		fd, err := bind(home, port)
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		if err := as(t, strangerUID, func() error { return connectFromRange(port, s.at().Port()) }); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("from port %d, chosen late: %v", port, err)
		}
		break
	}
}

// connectFromRange connects from a port of our address that the kernel has to choose, and may not choose another.
func connectFromRange(port, to uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const localPortRange = 51 // IP_LOCAL_PORT_RANGE, since Linux 6.3
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, localPortRange, int(port)<<16|int(port)); err != nil {
		return unix.EADDRNOTAVAIL // a kernel that has no such option
	}
	if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: home.As4()})); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(to)}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	return fmt.Errorf("connected from %+v, %v", name, err)
}

// TestRule54StrangerAtTheAddress has another account connect to the server from the forward's address: it can, and is
// nobody.
func TestRule54StrangerAtTheAddress(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	dial(t, i, s, alice)
	var c *net.TCPConn
	if err := as(t, strangerUID, func() (err error) {
		c, err = net.DialTCP("tcp4", &net.TCPAddr{IP: home.AsSlice()}, net.TCPAddrFromAddrPort(s.at()))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far := s.accept()
	if far.RemoteAddr().String() != c.LocalAddr().String() {
		t.Fatalf("accepted %v, not %v", far.RemoteAddr(), c.LocalAddr())
	}
	wantNobody(t, "a stranger", s.askAbout(far))
}

// TestRule54StrangersAsk has other accounts ask: they get no byte and take no place from the server.
func TestRule54StrangersAsk(t *testing.T) {
	l := new(testprog.Log)
	t.Cleanup(func() { testlog.Load(t, "../..").Sections["Forwards"].CheckText(t, l.String()) })
	i := open(t, Config{Log: slog.New(slog.NewTextHandler(l, nil))})
	s := newServer(t)
	_, far, _ := dial(t, i, s, alice)
	if got, err := ask(t, strangerUID, "127.0.0.1", query(far)); got != "" || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("a stranger: %q, %v", got, err)
	}
	// As many as the forward reads at once, and again, all silent.
	for range 2 * maxQueries {
		var c *net.TCPConn
		if err := as(t, strangerUID, func() (err error) {
			c, err = net.DialTCP("tcp4", nil, &net.TCPAddr{IP: home.AsSlice(), Port: Port})
			return err
		}); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
		if c != nil {
			defer c.Close()
		}
	}
	if got := s.askAbout(far); !strings.HasSuffix(got, alice+"\r\n") {
		t.Errorf("the server's query beside them: %q", got)
	}
	if n := strings.Count(l.String(), "uid=61202"); n != 1 {
		t.Errorf("%d lines about the stranger: %s", n, l)
	}
}

func TestQueries(t *testing.T) {
	open(t, Config{})
	for q, want := range map[string]string{
		"6193 , 23\n":           "6193 , 23 : ERROR : NO-USER\r\n",
		"\t6193,23 \r\n":        "6193 , 23 : ERROR : NO-USER\r\n",
		"6193,23\r\n1,2\r\n":    "6193 , 23 : ERROR : NO-USER\r\n",
		"0,23\r\n":              "0, 0 : ERROR : INVALID-PORT\r\n",
		"6193,65536\r\n":        "0, 0 : ERROR : INVALID-PORT\r\n",
		"6193\r\n":              "",
		"6193,23,5\r\n":         "",
		"+6193,23\r\n":          "",
		"GET / HTTP/1.1\r\n":    "",
		"\r\n":                  "",
		strings.Repeat(" ", 64): "",
	} {
		got, err := ask(t, serverUID, "127.0.0.1", q)
		if got != want || err != nil && !errors.Is(err, unix.ECONNRESET) { // for what was not read
			t.Errorf("%q: %q, %v, want %q", q, got, err, want)
		}
	}
	// An answer is one write, since PostgreSQL reads once.
	err := as(t, serverUID, func() error {
		c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: home.AsSlice(), Port: Port})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, b := range []byte("6193,23\r\n") { // and a query may come in pieces
			if _, err := c.Write([]byte{b}); err != nil {
				return err
			}
		}
		b := make([]byte, 1000)
		n, err := c.Read(b)
		if string(b[:n]) != "6193 , 23 : ERROR : NO-USER\r\n" {
			t.Errorf("one read gives %q", b[:n])
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUsersThatAreRefused(t *testing.T) {
	for _, user := range []string{"", "a b", "a\r\n1,2 : USERID : UNIX : root", "a:b", "a,b", "\u00e4@b", "a\x00", "a\x7f", strings.Repeat("a", 513)} {
		if err := checkUser(user); err == nil {
			t.Errorf("%q is taken", user)
		}
	}
	for _, user := range []string{alice, `corp\alice@alpha.example.com`, "alice@corp@alpha.example.com", strings.Repeat("a", 512)} {
		if err := checkUser(user); err != nil {
			t.Error(err)
		}
	}
}

func TestRule54Start(t *testing.T) {
	for addr, want := range map[string]string{"127.0.0.1": "every program comes from there", "192.0.2.1": "not a loopback address",
		"::1": "one loopback address", "0.0.0.0": "not a loopback address", "127.255.255.255": "a broadcast address"} {
		if _, err := Open(Config{Addr: netip.MustParseAddr(addr), Ports: 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for first, ok := range map[int]bool{0: false, 80: false, 113: false, 114: true, 1024: true} {
		if err := checkFirst(first); (err == nil) != ok {
			t.Errorf("ports from %d on are everybody's: %v", first, err)
		}
	}
	for _, n := range []int{0, -1, MaxPorts + 1} {
		if _, err := Open(Config{Addr: home, Ports: n}); err == nil || !strings.Contains(err.Error(), "connections at once") {
			t.Errorf("%d connections: %v", n, err)
		}
	}
	if _, err := Open(Config{Addr: home, Ports: 1, Account: 65534}); err == nil || !strings.Contains(err.Error(), "user namespace") {
		t.Errorf("the overflow uid: %v", err)
	}
	i := open(t, Config{})
	if _, err := Open(Config{Addr: home, Ports: 1}); err == nil || !strings.Contains(err.Error(), "the address is taken") {
		t.Errorf("a second forward: %v", err)
	}
	i.Close()
	for _, at := range []string{":113", "0.0.0.0:113"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Addr: home, Ports: 1}); err == nil || !strings.Contains(err.Error(), "the address is taken") {
			t.Errorf("with an identd at %s: %v", at, err)
		}
		l.Close()
	}
	err := as(t, strangerUID, func() error {
		_, err := Open(Config{Addr: home, Ports: 1})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("without privileges: %v", err)
	}
	l, err := net.Listen("tcp4", "127.77.19.2:113")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(Config{Addr: home, Ports: 1, Listener: l}); err == nil || !strings.Contains(err.Error(), "ListenStream=") {
		t.Errorf("a socket of another address: %v", err)
	}
}

// TestRule54Inherited has a socket of the service manager's, at which queries wait that were made before the forward began.
func TestRule54Inherited(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp4", netip.AddrPortFrom(home, Port).String())
	if err != nil {
		t.Fatal(err)
	}
	early, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	i := open(t, Config{Listener: l})
	s := newServer(t)
	_, far, _ := dial(t, i, s, alice)
	if got := s.askAbout(far); !strings.HasSuffix(got, alice+"\r\n") {
		t.Errorf("%q", got)
	}
	early.SetDeadline(time.Now().Add(patience))
	if n, err := early.Read(make([]byte, 1)); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("who asked before: %d bytes, %v", n, err)
	}
}

// TestRule54PortsRest has a connection's port come back: not at once, and for nobody else before its server has asked.
func TestRule54PortsRest(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	for name, rest := range map[string]time.Duration{"asked": restAsked, "unasked": restUnasked} {
		c, far, release := dial(t, i, s, name)
		if name == "asked" {
			s.askAbout(far)
		}
		port := uint16(c.LocalAddr().(*net.TCPAddr).Port)
		before := time.Now()
		release()
		release() // once is enough
		i.ports.mu.Lock()
		n := 0
		for _, r := range i.ports.resting {
			if r.port == port {
				n++
				if r.user != name || r.ready.Before(before.Add(rest)) || r.ready.After(time.Now().Add(rest)) {
					t.Errorf("%s: %+v at %v", name, r, before)
				}
			}
		}
		i.ports.mu.Unlock()
		if n != 1 {
			t.Errorf("%s: the port rests %d times", name, n)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: a released connection: %v", name, err)
		}
	}
}

// TestRule54PortsSettle has the beginning, when a stranger may have used a port a moment before.
func TestRule54PortsSettle(t *testing.T) {
	before := time.Now()
	p, err := hold(home, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if len(p.held) != 2*8+spare || len(p.resting) != len(p.held) {
		t.Errorf("%d ports are held, %d rest", len(p.held), len(p.resting))
	}
	for _, r := range p.resting {
		if r.ready.Before(before.Add(settle)) {
			t.Fatalf("port %d is ready after %v", r.port, r.ready.Sub(before))
		}
	}
	if _, wait, err := p.try(alice); err != nil || wait <= 0 {
		t.Errorf("the first connection: %v, %v", wait, err)
	}
}

// TestRule54OneUsersHaste has one user take all that he may: others find ports that have rested.
func TestRule54OneUsersHaste(t *testing.T) {
	p := &ports{taken: map[string]int{}, most: 4, mostOf: 6}
	for n := range 8 {
		p.resting = append(p.resting, restingPort{port: uint16(lowest + n)})
	}
	seen := map[uint16]bool{}
	take := func(user string) uint16 {
		t.Helper()
		port, wait, err := p.try(user)
		if err != nil || wait > 0 || seen[port] {
			t.Fatalf("%s: port %d, %v, %v", user, port, wait, err)
		}
		seen[port] = true
		return port
	}
	for range 4 {
		p.rest(take("mallory@evil"), "mallory@evil", time.Hour)
	}
	if _, wait, err := p.try("mallory@evil"); err != nil || wait < 59*time.Minute {
		t.Errorf("a fifth: %v, %v", wait, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(ctx, "mallory@evil"); !errors.Is(err, context.Canceled) {
		t.Errorf("a fifth, without patience: %v", err)
	}
	for range 2 { // another account, that the same machine has made up
		p.rest(take("mallet@evil"), "mallet@evil", time.Hour)
	}
	if _, wait, err := p.try("melanie@evil"); err != nil || wait < 59*time.Minute {
		t.Errorf("a seventh of one machine: %v, %v", wait, err)
	}
	for range 2 {
		take(alice)
	}
	if _, wait, err := p.try(alice); err != nil || wait < 59*time.Minute {
		t.Errorf("a ninth: %v, %v", wait, err)
	}
	p.resting = nil
	if _, _, err := p.try("bob@a"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("all in use: %v", err)
	}
	if len(p.taken) != 5 { // three users, two machines
		t.Errorf("counted: %v", p.taken)
	}
}

// A name of the last user is no more kept than his port.
func TestRule54NamesAreForgotten(t *testing.T) {
	p := &ports{taken: map[string]int{}, most: 2, mostOf: 2, resting: []restingPort{{port: lowest}, {port: lowest + 1}}}
	for n := range 1000 {
		user := fmt.Sprint("user", n)
		port, _, err := p.try(user)
		if err != nil {
			t.Fatal(err)
		}
		p.rest(port, user, 0)
	}
	if len(p.taken) > 3 { // and what has no machine
		t.Errorf("%d users are counted for 2 ports", len(p.taken))
	}
}

// A connection that the server refuses leaves nothing behind that is answered for.
func TestDialFails(t *testing.T) {
	i := open(t, Config{})
	s := newServer(t)
	at := s.at()
	s.l.Close()
	if _, _, err := i.Dial(t.Context(), at, alice); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
	for _, target := range []string{"192.0.2.1:5432", "[::1]:5432"} {
		if _, _, err := i.Dial(t.Context(), netip.MustParseAddrPort(target), alice); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: %v", target, err)
		}
	}
	if _, _, err := i.Dial(t.Context(), at, "a\nb"); err == nil {
		t.Error("a name with a line break is taken")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.open) != 0 {
		t.Errorf("%d connections", len(i.open))
	}
}

// A server may ask before Dial has returned.
func TestAskedAtOnce(t *testing.T) {
	i := open(t, Config{Ports: 64})
	s := newServer(t)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, release, err := i.Dial(t.Context(), s.at(), alice)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(release)
		})
	}
	for range 32 {
		if got := s.askAbout(s.accept()); !strings.HasSuffix(got, alice+"\r\n") {
			t.Errorf("%q", got)
		}
	}
	wg.Wait()
}

// Close waits for nobody who asks slowly.
func TestCloseWithSilentQueries(t *testing.T) {
	i := open(t, Config{})
	var c *net.TCPConn
	if err := as(t, serverUID, func() (err error) {
		c, err = net.DialTCP("tcp4", nil, &net.TCPAddr{IP: home.AsSlice(), Port: Port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closed := make(chan error)
	go func() { closed <- i.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Close waits")
	}
}
