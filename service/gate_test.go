package service

import (
	"context"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/gate"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// Rule 39: what is less than a whole message 1 takes no place, by either interface, nor does what is none.
func TestRule39WholeMessage1(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}, HandshakeTimeout: time.Minute})
	alpha := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	for _, part := range [][]byte{m1[:1], m1[:8], m1[:len(m1)-1]} {
		open(t, d, "").must(t, serverStart(part, nil))
		s := open(t, d, "")
		s.must(t, serverStart(nil, nil))
		for _, b := range part[:min(8, len(part))] {
			s.must(t, next([]byte{b}))
		}
		cs, ss := testnet.Pair(t)
		if _, err := cs.Write(part); err != nil {
			t.Fatal(err)
		}
		give(t, greet(t, d.socket), serverStart(nil, nil), ss)
	}
	if in := d.Snapshot().InFlight[Responder]; in != 0 {
		t.Errorf("%d places are taken", in)
	}
	s := open(t, d, "")
	if len(s.must(t, serverStart(m1, nil)).OutFrames) == 0 {
		t.Error("no message 2 for a whole message 1")
	}
	if in := d.Snapshot().InFlight[Responder]; in != 1 {
		t.Errorf("%d places are taken by a whole message 1", in)
	}
	long := make([]byte, 4096) // no message 1, however long: refused without a place
	if _, err := open(t, d, "").do(serverStart(long, nil)); err == nil {
		t.Error("zero bytes are taken for message 1")
	}
}

// Rule 39: an address has so many places, and who comes then gets that of the oldest who has not proved who he is; an
// account's places go the same way, a client's never.
func TestRule39OldestGoes(t *testing.T) {
	g := newAddressGate()
	g.Grace = 20 * time.Millisecond
	own := share{ofAccount, 1}
	key := gateKey{own, Responder, handed.Network(netip.MustParseAddr("192.0.2.1"))}
	var away [handed.PlacesOfNetwork + 1]atomic.Bool
	var places []*place
	take := func(i int, key gateKey) (*place, error) {
		return g.Acquire(t.Context(), key, false, func() { away[i].Store(true) })
	}
	for i := range handed.PlacesOfNetwork {
		p, err := take(i, key)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, p)
	}
	other := gateKey{own, Responder, handed.Network(netip.MustParseAddr("192.0.2.2"))}
	if p, err := g.Acquire(t.Context(), other, true, func() {}); err != nil {
		t.Errorf("another address: %v", err)
	} else {
		g.Release(p)
	}
	if _, err := g.Acquire(t.Context(), key, true, func() {}); err != gate.ErrNoPlace {
		t.Errorf("a place at once: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := take(handed.PlacesOfNetwork, key)
		got <- err
	}()
	for !away[0].Load() {
		time.Sleep(time.Millisecond)
	}
	g.Release(places[0])
	if err := <-got; err != nil {
		t.Error(err)
	}
	for i := 2; i < len(away); i++ { // a second may have gone while the first left
		if away[i].Load() {
			t.Errorf("place %d was taken back too", i)
		}
	}

	g = newGate(Limits{Handshakes: 1, HandshakesInAll: 10})
	g.Grace = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	client := gateKey{share: own, role: Initiator}
	if _, err := g.Acquire(ctx, client, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Acquire(ctx, client, false, nil); err == nil {
		t.Error("a client's place was given away")
	}
}

// Rule 39: a peer that replays message 1 holds a place for unprovenGrace when others wait.
func TestRule39ReplaysGiveWay(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}, HandshakeTimeout: time.Minute})
	d.change(func() { d.gate.Grace = 20 * time.Millisecond })
	alpha := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	cs, ss := testnet.Pair(t)
	if _, err := cs.Write(m1); err != nil {
		t.Fatal(err)
	}
	stranger := greet(t, d.socket)
	give(t, stranger, serverStart(nil, nil), ss)
	for d.Snapshot().InFlight[Responder] == 0 {
		time.Sleep(time.Millisecond)
	}
	c, s := open(t, alpha, ""), open(t, d, "")
	join(t, c, s, clientStart(nil), serverStart(nil, nil), 1<<20)
	wantRefusal(t, answer(t, stranger), "overloaded", "gave its place")
	ss.Close()
	b, err := io.ReadAll(io.LimitReader(cs, 1<<16))
	if want := string(noiseproto.StatusFrame(reason.Overloaded)); len(b) < len(want) || string(b[len(b)-len(want):]) != want {
		t.Errorf("the peer is told %x: %v", b[max(0, len(b)-12):], err)
	}
}

// Rule 39: so does one on a stream of gRPC's: the next request is answered by what the peer is told.
func TestRule39ReplaysGiveWayOnStreams(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}, HandshakeTimeout: time.Minute})
	d.change(func() { d.gate.Grace = 20 * time.Millisecond })
	alpha := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	stranger := open(t, d, "")
	stranger.must(t, serverStart(m1, nil))
	c, s := open(t, alpha, ""), open(t, d, "")
	join(t, c, s, clientStart(nil), serverStart(nil, nil), 1<<20)
	resp, err := stranger.do(next([]byte{1}))
	if err == nil && string(resp.OutFrames) != string(noiseproto.StatusFrame(reason.Overloaded)) {
		t.Errorf("the peer is told %x", resp.OutFrames)
	}
	if err == nil { // it came within lingerTime
		_, err = stranger.do(next([]byte{1}))
	}
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "gave its place")
}

// Rule 39: a caller that stands still while it waits, such as Envoy, is answered at once, with a place as long as its
// account has less than twice its limit.
func TestRule39BlockingCallers(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}, HandshakeTimeout: time.Minute})
	blocking := "envoy grpc-c++/1.60.0 grpc-c/40.0.0"
	for range 2 { // twice the limit begin at once
		open(t, d, blocking).must(t, clientStart(nil))
	}
	for _, agent := range []string{blocking, "grpc-java-netty/1.70.0"} {
		began := time.Now()
		resp, err := open(t, d, agent).do(clientStart(nil))
		if err == nil && resp.Status.GetCode() != uint32(codes.ResourceExhausted) {
			t.Errorf("%s: %v", agent, resp)
		} else if err != nil {
			wantErr(t, err, codes.ResourceExhausted, "overloaded")
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: answered after %v", agent, took)
		}
	}
}
