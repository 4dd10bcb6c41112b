package service

import (
	"bytes"
	"context"
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

// sum is a Meter that lets everything pass.
type sum struct{ units int }

func (s *sum) Charge(_ context.Context, units int) error {
	s.units += units
	return nil
}

// Rule 41: each frame is charged for before it is worked on, however its bytes are cut.
func TestRule41Frames(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	f.WriteSettings()
	for range 100 {
		f.WritePing(false, [8]byte{})
		f.WriteData(1, false, nil)
	}
	f.WriteData(1, false, make([]byte, 1000))
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: make([]byte, 6400), EndHeaders: true})
	want := 10 + 100*(10+3) + 3 + 60 + 200
	for _, piece := range []int{1, 7, 1000, 1 << 20} {
		total := new(sum)
		m := newFrameMeter(total)
		for all := b.Bytes(); len(all) > 0; {
			n := min(piece, len(all))
			if err := m.read(t.Context(), all[:n]); err != nil {
				t.Fatal(err)
			}
			all = all[n:]
		}
		if got := total.units; got < want || got > want+b.Len()>>10 {
			t.Errorf("in pieces of %d: %d units, want %d", piece, got, want)
		}
	}
}

// Rule 41: an account that does no handshakes is read no faster than its budget lets it, and one that does them is not
// held up.
func TestRule41JunkIsPaced(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	d.budget = fair.NewBudget[share](1000, 1000)
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
	// In the first piece that is read there may be many at once, and then nothing for as long as they cost.
	if most := (8<<10)/9*2 + 300; acks == 0 || acks > most {
		t.Errorf("%d frames were answered in a second, want %d at most", acks, most)
	}
}

// Rule 41: replays of message 1 to one account's server have a budget, which handshakes that end well give back; a
// caller that stands still while it waits is refused at once.
func TestRule41Replays(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	d.unproven = fair.NewBudget[share](1, 2*costMessage1-1)
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
