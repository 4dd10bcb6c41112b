package service

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A stop refuses new handshakes, ends silent streams, and lets those under way finish.
func TestShutdown(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	silent, waiting := open(t, beta, "grpc-c/29"), open(t, beta, "grpc-c/29")
	waiting.must(t, serverStart(nil, nil))
	c, s := open(t, alpha, ""), open(t, beta, "")
	m1 := c.must(t, clientStart(nil)).OutFrames
	m2 := s.must(t, serverStart(m1, nil)).OutFrames

	done := make(chan error, 1)
	go func() { done <- beta.Shutdown(testContext(t)) }()
	_, err := silent.recv()
	wantErr(t, err, codes.Unavailable, "shutting_down")
	_, err = waiting.recv()
	wantErr(t, err, codes.Unavailable, "shutting_down")

	m3 := c.must(t, next(m2)).OutFrames
	resp := s.must(t, next(m3))
	if c.must(t, next(resp.OutFrames)).Result == nil || resp.Result == nil {
		t.Error("the handshake under way did not finish")
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	h := beta.newSession(Caller{}, func() {}, func() {})
	defer h.end(cancelled())
	_, err = h.step(testContext(t), clientStart(nil))
	if f := asFailure(err); f.rpc != codes.Unavailable {
		t.Errorf("a start after the stop: %v", err)
	}

	// What does not finish is cut.
	c = open(t, alpha, "")
	c.must(t, clientStart(nil))
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := alpha.Shutdown(ctx); err == nil {
		t.Error("Shutdown that had to cut gave no error")
	}
	if _, err := c.recv(); err == nil {
		t.Error("the stream was not cut")
	}
}

// Two accounts of one machine are in the middle of a handshake when the daemon is to stop: it is theirs to finish, though
// the server's half has not begun. What begins now is for the next daemon.
func TestShutdownFinishesWithinTheMachine(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	c, s, late := open(t, d, ""), open(t, d, ""), open(t, d, "shared-altsd-altscreds")
	m1 := c.must(t, clientStart(nil)).OutFrames

	done := make(chan error, 1)
	go func() { done <- d.Shutdown(testContext(t)) }()
	for !d.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	_, err := late.do(clientStart(nil))
	wantErr(t, err, codes.Unavailable, "shutting_down")
	m3 := c.must(t, next(s.must(t, serverStart(m1, nil)).OutFrames)).OutFrames
	last := s.must(t, next(m3))
	if c.must(t, next(last.OutFrames)).Result == nil || last.Result == nil {
		t.Error("the handshake did not finish")
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// What grpc-go begins while a daemon stops, at a socket that outlives it, is begun at the next daemon: nothing fails.
func TestShutdownLosesNoneOfGRPCGo(t *testing.T) {
	first, second := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "alpha.test", Config{})
	path := filepath.Join(testprog.Dir(t), "s")
	kept, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	serve := func(d *daemon) {
		f, err := kept.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		go d.Serve(l.(*net.UnixListener), nil)
	}
	serve(first)
	conn := dial(t, path, "")
	underWay, silent := newParty(testContext(t), conn), newParty(testContext(t), conn)
	underWay.must(t, clientStart(nil))

	done := make(chan error, 1)
	go func() { done <- first.Shutdown(testContext(t)) }()
	for !first.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	late := make(chan error, 1)
	go func() {
		_, err := newParty(testContext(t), conn).do(clientStart(nil))
		late <- err
	}()
	select {
	case err := <-late:
		t.Errorf("it is answered before the daemon has ended: %v", err)
	case err := <-done:
		t.Errorf("the daemon ends while a handshake is under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	underWay.stream.CloseSend()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	serve(second)
	if err := <-late; err != nil {
		t.Errorf("what began during the stop: %v", err)
	}
	silent.must(t, clientStart(nil))
	if n := second.Snapshot().InFlight[Initiator]; n != 2 {
		t.Errorf("the next daemon has %d handshakes, want both", n)
	}
	if log := first.logs.String(); strings.Contains(log, "shutting_down") {
		t.Errorf("the log tells of a failure that there was not: %s", log)
	}
}

// The stop waits for nobody who says nothing: a part of message 1, message 1 alone, a server that does not answer.
func TestShutdownWaitsForNoSilence(t *testing.T) {
	other := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, other, "").must(t, clientStart(nil)).OutFrames
	for name, begin := range map[string]func(t *testing.T, d *daemon){
		"a part of message 1": func(t *testing.T, d *daemon) { open(t, d, "grpc-go/1").must(t, serverStart(m1[:12], nil)) },
		"message 1":           func(t *testing.T, d *daemon) { open(t, d, "grpc-go/1").must(t, serverStart(m1, nil)) },
		"a silent server":     func(t *testing.T, d *daemon) { open(t, d, "grpc-go/1").must(t, clientStart(nil)) },
		"a part of message 1 on a socket": func(t *testing.T, d *daemon) {
			cs, ss := testnet.Pair(t)
			give(t, greet(t, d.socket), serverStart(nil, nil), ss)
			cs.Write(m1[:12])
			for !handed.Alive(ss) {
				time.Sleep(time.Millisecond)
			}
		},
		"a silent server on a socket": func(t *testing.T, d *daemon) {
			cs, ss := testnet.Pair(t)
			give(t, greet(t, d.socket), clientStart(nil), cs)
			if _, err := handed.Peek(ss); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, "beta.test", Config{HandshakeTimeout: time.Hour})
			begin(t, d)
			ctx, cancel := context.WithTimeout(testContext(t), time.Minute) // which would be over first
			defer cancel()
			if err := d.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if r := d.record(t); r.Reason != "timed_out" && r.Reason != "shutting_down" {
				t.Errorf("recorded: %+v", r)
			}
		})
	}
}

// A server of altscreds has the peer's first message when the daemon stops: the peer is told nothing, since the next
// daemon will answer.
func TestShutdownLeavesThePeerToTheNext(t *testing.T) {
	d := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, startDaemon(t, "beta.test", Config{}), "").must(t, clientStart(nil)).OutFrames
	d.drain()
	for agent, told := range map[string]bool{"shared-altsd-altscreds grpc-go/1.85.0": false, "grpc-go/1.85.0": true} {
		h := d.newSession(Caller{}, func() {}, func() {})
		h.again = clientKindOf(agent) == clientAltscreds
		resp, err := h.step(testContext(t), serverStart(m1, nil))
		if got := len(resp.GetOutFrames()) > 0; got != told || !told && asFailure(err).tell != reason.ShuttingDown {
			t.Errorf("%s: the peer was told: %v; error %v", agent, got, err)
		}
		h.end(cancelled())
	}
}

