package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// An echo is a Link that proves who is there by a line, and says all else again.
type echo struct {
	raw     *net.TCPConn
	allowed *atomic.Value // of string: who else is refused, "" for nobody

	mu    sync.Mutex
	facts Facts
	in    *bufio.Reader
}

func (e *echo) Prove(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { e.raw.SetReadDeadline(time.Unix(1, 0)) })()
	e.in = bufio.NewReader(e.raw)
	line, err := e.in.ReadString('\n')
	if err != nil {
		return Refuse(Handshake, err)
	}
	e.mu.Lock()
	e.facts.Holder = strings.TrimSpace(line)
	if e.facts.Peer = e.facts.Holder; !strings.Contains(e.facts.Peer, "@") {
		e.facts.Peer += "@alpha.test"
	}
	e.mu.Unlock()
	return e.Recheck()
}

func (e *echo) Open(context.Context) error { return nil }

func (e *echo) Carry(ctx context.Context) Result {
	defer context.AfterFunc(ctx, e.Abort)()
	n, err := io.Copy(e.raw, e.in)
	if err == nil {
		e.raw.Close()
	}
	return Result{FromPeer: n, ToPeer: n, Err: err}
}

func (e *echo) Abort() { e.raw.SetLinger(0); e.raw.Close() }

func (e *echo) Facts() Facts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.facts
}

func (e *echo) Recheck() error {
	if bad, _ := e.allowed.Load().(string); bad != "" && e.Facts().Holder == bad {
		return Refuse(NotAllowed, errors.New("not any more"))
	}
	return nil
}

type world struct {
	*Server
	addr    string
	refuse  atomic.Value
	log     *testprog.Log
	signals chan os.Signal
	reload  func() error
	status  chan string
	done    chan struct{}
}

// start runs a Server of echoes until the test ends.
func start(t *testing.T, limits Limits) *world {
	t.Helper()
	w := &world{log: new(testprog.Log), signals: make(chan os.Signal, 4), done: make(chan struct{})}
	t.Cleanup(func() { testlog.Load(t, "../..").Sections["Forwards"].CheckText(t, w.log.String()) })
	if limits.Handshake == 0 {
		limits.Handshake = time.Minute
	}
	w.Server = &Server{Log: slog.New(slog.NewTextHandler(w.log, nil)), Metrics: metrics.NewForwards("1", "test", "s", OutcomeNames(), nil),
		New: func(raw net.Conn) Link { return &echo{raw: raw.(*net.TCPConn), allowed: &w.refuse} }}
	w.SetLimits(limits)
	w.init()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	notify, err := systemd.NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	w.status = make(chan string, 16)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				return
			}
			w.status <- string(b[:n])
		}
	}()
	p := &Process{Server: w.Server, Signals: w.signals, Notify: notify, Status: func() string { return "echoes" },
		Reload: func() error { return w.reload() }}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { p.Run(ctx, l); close(w.done); manager.Close() }()
	t.Cleanup(func() {
		cancel()
		w.signals <- syscall.SIGTERM
		w.signals <- syscall.SIGTERM
	})
	w.expect(t, "READY=1\nSTATUS=echoes")
	return w
}

// expect waits for what systemd is told next.
func (w *world) expect(t *testing.T, text string) {
	t.Helper()
	select {
	case got := <-w.status:
		if !strings.HasPrefix(got, text) {
			t.Fatalf("systemd was told %q, want %q", got, text)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("systemd was not told %q; log: %s", text, w.log)
	}
}

// dial connects and says who it is.
func (w *world) dial(t *testing.T, who string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if who != "" {
		fmt.Fprintln(c, who)
	}
	return c.(*net.TCPConn)
}

// reset fails if a connection does not end by a reset.
func reset(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%q, %v, want a reset", b, err)
	}
}

func (w *world) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s; log: %s", what, w.log)
		}
	}
}

