package altscreds

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

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

// Rule 39: the peers of one network have so many places of a server's.
func TestRule39PlacesOfNetwork(t *testing.T) {
	d := &daemonConn{places: [2]chan struct{}{make(chan struct{}, daemonPlaces), make(chan struct{}, daemonPlaces)}}
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var leave []func()
	for range handed.PlacesOfNetwork {
		l, err := d.takePlace(ctx, false, at("2001:db8::1"))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := d.takePlace(ctx, false, at("2001:db8::2")); err == nil {
		t.Error("one network has more places than it may")
	}
	for _, other := range []string{"2001:db8:0:1::1", "192.0.2.1", "127.0.0.1"} {
		l, err := d.takePlace(t.Context(), false, at(other))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	for _, l := range leave {
		l()
	}
	if len(d.peers.of) != 0 || len(d.places[1]) != 0 {
		t.Errorf("%d networks and %d places are left", len(d.peers.of), len(d.places[1]))
	}
}
