package service

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// greet connects to the daemon's socket as one who hands over sockets.
func greet(t testing.TB, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	answer := make([]byte, len(handed.Hello))
	if _, err := io.WriteString(conn, handed.Hello); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != handed.Hello {
		t.Fatalf("the daemon answers %q, %v", answer, err)
	}
	return conn.(*net.UnixConn)
}

func give(t testing.TB, u *net.UnixConn, req *altspb.HandshakerReq, sock *net.TCPConn) {
	t.Helper()
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := handed.WriteRequest(u, req, raw); err != nil {
		t.Fatal(err)
	}
}

func answer(t testing.TB, u *net.UnixConn) *altspb.Answer {
	t.Helper()
	resp := new(altspb.Answer)
	if err := handed.ReadAnswer(u, resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

// both does a handshake on a fresh pair between two connections to daemons and gives the two answers.
func both(t testing.TB, c, s *net.UnixConn, start, accept *altspb.HandshakerReq) (client, server *altspb.Answer) {
	t.Helper()
	cs, ss := testnet.Pair(t)
	give(t, s, accept, ss)
	give(t, c, start, cs)
	client = answer(t, c)
	if client.GetResult() == nil {
		cs.Close() // as an application does that was refused
	}
	server = answer(t, s)
	if client.GetResult() == nil || server.GetResult() == nil {
		return client, server
	}
	// The connection is the applications' again, in the state in which the handshake left it.
	sent := make([]byte, 100<<10)
	rand.Read(sent)
	go cs.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(ss, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("after the handshake the connection does not work: %v", err)
	}
	return client, server
}

func TestHandover(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{Accounts: named("alice")}), startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	c, s := greet(t, alpha.socket), greet(t, beta.socket)
	for range 3 { // one connection serves many handshakes
		client, server := both(t, c, s, clientStart(nil), serverStart(nil, nil))
		if client.GetResult() == nil || server.GetResult() == nil {
			t.Fatalf("client %v, server %v", client.GetRefusal(), server.GetRefusal())
		}
		if !bytes.Equal(client.Result.KeyData, server.Result.KeyData) || len(client.Result.KeyData) != 64 {
			t.Error("key data differ")
		}
		if got := client.Result.PeerIdentity.GetServiceAccount(); got != "bob@beta.test" {
			t.Errorf("the client's peer is %q", got)
		}
		if got := server.Result.PeerIdentity.GetServiceAccount(); got != "alice@alpha.test" {
			t.Errorf("the server's peer is %q", got)
		}
		for _, d := range []*daemon{alpha, beta} {
			if r := d.record(t); r.Reason != "accepted" || !r.Remote.Addr().IsLoopback() || r.Remote.Port() == 0 || r.Sent == 0 {
				t.Errorf("record %+v", r)
			}
		}
	}
	// A refused handshake leaves the connection to the daemon good.
	wrong := clientStart(func(r *clientReq) { r.TargetIdentities = []*altspb.Identity{accountID("eve@beta.test")} })
	client, server := both(t, c, s, wrong, serverStart(nil, nil))
	wantID(t, wantRefusal(t, client, "target_mismatch"), alpha.record(t).ID)
	wantRefusal(t, server, byPeer+"target_mismatch")
	if client, _ := both(t, c, s, clientStart(nil), serverStart(nil, nil)); client.GetResult() == nil {
		t.Errorf("after a refusal: %v", client.GetRefusal())
	}
}

// A peer behind the gRPC interface, with the first record right behind the handshake: the record stays in the socket.
func TestHandoverLeavesTheFirstRecord(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	cs, ss := testnet.Pair(t)
	u := greet(t, beta.socket)
	give(t, u, serverStart(nil, nil), ss)
	p := open(t, alpha, "grpc-go/1.85")
	out := p.must(t, clientStart(nil)).OutFrames
	buf := make([]byte, 64<<10)
	for {
		for _, b := range out { // byte by byte
			if _, err := cs.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		n, err := cs.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		resp := p.must(t, next(buf[:n]))
		if resp.Result != nil {
			break
		}
		if out = resp.OutFrames; len(out) > 0 {
			out = append(out, "the first record"...) // earlier than any client may, which must not matter
		}
	}
	if resp := answer(t, u); resp.GetResult() == nil {
		t.Fatal(resp.GetRefusal())
	}
	n, err := io.ReadFull(ss, buf[:16])
	if err != nil || string(buf[:n]) != "the first record" {
		t.Errorf("the application reads %q, %v", buf[:n], err)
	}
}

func TestHandoverRefusals(t *testing.T) {
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), HandshakeTimeout: 300 * time.Millisecond})
	stranger := testca.MustCA(t, testca.Options{})
	gamma := startDaemon(t, "gamma.test", Config{Machine: machineOf(t, stranger, "gamma.test", testca.Leaf{})})
	t.Run("by the peer", func(t *testing.T) {
		client, server := both(t, greet(t, gamma.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil))
		wantRefusal(t, client, byPeer+"unknown_ca")
		wantRefusal(t, server, "unknown_ca")
	})
	t.Run("bad start", func(t *testing.T) {
		a, _ := testnet.Pair(t)
		u := greet(t, alpha.socket)
		give(t, u, clientStart(func(r *clientReq) { r.AccessToken = "x" }), a)
		wantRefusal(t, answer(t, u), "bad_request", "access_token")
		give(t, u, next([]byte("x")), a)
		wantRefusal(t, answer(t, u), "bad_request", "neither client_start nor server_start")
		give(t, u, &altspb.HandshakerReq{}, a)
		wantRefusal(t, answer(t, u), "bad_request", "neither client_start nor server_start")
	})
	t.Run("the peer stops in the middle", func(t *testing.T) {
		for _, req := range []*altspb.HandshakerReq{clientStart(nil), serverStart(nil, nil)} {
			a, b := testnet.Pair(t)
			io.WriteString(b, "salt\x01")
			u := greet(t, alpha.socket)
			give(t, u, req, a)
			wantRefusal(t, answer(t, u), "timed_out")
		}
	})
	t.Run("another protocol", func(t *testing.T) {
		a, b := testnet.Pair(t)
		io.WriteString(b, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03")
		u := greet(t, alpha.socket)
		give(t, u, serverStart(nil, nil), a)
		wantRefusal(t, answer(t, u), "malformed", "TLS")
	})
	t.Run("the peer hangs up", func(t *testing.T) {
		for _, reset := range []int{-1, 0} {
			a, b := testnet.Pair(t)
			u := greet(t, alpha.socket)
			give(t, u, clientStart(nil), a)
			if _, err := b.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			b.SetLinger(reset)
			b.Close()
			wantRefusal(t, answer(t, u), "peer_closed")
		}
	})
}

