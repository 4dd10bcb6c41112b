package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shared-altsd/shared-altsd/internal/splitter"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// wantWhom checks that each side of a call saw the other.
func wantWhom(t testing.TB, r report, client, server account, clientOn, serverOn *daemon) {
	t.Helper()
	if r.Code != codes.OK {
		t.Fatalf("%v: %s", r.Code, r.Text)
	}
	if r.Peer.Account != server.on(serverOn) || r.Peer.Local != client.on(clientOn) {
		t.Errorf("the client sees %+v", r.Peer)
	}
	if r.Seen.Account != client.on(clientOn) || r.Seen.Local != server.on(serverOn) {
		t.Errorf("the server sees %+v", r.Seen)
	}
	for a, w := range map[account]whom{client: r.Seen, server: r.Peer} {
		want := map[string]string{"uid": strconv.Itoa(int(a.uid)), "user": a.name}
		for name, v := range want {
			if got, ok := w.Attributes[name]; w.Attributes != nil && (!ok || got != v) {
				t.Errorf("attribute %s of %s is %q, want %q", name, a.name, got, v)
			}
		}
	}
}

// Two accounts on two machines, each with stock grpc-go, see each other.
func TestTwoAccounts(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.beta, 0)
	_, port, _ := net.SplitHostPort(addr)
	for name, o := range map[string]order{
		"target account":                    {Addr: addr, Targets: []string{"nobody@beta.test", "bob@beta.test"}},
		"target account in capitals":        {Addr: addr, Targets: []string{"BOB@Beta.Test"}},
		"address in the certificate":        {Addr: addr},
		"name in the certificate":           {Addr: addr, Authority: "beta.test"},
		"name, port and dot":                {Addr: addr, Authority: "Beta.Test.:" + port},
		"16 bytes at a time":                {Addr: addr, Targets: []string{"bob@beta.test"}, Segment: 16},
		"one byte at a time, by the client": {Addr: addr, Targets: []string{"bob@beta.test"}, Segment: 1},
	} {
		t.Run(name, func(t *testing.T) {
			o.Op, o.Socket = "call", w.alpha.socket
			wantWhom(t, w.as(t, alice).do(t, o), alice, bob, w.alpha, w.beta)
		})
	}
}

// The attributes reach an application that asks the daemon itself.
func TestAttributes(t *testing.T) {
	w := theWorld(t)
	server, client := w.joined(t)
	for who, r := range map[string]whom{"bob": client, "alice": server} {
		a := map[string]account{"bob": bob, "alice": alice}[who]
		if r.Attributes["user"] != a.name || r.Attributes["uid"] != strconv.Itoa(int(a.uid)) ||
			r.Attributes["machine"] == "" {
			t.Errorf("attributes of %s: %v", who, r.Attributes)
		}
	}
}

// Segments of 16 bytes in both directions, on the wire and as both applications read them.
func TestSmallSegments(t *testing.T) {
	w := theWorld(t)
	addr := splitter.Start(t, w.as(t, bob).listen(t, w.beta, 16), 16, nil)
	r := w.as(t, alice).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{"bob@beta.test"},
		Segment: 16})
	wantWhom(t, r, alice, bob, w.alpha, w.beta)
}

// 500 channels at once, each with its own connection and handshake. They come from five processes: stock grpc-go
// begins at most 100 handshakes at once in a process, but connects first, so that a client and a server with more
// connections than that can each wait for a handshake that the other has not begun.
func TestChannelsAtOnce(t *testing.T) {
	w := theWorld(t)
	const processes, each = 5, 100
	addr := w.as(t, bob).listen(t, w.beta, 0)
	var reports []<-chan report
	for i := range processes {
		reports = append(reports, w.as(t, poolAccount(i)).begin(t, order{
			Op: "channels", N: each, Socket: w.alpha.socket, Addr: addr, Targets: []string{"bob@beta.test"},
			ConnectTimeout: testprog.Patience}))
	}
	for i, ch := range reports {
		r := w.as(t, poolAccount(i)).wait(t, ch)
		if r.Done != each {
			t.Errorf("%d of %d channels: %.2000s", r.Done, each, r.Text)
		}
		t.Logf("%d channels in %v", r.Done, r.Took)
	}
}

