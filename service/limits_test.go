package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

func accountKey(uid uint32, r Role) gateKey { return gateKey{share: share{ofAccount, uid}, role: r} }

// Waiters are first come, first served within their key, and the keys take turns.
func TestRule24FairQueue(t *testing.T) {
	g := newGate(Limits{Handshakes: 2, TotalHandshakes: 3})
	alice, aliceIn, bob := accountKey(1, Initiator), accountKey(1, Responder), accountKey(2, Initiator)
	held := map[gateKey][]*place{}
	for _, k := range []gateKey{alice, alice, bob} {
		p, err := g.acquire(t.Context(), k, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		held[k] = append(held[k], p)
	}
	admitted := make(chan *place, 10)
	order := make(chan string)
	wait := func(k gateKey, name string) {
		_, before := g.counts()
		go func() {
			if p, err := g.acquire(t.Context(), k, false, nil); err == nil {
				admitted <- p
				order <- name
			}
		}()
		for { // until it stands in the queue
			if _, now := g.counts(); now[k.role] > before[k.role] {
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	wait(bob, "bob 1")
	wait(bob, "bob 2")
	wait(bob, "bob 3")
	wait(aliceIn, "alice in 1")
	wait(alice, "alice 1")
	var got []string
	release := func(k gateKey) {
		for len(admitted) > 0 {
			p := <-admitted
			held[p.line.key] = append(held[p.line.key], p)
		}
		g.release(held[k][0])
		held[k] = held[k][1:]
	}
	next := func(done gateKey) {
		release(done)
		got = append(got, <-order)
	}
	next(bob)     // bob 1 has waited longest
	next(bob)     // the other direction of alice has its turn before bob 2
	next(alice)   // bob 2, for alice had no room of her own when he came
	next(aliceIn) // alice 1, who has room again, but came behind
	next(alice)
	want := []string{"bob 1", "alice in 1", "bob 2", "alice 1", "bob 3"}
	if !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	for _, k := range []gateKey{alice, bob, bob} {
		release(k)
	}
	if len(g.lines) != 0 || g.ready.Len() != 0 {
		t.Errorf("%d lines and %d ready are left", len(g.lines), g.ready.Len())
	}
	in, waiting := g.counts()
	if in != [2]int{} || waiting != [2]int{} {
		t.Errorf("counts %v, %v", in, waiting)
	}
}

// A waiter that gives up leaves nothing behind.
func TestGateGivesUp(t *testing.T) {
	g := newGate(Limits{Handshakes: 1, TotalHandshakes: 1})
	k, other := accountKey(1, Initiator), accountKey(2, Initiator)
	held, err := g.acquire(t.Context(), k, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []gateKey{k, other} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := g.acquire(ctx, key, false, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire: %v", err)
		}
		cancel()
	}
	g.release(held)
	if len(g.lines) != 0 || g.ready.Len() != 0 {
		t.Errorf("%d lines and %d ready are left", len(g.lines), g.ready.Len())
	}
	if p, err := g.acquire(canceled(), other, false, nil); err == nil {
		g.release(p) // there was room
	}
}

// Too many handshakes: RESOURCE_EXHAUSTED for this account and direction; its other direction and others go on.
func TestRule24Handshakes(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}, HandshakeTimeout: time.Minute})
	alpha := startDaemon(t, "alpha.test", Config{})
	first := open(t, d, "")
	first.must(t, clientStart(nil))

	conn := dial(t, d.socket, "")
	// before asks with a deadline; on a machine so loaded that no answer came in time, with a longer one.
	before := func(req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
		for wait := 500 * time.Millisecond; ; wait *= 3 {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			resp, err := newParty(ctx, conn).do(req)
			if status.Code(err) != codes.DeadlineExceeded || wait > time.Minute {
				return resp, err
			}
		}
	}
	_, err := before(clientStart(nil))
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "too many handshakes under way")

	// A stream that only waits for its peer holds no place, so that the other direction works, twice.
	for range 2 {
		m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
		s := open(t, d, "")
		s.must(t, serverStart(nil, nil))
		if len(s.must(t, next(m1)).OutFrames) == 0 {
			t.Error("no message 2")
		}
		s.stream.CloseSend()
		if _, err := s.recv(); err == nil {
			t.Error("the stream went on")
		}
	}

	// The next in the queue is served as soon as there is room.
	waiter := open(t, d, "")
	done := make(chan error, 1)
	go func() {
		_, err := waiter.do(clientStart(nil))
		done <- err
	}()
	for d.Snapshot().Waiting[Initiator] == 0 {
		time.Sleep(time.Millisecond)
	}
	first.stream.CloseSend()
	if err := <-done; err != nil {
		t.Errorf("the waiter: %v", err)
	}

	// A server that finds no room tells the peer; one that waits when the daemon stops is told so.
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	s := open(t, d, "")
	s.must(t, serverStart(m1, nil))
	if resp, err := before(serverStart(m1,
		nil)); string(resp.GetOutFrames()) != string(noiseproto.StatusFrame(reason.Overloaded)) {
		t.Errorf("the peer is told %x: %v", resp.GetOutFrames(), err)
	}
	go func() {
		_, err := newParty(testContext(t), conn).do(clientStart(nil))
		done <- err
	}()
	for d.Snapshot().Waiting[Initiator] == 0 {
		time.Sleep(time.Millisecond)
	}
	d.drain()
	wantErr(t, <-done, codes.Unavailable, "shutting_down")
}