// Rule 27: what is handed over is a connected TCP socket and nothing else, one a request.
func TestRule27Descriptors(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	u := greet(t, alpha.socket)
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := handed.WriteRequest(u, clientStart(nil), raw); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, answer(t, u), "bad_request", "not a connected TCP stream socket")
	// Without a descriptor the connection ends.
	io.WriteString(u, "\x00\x00\x00\x00")
	if _, err := u.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a request without a descriptor: %v, want the end", err)
	}
	// So it does with what is no request, and with another greeting.
	for _, b := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x01\x00trailing"} {
		u := greet(t, alpha.socket)
		if _, _, err := u.WriteMsgUnix([]byte(b), unix.UnixRights(0), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q was answered", b)
		}
	}
	conn, err := net.Dial("unix", alpha.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "salt-fd9")
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("another greeting was answered")
	}
	if unmarshal := greet(t, alpha.socket); true {
		a, _ := testnet.Pair(t)
		araw, _ := a.SyscallConn()
		araw.Control(func(fd uintptr) {
			unmarshal.WriteMsgUnix([]byte("\x00\x00\x00\x01\xff"), unix.UnixRights(int(fd)), nil)
		})
		wantRefusal(t, answer(t, unmarshal), "bad_request", "no HandshakerReq")
	}
}

// Rule 27: the giver's end closing aborts the handshake, gives its place back, and closes the daemon's descriptor.
func TestRule27GiverCloses(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Limits: Limits{Handshakes: 1}})
	for range 3 {
		a, b := testnet.Pair(t)
		u := greet(t, alpha.socket)
		give(t, u, clientStart(nil), a)
		if _, err := b.Read(make([]byte, 10)); err != nil { // message 1: the handshake is under way
			t.Fatal(err)
		}
		u.Close()
		if r := alpha.record(t); r.Reason != reason.CancelledName {
			t.Errorf("record %+v", r)
		}
		a.Close()
		b.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, b); err != nil { // ends when the daemon's copy is closed, too
			t.Errorf("the connection was not closed: %v", err)
		}
	}
}