func TestServerLogsBeginAndEnd(t *testing.T) {
	w := start(t, Limits{Conns: 2})
	c := w.dial(t, "alice@a")
	testnet.Echoes(t, c)
	c.CloseWrite()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	w.await(t, "counted", func() bool { return w.Metrics.Count(string(Clean)) == 1 })
	w.await(t, "logged", func() bool { return strings.Count(w.log.String(), "\n") == 2 })
	for _, text := range []string{"connection begins\" peer=alice@a", "connection ends\" peer=alice@a in=4 out=4 outcome=clean"} {
		if !strings.Contains(w.log.String(), text) {
			t.Errorf("no %s in %s", text, w.log)
		}
	}
}

// A machine that lies has any number of accounts, which together have three quarters of the places.
func TestServerPlacesOfMachine(t *testing.T) {
	w := start(t, Limits{Conns: 4})
	for _, who := range []string{"a1@evil.test", "a2@evil.test", "a3@evil.test"} {
		testnet.Echoes(t, w.dial(t, who))
	}
	reset(t, w.dial(t, "a4@evil.test"))
	testnet.Echoes(t, w.dial(t, "alice@alpha.test"))
	w.await(t, "logged", func() bool { return strings.Contains(w.log.String(), "accounts of evil.test have 3 connections") })
}

// Nobody has more than half of the places, and there are no more than there are.
func TestServerPlaces(t *testing.T) {
	w := start(t, Limits{Conns: 4})
	var held []*net.TCPConn
	for _, who := range []string{"alice", "alice", "bob"} {
		held = append(held, w.dial(t, who))
		testnet.Echoes(t, held[len(held)-1])
	}
	reset(t, w.dial(t, "alice"))
	testnet.Echoes(t, w.dial(t, "carol"))
	reset(t, w.dial(t, "dave"))
	if !strings.Contains(w.log.String(), "alice has 2 connections, half of all places") ||
		!strings.Contains(w.log.String(), "all 4 places are taken") || w.Metrics.Count(string(Full)) != 2 {
		t.Errorf("log: %s", w.log)
	}
	held[0].CloseWrite()
	io.Copy(io.Discard, held[0])
	w.await(t, "a place free", func() bool { return w.State().Open == 3 })
	testnet.Echoes(t, w.dial(t, "alice"))
}

// Of those who say nothing the oldest gives way, and whoever says who he is is served.
func TestServerSilentGiveWay(t *testing.T) {
	w := start(t, Limits{Conns: 10})
	w.crowd.mu.Lock()
	w.crowd.max = 16
	w.crowd.mu.Unlock()
	first := w.dial(t, "alice")
	testnet.Echoes(t, first)
	var silent []*net.TCPConn
	for i := range 40 {
		silent = append(silent, w.dial(t, ""))
		w.await(t, "waiting", func() bool {
			return w.State().Unproven == min(i+1, 16) && w.Metrics.Count(string(GaveWay)) == uint64(max(0, i+1-16))
		})
	}
	for _, c := range silent[:24] {
		reset(t, c)
	}
	testnet.Echoes(t, w.dial(t, "bob"))
	testnet.Echoes(t, first)
	w.await(t, "counted", func() bool { return w.Metrics.Count(string(GaveWay)) >= 24 })
	if n := strings.Count(w.log.String(), "connection refused"); n > linesBurst+2 {
		t.Errorf("%d lines about strangers", n)
	}
}

func TestServerHandshakeTimeout(t *testing.T) {
	w := start(t, Limits{Conns: 10, Handshake: 50 * time.Millisecond})
	reset(t, w.dial(t, ""))
	if w.Metrics.Count(string(Handshake)) != 1 {
		t.Errorf("log: %s", w.log)
	}
}

func TestServerAge(t *testing.T) {
	w := start(t, Limits{Conns: 10, Age: 100 * time.Millisecond})
	reset(t, w.dial(t, "alice"))
	w.await(t, "counted", func() bool { return w.Metrics.Count(string(Age)) == 1 })
	w.await(t, "logged", func() bool { return strings.Contains(w.log.String(), "--max-age") })
}