// A waiter whose application goes away leaves the queue.
func TestWaiterCancelled(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{TotalHandshakes: 1}})
	open(t, d, "").must(t, clientStart(nil))
	ctx, cancel := context.WithCancel(t.Context())
	go newParty(ctx, dial(t, d.socket, "")).do(clientStart(nil))
	for d.Snapshot().Waiting[Initiator] == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if r := d.record(t); r.Reason != reason.CancelledName {
		t.Errorf("record %+v", r)
	}
	if st := d.Snapshot(); st.Waiting[Initiator] != 0 || st.InFlight[Initiator] != 1 {
		t.Errorf("snapshot %+v", st)
	}
}

// Streams that wait are capped for each uid; an account's own calls still get through.
func TestRule24Streams(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 3}})
	for range 3 {
		open(t, d, "").must(t, serverStart(nil, nil))
	}
	_, err := open(t, d, "").do(serverStart(nil, nil))
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "3 streams open that wait")
	resp, err := open(t, d, "grpc-c/29").do(serverStart(nil, nil))
	if err != nil || resp.Status.GetCode() != uint32(codes.ResourceExhausted) {
		t.Errorf("C-core: %v, %v", resp, err)
	}
	_, err = open(t, d, "").recv() // silent
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "3 streams open that wait")
	open(t, d, "").must(t, clientStart(nil))
}

// Connections are capped for each uid: a few above the cap are told why, the others closed.
func TestRule24Connections(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Connections: 2}})
	for range 2 {
		open(t, d, "").must(t, clientStart(nil))
	}
	conn := dial(t, d.socket, "")
	_, err := newParty(testContext(t), conn).do(clientStart(nil))
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "holds 2 connections")
	_, err = open(t, d, "").recv()
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "holds 2 connections")
	for range refusedConnections - 2 {
		_, err := open(t, d, "").do(clientStart(nil))
		wantErr(t, err, codes.ResourceExhausted, "overloaded", "holds 2 connections")
	}
	p := newParty(testContext(t), dial(t, d.socket, ""))
	if _, err := p.do(clientStart(nil)); err == nil {
		t.Error("a connection above the refused ones was served")
	} else {
		wantErr(t, err, codes.Unavailable, "")
	}
	if n := d.Snapshot().Connections; n != 2+refusedConnections {
		t.Errorf("%d connections", n)
	}
	conn.Close()
	for d.Snapshot().Connections != 1+refusedConnections {
		time.Sleep(time.Millisecond)
	}
}

func TestLimitDefaults(t *testing.T) {
	var l Limits
	if err := l.setDefaults(); err != nil || (l != Limits{200, 2000, 1024, 1024}) {
		t.Errorf("%+v, %v", l, err)
	}
	if s := fmt.Sprint(Initiator, Responder); s != "initiator responder" {
		t.Error(s)
	}
}