// Rule 24: both interfaces share the limits, and one direction does not take the other's places.
func TestRule24HandoverLimits(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Limits: Limits{Handshakes: 2, Streams: 3}, HandshakeTimeout: 500 * time.Millisecond})
	ctx := testContext(t)
	conn := dial(t, alpha.socket, "grpc-go/1.85")
	newParty(ctx, conn).must(t, clientStart(nil))
	a, b := testnet.Pair(t)
	held := greet(t, alpha.socket)
	give(t, held, clientStart(nil), a)
	if _, err := b.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	// Both places are taken, one by each interface; both time out before a third gets one, or that one waits in vain.
	third, _ := testnet.Pair(t)
	u := greet(t, alpha.socket)
	give(t, u, clientStart(nil), third)
	server, peer := testnet.Pair(t)
	v := greet(t, alpha.socket)
	give(t, v, serverStart(nil, nil), server)
	io.WriteString(peer, "GET / HTTP/1.1\r\n")
	wantRefusal(t, answer(t, v), "malformed", "HTTP") // the other direction is served at once
	wantRefusal(t, answer(t, held), "timed_out")
	answer(t, u)
	// Silent peers are counted as streams that wait.
	var silent []*net.UnixConn
	for range 4 {
		s, _ := testnet.Pair(t)
		g := greet(t, alpha.socket)
		give(t, g, serverStart(nil, nil), s)
		silent = append(silent, g)
	}
	refused := make(chan *altspb.Answer, len(silent))
	for _, g := range silent {
		go func() {
			resp := new(altspb.Answer)
			if handed.ReadAnswer(g, resp) == nil {
				refused <- resp
			}
		}()
	}
	wantRefusal(t, <-refused, "overloaded")
}

// When a step is done, what it has for the peer is sent, though the handshake's time is over or its place is wanted.
func TestHandoverSendsWhatIsDone(t *testing.T) {
	d := startDaemon(t, "alpha.test", Config{})
	ours, peer := testnet.Pair(t)
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sock *handed.Socket
	cerr := raw.Control(func(f uintptr) {
		var fd int
		if fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			sock, err = d.poller.Adopt(fd)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	late := &taker{srv: d.Server, ctx: canceled()}
	if err := late.write(d.newSession(Caller{}, func() {}, func() {}), sock, []byte("status")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(peer, got); err != nil || string(got) != "status" {
		t.Errorf("the peer has %q, %v", got, err)
	}
}

// A draining daemon finishes what is under way, and tells the others then.
func TestHandoverDrain(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	cs, ss := testnet.Pair(t)
	c, idle, waiting := greet(t, alpha.socket), greet(t, alpha.socket), greet(t, alpha.socket)
	give(t, c, clientStart(nil), cs)
	silent, _ := testnet.Pair(t)
	give(t, waiting, serverStart(nil, nil), silent)
	if _, err := handed.Peek(ss); err != nil { // under way
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := alpha.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	s := greet(t, beta.socket)
	give(t, s, serverStart(nil, nil), ss)
	if resp := answer(t, c); resp.GetResult() == nil {
		t.Errorf("the handshake under way: %v", resp.GetRefusal())
	}
	answer(t, s)
	wantRefusal(t, answer(t, waiting), "shutting_down")
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: %v, want its end", err)
	}
	wg.Wait()
}

// A connection that begins as one that hands over sockets, and stops in the middle of its hello, is closed by the preface's
// deadline, which grpc takes back at that moment. Else it would stay, and hold up the daemon's stop.
func TestRule24HalfHello(t *testing.T) {
	t.Parallel() // it waits for the deadline
	d := startDaemon(t, "beta.test", Config{})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, handed.Hello[:1]); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("half a hello: %v, want the connection's end", err)
	}
}

// A connection that hands over sockets ends when it is too old: the identity that it stands for is of its beginning.
func TestRule21HandoverAge(t *testing.T) {
	before := handoverAge
	handoverAge = 50 * time.Millisecond
	t.Cleanup(func() { handoverAge = before })
	d := startDaemon(t, "beta.test", Config{})
	c := greet(t, d.socket)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection that is too old: %v, want its end", err)
	}
}

