package altscreds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/gate"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// Rule 39: a peer that sends less than a whole message 1 takes no place of a server's, and those of whom there are many
// give way to the newest.
func TestRule39PartialMessage1(t *testing.T) {
	m1 := append([]byte("salt\x01\x01\x04\xd0"), make([]byte, 1232)...)
	read := make([]*net.TCPConn, 0, silentPeers+1)
	results := make([]chan error, 0, silentPeers+1)
	await := func(c net.Conn) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := awaitPeer(c, nil)
			done <- err
		}()
		return done
	}
	for i := range silentPeers + 1 {
		a, b := testnet.Pair(t)
		a.Write(m1[:1+i%len(m1)])
		done := await(b)
		for silentCount() != min(i+1, silentPeers) {
			time.Sleep(100 * time.Microsecond)
		}
		read, results = append(read, a), append(results, done)
	}
	var he *HandshakeError
	if err := <-results[0]; !errors.As(err, &he) || he.Reason != ReasonOverloaded {
		t.Errorf("the oldest: %v", err)
	}
	for i := 1; i < len(results); i++ {
		select {
		case err := <-results[i]:
			t.Fatalf("connection %d was given up, or had a place, after %d bytes: %v", i, 1+i%len(m1), err)
		default:
		}
	}
	for i := 1; i < len(results); i++ {
		read[i].Write(m1[1+i%len(m1):])
		if err := <-results[i]; err != nil {
			t.Errorf("a whole message 1: %v", err)
		}
	}
	for _, other := range []string{"GET /", "salt\x01\x09\x00\x00", "\x16\x03"} { // for the daemon to judge
		a, b := testnet.Pair(t)
		a.Write([]byte(other))
		if err := <-await(b); err != nil {
			t.Errorf("%q: %v", other, err)
		}
	}
	// Where the bytes cannot be left in the socket, no more is taken than the message.
	x, y := net.Pipe()
	go func() {
		x.Write(m1[:100])
		x.Write(append(m1[100:len(m1):len(m1)], "next"...))
		x.Close()
	}()
	got, err := awaitPeer(y, []byte(nil))
	if err != nil || len(got) != len(m1) {
		t.Errorf("a pipe: %d bytes, %v", len(got), err)
	}
	if rest, err := io.ReadAll(y); string(rest) != "next" {
		t.Errorf("then %q, %v", rest, err)
	}
}

func silentCount() int {
	silent.mu.Lock()
	defer silent.mu.Unlock()
	return silent.list.Len()
}

// Rule 39: the peers of one network have so many places of a server's, and those of one site so many more; when others
// wait, the oldest goes, as far as its place is not prolonged.
func TestRule39PlacesOfNetwork(t *testing.T) {
	d := &daemonConn{servers: newServerPlaces()}
	d.servers.networks.Grace, d.servers.all.Grace = time.Millisecond, time.Millisecond
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	var held []*place
	take := func(peer net.Addr) *place {
		t.Helper()
		p, err := d.takePlace(t.Context(), false, peer)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, p)
		return p
	}
	gone := func(p *place) { // leaves when it is told to
		t.Helper()
		<-p.ctx.Done()
		var he *HandshakeError
		if err := placeError(p.ctx, nil); !errors.As(err, &he) || he.Reason != ReasonOverloaded {
			t.Errorf("sent away: %v", err)
		}
		p.leave()
	}
	for range handed.PlacesOfNetwork {
		take(at("2001:db8::1"))
	}
	held[0].prolong()
	go gone(held[1])
	take(at("2001:db8::2"))
	if held[0].ctx.Err() != nil {
		t.Error("a place went that was prolonged")
	}
	held = append(held[:1], held[2:]...)
	for i := len(held); i < sitePlaces; i++ {
		take(at(fmt.Sprintf("2001:db8:0:%x::1", i)))
	}
	for _, other := range []string{"2001:db8:1::1", "192.0.2.1", "127.0.0.1"} {
		take(at(other))
	}
	take(&net.UnixAddr{Name: "@", Net: "unix"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.takePlace(ctx, false, at("2001:db8:0:ffff::1")); err == nil {
		t.Error("one site has more places than it may")
	}
	for _, p := range held {
		p.leave()
	}
	for _, g := range []*gate.Gate[network]{d.servers.networks, d.servers.all} {
		if in, waiting := g.Counts(func(network) bool { return true }); in != 0 || waiting != 0 {
			t.Errorf("%d places and %d waiting are left", in, waiting)
		}
	}
}

// Rule 39: where too many peers are silent, those of the network that has most of them give way.
func TestRule39SilentPeers(t *testing.T) {
	var w waitingPeers
	enter := func(ip string) *waitingPeer {
		a, _ := testnet.Pair(t)
		p, _ := w.enter(peerAt{a, ip})
		return p
	}
	honest := enter("192.0.2.1")
	var flood []*waitingPeer
	for range silentPeers {
		flood = append(flood, enter("192.0.2.2"))
	}
	if honest.givenUp || !flood[0].givenUp || flood[1].givenUp {
		t.Errorf("given up: the honest one %v, the flood's %v, %v", honest.givenUp, flood[0].givenUp, flood[1].givenUp)
	}
}

// A peerAt is a connection from the address.
type peerAt struct {
	net.Conn
	ip string
}

func (p peerAt) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(p.ip), Port: 1} }