// another returns a further daemon for the machine beta, for a test that ends it.
func (w *world) another(t testing.TB, name string, flags ...string) *daemon {
	t.Helper()
	d, err := w.machine(name, w.known, testca.Leaf{}, append([]string{"--ca", filepath.Join(w.dir, "known.pem")},
		flags...)...)
	if err == nil {
		err = d.start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A daemon that is killed under load: channels live on, and new ones come up once it is back.
func TestKilledAndRestarted(t *testing.T) {
	w := theWorld(t)
	d := w.another(t, "mortal")
	targets := []string{"bob@mortal.test"}
	addr := w.as(t, bob).listen(t, d, 0)
	client := w.as(t, alice)
	keep := order{Op: "keep", Key: t.Name(), Socket: w.alpha.socket, Addr: addr, Targets: targets}
	wantWhom(t, client.do(t, keep), alice, bob, w.alpha, d)
	load := order{Op: "load", Key: t.Name(), N: 4, Socket: w.alpha.socket, Addr: addr, Targets: targets}
	client.do(t, load)

	d.killed = true
	d.signal(t, syscall.SIGKILL)
	<-d.run.Ended
	again := order{Op: "again", Key: t.Name()}
	for range 3 {
		wantWhom(t, client.do(t, again), alice, bob, w.alpha, d)
	}
	call := order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: targets}
	if r := client.do(t, call); r.Code != codes.Unavailable {
		t.Errorf("a new channel while the daemon is dead: %v %q", r.Code, r.Text)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(testprog.Patience)
	for { // the server's library backs off by itself
		r := client.do(t, call)
		if r.Code == codes.OK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no new channel once the daemon is back: %s", r.Text)
		}
	}
	wantWhom(t, client.do(t, again), alice, bob, w.alpha, d)
	if r := client.do(t, order{Op: "unload", Key: t.Name()}); r.Done == 0 {
		t.Errorf("no channel of the load came up: %s", r.Text)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

// SIGTERM: a handshake in flight gets to its end, a new one is refused, a stream that waits is told why.
func TestDrain(t *testing.T) {
	w := theWorld(t)
	d := w.another(t, "leaving")
	client := w.as(t, alice)
	addr := w.as(t, bob).listen(t, d, 0)
	if r := client.do(t, order{Op: "call", Socket: d.socket, Addr: addr,
		Targets: []string{"bob@leaving.test"}}); r.Code != codes.OK {
		t.Fatal(r.Text)
	}
	// A server that has the client's first message, and goes on only once the daemon stops.
	goOn := make(chan struct{})
	peer := w.goodClaim(t).rogue()
	began := make(chan struct{})
	peer.send = func(typ byte, f []byte) []byte {
		if typ == frame2 {
			close(began)
			<-goOn
		}
		return f
	}
	slow, done := peer.listen(t)
	inFlight := client.begin(t, order{Op: "call", Socket: d.socket, Addr: slow, Targets: []string{"mallory@eve.test"}})
	<-began
	key := w.key(t)
	step(t, w.as(t, bob), d, key, serverStart(nil, nil)) // a server whose client says nothing
	waits := w.as(t, bob).begin(t, order{Op: "raw", Socket: d.socket, Key: key})
	mark := d.mark()
	d.signal(t, syscall.SIGTERM)
	d.find(t, mark, "stopping", func(r *record) bool { return r.Msg == "stopping" })
	// The line comes just before the daemon stops to take new ones.
	for deadline := time.Now().Add(testprog.Patience); ; {
		r := w.as(t, bob).do(t, order{Op: "raw", Socket: d.socket, Requests: [][]byte{clientStart(nil)}})
		if r.Code == codes.Unavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a new handshake: %v %s", r.Code, r.Text)
		}
	}
	close(goOn)
	if o := <-done; o.err != nil || !o.got3 || !o.goesOn {
		t.Errorf("the handshake in flight: %+v", o)
	}
	client.wait(t, inFlight)
	if r := w.as(t, bob).wait(t, waits); r.Code != codes.Unavailable || !strings.Contains(r.Text, "(shutting_down)") {
		t.Errorf("a stream that waited: %v %s", r.Code, r.Text)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(d.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Certificates change under load, by SIGHUP and by the files alone, and no channel fails.
func TestReloadUnderLoad(t *testing.T) {
	w := theWorld(t)
	d := w.another(t, "changing")
	addr := w.as(t, bob).listen(t, d, 0)
	client := w.as(t, alice)
	client.do(t, order{Op: "load", Key: t.Name(), N: 4, Socket: w.alpha.socket, Addr: addr,
		Targets: []string{"bob@changing.test"}})
	for i := range 4 {
		issued := testca.MustIssue(t, w.known, testca.Leaf{Hosts: []string{"changing.test"},
			KeyType: []string{testca.P256, testca.Ed25519}[i%2]})
		w.keepSecret("a renewed private key", issued.KeyPEM)
		mark := d.mark()
		if _, err := w.file("changing.pem", issued.PEM()); err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			d.signal(t, syscall.SIGHUP)
		}
		d.find(t, mark, "a reload", func(r *record) bool { return r.Msg == "reloaded" })
		r := client.do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{"bob@changing.test"}})
		wantWhom(t, r, alice, bob, w.alpha, d)
	}
	r := client.do(t, order{Op: "unload", Key: t.Name()})
	if r.Code != codes.OK || r.Done == 0 {
		t.Errorf("%d channels, and failures: %s", r.Done, r.Text)
	}
	t.Logf("%d channels over 4 reloads", r.Done)
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

// A thousand idle connections cost the daemon less than 40 MB. The daemon is built without the race detector, whose
// shadow memory would be measured otherwise.
func TestIdleConnections(t *testing.T) {
	w := theWorld(t)
	d, err := w.machine("idle", w.known, testca.Leaf{}, "--ca", filepath.Join(w.dir, "known.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if d.program, err = testprog.Plain(); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*testprog.Patience)
	defer cancel()
	connect := func() *grpc.ClientConn {
		c, err := grpc.NewClient("unix:"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ready := func(c *grpc.ClientConn) {
		c.Connect()
		for s := c.GetState(); s != connectivity.Ready; s = c.GetState() {
			if !c.WaitForStateChange(ctx, s) {
				t.Error("a connection does not come up")
				return
			}
		}
	}
	ready(connect()) // whatever is made once is made now
	before := residentMemory(t, d)
	const n = 1000
	var wg sync.WaitGroup
	for range n {
		c := connect()
		wg.Go(func() { ready(c) })
	}
	wg.Wait()
	cost := residentMemory(t, d) - before
	t.Logf("%d idle connections cost %d KiB", n, cost)
	if cost > 40<<10 {
		t.Errorf("%d idle connections cost %d KiB, more than 40 MiB", n, cost)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

// residentMemory returns VmRSS in KiB.
func residentMemory(t testing.TB, d *daemon) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.run.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// processorTime returns what the daemon has used, user and system together, in the kernel's ticks of 10 ms.
func processorTime(t testing.TB, d *daemon) time.Duration {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", d.run.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // past the name of the program
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