// Rule 27: only a connection that asked to hand over sockets can be sent a descriptor, where the kernel can see to that:
// one that lingers would hold the thread that drops it.
func TestRule27DescriptorsOnlyWhereAsked(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	open(t, d, "").must(t, clientStart(nil)) // it serves
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := c.(*net.UnixConn)
	_, _, err = u.WriteMsgUnix([]byte("PRI * HTTP/2.0"), unix.UnixRights(0), nil)
	if errors.Is(handed.TakeDescriptors(u, true), errors.ErrUnsupported) {
		t.Log("this kernel cannot keep descriptors out (before Linux 6.16)")
		if err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("a descriptor on a connection that speaks HTTP/2: %v, want EPERM", err)
	}
	a, _ := testnet.Pair(t)
	g := greet(t, d.socket)
	give(t, g, &altspb.HandshakerReq{}, a)
	wantRefusal(t, answer(t, g), "bad_request", "neither client_start nor server_start")
}

// Rule 24: a uid has only so many connections for handing over; above them an application is left to use gRPC.
func TestRule24HandoverConnections(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Connections: 3}})
	var first *net.UnixConn
	for range 2 {
		first = greet(t, d.socket)
	}
	d.handoverConns.perAccount = 2
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, handed.Hello)
	if n, err := c.Read(make([]byte, 8)); n > 0 || err == nil {
		t.Errorf("a third connection for handing over: %d bytes, %v", n, err)
	}
	open(t, d, "").must(t, clientStart(nil))
	first.Close()
	for d.handoverConns.sum() > 1 {
		time.Sleep(time.Millisecond)
	}
	greet(t, d.socket)
}

// lingering returns one end of a connection whose last close takes until the other end is closed.
func lingering(t *testing.T) (end, other *net.TCPConn) {
	t.Helper()
	end, other = testnet.Pair(t)
	raw, err := end.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for b := make([]byte, 64<<10); err == nil; {
			_, err = unix.Write(int(fd), b)
		}
		if err == unix.EAGAIN {
			err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 600})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return end, other
}

// Rule 27: descriptors that were sent and never taken hold whoever closes them for as long as their giver likes. Until then
// the connection that they came by counts, so that nobody holds more threads than he may have connections; and nothing else,
// the daemon's stop included, waits for it.
func TestRule27DescriptorsNotTaken(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	u := greet(t, d.socket)
	under, other := testnet.Pair(t)
	give(t, u, clientStart(nil), under)
	if _, err := other.Read(make([]byte, 10)); err != nil { // message 1: the handshake is under way
		t.Fatal(err)
	}
	var ends []*net.TCPConn
	for range 3 { // one is read ahead, the others are not
		end, other := lingering(t)
		give(t, u, clientStart(nil), end)
		end.Close()
		ends = append(ends, other)
	}
	u.Close()
	d.record(t)
	left := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.conns)
	}
	for left() > 0 { // all is over but the closing
		time.Sleep(time.Millisecond)
	}
	if n, all := d.handoverConns.sum(), d.connections.sum(); n != 1 || all != 1 {
		t.Errorf("while its descriptors linger, %d connections that hand over are counted, and %d in all", n, all)
	}
	for _, e := range ends {
		e.Close()
	}
	for d.handoverConns.sum()+d.connections.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// Rule 27: the stop does not wait for them.
func TestRule27StopDoesNotWait(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	u := greet(t, d.socket)
	under, other := testnet.Pair(t)
	give(t, u, clientStart(nil), under)
	if _, err := other.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		end, _ := lingering(t) // until the test has ended
		give(t, u, clientStart(nil), end)
		end.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Rule 24: a start request that was handed over is paid for by its size, and what it takes up decoded counts to the account.
func TestRule24LargeRequests(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	bomb := clientStart(func(r *clientReq) { r.ApplicationProtocols = slices.Repeat([]string{"a"}, 40_000) })
	d.change(func() {
		d.budget = fair.NewBudget[share](1, 20_000)
		d.heldBytes.perAccount = 10 << 20 // one of these
	})
	first := greet(t, d.socket)
	end, other := testnet.Pair(t)
	give(t, first, bomb, end)
	if _, err := other.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if n := d.heldBytes.sum(); n < 5<<20 {
		t.Errorf("a request of 40000 entries counts as %d bytes", n)
	}
	second := greet(t, d.socket)
	end2, _ := testnet.Pair(t)
	give(t, second, bomb, end2)
	wantRefusal(t, answer(t, second), "overloaded", "memory")
	if d.budget.Try(share{ofAccount, uint32(os.Geteuid())}, 1) {
		t.Error("two of them cost less than 20,000 units")
	}
	first.Close()
	for d.heldBytes.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
}