func TestNewRefuses(t *testing.T) {
	m := testMachine(t, "alpha.test", testca.Leaf{})
	for name, c := range map[string]Config{
		"no machine":     {},
		"limit":          {Machine: m, Limits: Limits{Streams: -1}},
		"timeout":        {Machine: m, HandshakeTimeout: -1},
		"naming":         {Machine: m, SecureNaming: 7},
		"group":          {Machine: m, PublishGroups: []string{"-wheel"}},
		"groups":         {Machine: m, PublishGroups: manyNames(100)},
		"no accounts":    {Machine: m, ServerAccounts: []string{}},
		"same and other": {Machine: m, ServerAccounts: []string{"same", "bob"}},
		"account":        {Machine: m, ServerAccounts: []string{"bob@x"}},
		"domain group":   {Machine: m, PublishGroups: []string{"domain users@x"}},
		"group's line":   {Machine: m, PublishGroups: []string{"a\nb"}},
		"encoded":        {Machine: m, PublishGroups: []string{strings.Repeat(" ", 200), strings.Repeat("!", 200), strings.Repeat("#", 200), strings.Repeat("%", 200)}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{Machine: m}); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, "group-with-a-name-that-is-long-"+strings.Repeat("x", i%30)+string(rune('a'+i%26)))
	}
	return names
}

// Rule 46: the daemon makes up for the keys that its handshakes used, and has none after its stop.
func TestRule46ServerMakesAheadAndDrops(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Accounts: named("alice")})
	conn := dial(t, d.socket, "grpc-go/1.70.0")
	for d.keys.Held() == 0 { // by the test's deadline
		join(t, newParty(testContext(t), conn), newParty(testContext(t), conn), clientStart(nil), serverStart(nil, nil), 1<<20)
	}
	if err := d.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if n := d.keys.Held(); n != 0 {
		t.Errorf("%d keys are held after the stop", n)
	}
}