// A reload ends whom it does not let in, and nobody else; one that is refused changes nothing.
func TestServerReload(t *testing.T) {
	w := start(t, Limits{Conns: 10})
	alice, bob := w.dial(t, "alice"), w.dial(t, "bob")
	testnet.Echoes(t, alice)
	testnet.Echoes(t, bob)
	w.reload = func() error { return errors.New("a mistake in the file") }
	w.signals <- syscall.SIGHUP
	w.expect(t, "RELOADING=1")
	w.expect(t, "READY=1\nSTATUS=reload refused, as before: echoes")
	testnet.Echoes(t, alice)
	w.reload = func() error { w.refuse.Store("bob"); return nil }
	w.signals <- syscall.SIGHUP
	w.expect(t, "RELOADING=1")
	w.expect(t, "READY=1\nSTATUS=echoes")
	reset(t, bob)
	reset(t, w.dial(t, "bob"))
	testnet.Echoes(t, alice)
	w.await(t, "counted", func() bool { return w.Metrics.Count(string(NotAllowed)) == 2 })
	for text, n := range map[string]int{"a mistake in the file": 1, "not any more": 2} {
		w.await(t, "logged: "+text, func() bool { return strings.Count(w.log.String(), text) == n })
	}
}

// A stop takes no more, lets those that stand end, and then ends them.
func TestServerDrain(t *testing.T) {
	for name, again := range map[string]bool{"in time": false, "by a second signal": true} {
		t.Run(name, func(t *testing.T) {
			limits := Limits{Conns: 10, Drain: time.Hour}
			w := start(t, limits)
			alice, bob, silent := w.dial(t, "alice"), w.dial(t, "bob"), w.dial(t, "")
			testnet.Echoes(t, alice)
			testnet.Echoes(t, bob)
			w.await(t, "waiting", func() bool { return w.State().Unproven == 1 })
			if !again {
				limits.Drain = 200 * time.Millisecond
				w.SetLimits(limits)
			}
			w.signals <- syscall.SIGTERM
			w.expect(t, "STOPPING=1")
			reset(t, silent)
			if c, err := net.Dial("tcp", w.addr); err == nil {
				c.Close()
				t.Error("still listens")
			}
			testnet.Echoes(t, alice)
			alice.CloseWrite()
			if _, err := io.ReadAll(alice); err != nil {
				t.Error(err)
			}
			if again {
				w.signals <- syscall.SIGINT
			}
			reset(t, bob)
			<-w.done
			if w.Metrics.Count(string(Stopped)) != 2 || w.Metrics.Count(string(Clean)) != 1 {
				t.Errorf("log: %s", w.log)
			}
		})
	}
}

// failing is a listener that has no descriptors for a while.
type failing struct {
	net.Listener
	fails atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return f.Listener.Accept()
}

func TestServerSurvivesAcceptErrors(t *testing.T) {
	w := start(t, Limits{Conns: 10})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: l}
	f.fails.Store(3)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Serve(ctx, ctx, f); close(done) }()
	w.addr = l.Addr().String()
	c := w.dial(t, "alice")
	testnet.Echoes(t, c)
	c.Close()
	if n := strings.Count(w.log.String(), "accepting a connection failed"); n != 1 {
		t.Errorf("%d lines: %s", n, w.log)
	}
	cancel()
	<-done
}

func TestRefusalLines(t *testing.T) {
	var r refusals
	now := time.Now()
	for range linesBurst {
		if _, ok := r.may("loud", now); !ok {
			t.Fatal("too few lines")
		}
	}
	for range 7 {
		if _, ok := r.may("loud", now); ok {
			t.Fatal("too many lines")
		}
	}
	if skipped, ok := r.may("quiet", now); !ok || skipped != 0 {
		t.Error("one peer's lines are another's")
	}
	if skipped, ok := r.may("loud", now.Add(linesEach)); !ok || skipped != 7 {
		t.Errorf("%d, %v", skipped, ok)
	}
	for i := range 3 * linesPeers {
		r.may(fmt.Sprint(i), now)
	}
	if len(r.of) > linesPeers+1 {
		t.Errorf("%d peers", len(r.of))
	}
}
