package service

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

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
		_, err := newParty(testContext(t), dial(t, d.socket, "shared-altsd-altscreds")).do(clientStart(nil))
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
	d := startDaemon(t, "beta.test", Config{Limits: Limits{HandshakesInAll: 1}})
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
