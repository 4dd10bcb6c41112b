package service

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
	"golang.org/x/net/http2"
)

// Rule 41: a handshake that went well gives back more than its connection and its frames cost.
func TestRule41HandshakesPayForThemselves(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	d.change(func() { d.budget = fair.NewBudget[share](1, 5*handshakeOK) })
	for range 20 {
		join(t, open(t, d, ""), open(t, d, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
	}
}

// Rule 41: an account that does no handshakes is read no faster than its budget lets it, and one that does them is not
// held up.
func TestRule41JunkIsPaced(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	d.change(func() { d.budget = fair.NewBudget[share](1000, 1000) })
	own := share{ofAccount, uint32(os.Geteuid())}
	for range 20 { // more than the budget has, by far
		d.budget.Credit(own, costConnection)
		c, s := open(t, d, ""), open(t, d, "")
		join(t, c, s, clientStart(nil), serverStart(nil, nil), 1<<20)
	}
	d.budget.Credit(own, 1000)
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	go func() {
		for {
			if f.WriteSettings() != nil { // each is answered
				return
			}
		}
	}()
	acks := 0
	c.SetReadDeadline(time.Now().Add(time.Second))
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			break
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && s.IsAck() {
			acks++
		}
	}
	if most := 1000 - costConnection + 1000 + 200; acks < 500 || acks > most { // what was saved, and a second's
		t.Errorf("%d frames were answered in a second, want %d at most", acks, most)
	}
}

// Rule 41: replays of message 1 to one account's server have a budget, which handshakes that end well give back; a
// caller that stands still while it waits is refused at once.
func TestRule41Replays(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	d.change(func() { d.unproven = fair.NewBudget[share](1, 2*costMessage1-1) })
	alpha := startDaemon(t, "alpha.test", Config{})
	for range 5 {
		join(t, open(t, alpha, ""), open(t, d, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
	}
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	for range 2 {
		open(t, d, "").must(t, serverStart(m1, nil))
	}
	resp, err := open(t, d, "envoy grpc-c++/1.60.0 grpc-c/40.0.0").do(serverStart(m1, nil))
	if err != nil || !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(reason.Overloaded)) { // what the peer is told
		t.Errorf("beyond the budget: %x, %v", resp.GetOutFrames(), err)
	}
	open(t, d, "").must(t, clientStart(nil)) // the account's own calls go on
}
