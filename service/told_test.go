package service

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A responder whose time is over tells its peer, by the answer to the request that still comes within a second.
func TestDeadlineIsTold(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	beta := startDaemon(t, "beta.test", Config{HandshakeTimeout: 50 * time.Millisecond})
	for _, late := range []string{"message 3", "the rest of message 1", "the peer's end", "nothing"} {
		t.Run(late, func(t *testing.T) {
			c, s := open(t, alpha, ""), open(t, beta, "")
			m1 := c.must(t, clientStart(nil)).OutFrames
			in := m1
			if late == "the rest of message 1" {
				in = m1[:100]
			}
			m2 := s.must(t, serverStart(in, nil)).OutFrames
			id := beta.record(t).ID // its time is over
			var told *altspb.HandshakerResp
			var err error
			switch late {
			case "message 3":
				told = s.must(t, next(c.must(t, next(m2)).OutFrames))
			case "the rest of message 1":
				told = s.must(t, next(m1[100:]))
			case "the peer's end":
				_, err = s.do(next(nil))
			default:
				_, err = s.recv()
			}
			if told != nil {
				if want := noiseproto.StatusFrame(reason.TimedOut); !bytes.Equal(told.OutFrames, want) || told.Result != nil {
					t.Fatalf("the peer is told %x, want %x", told.OutFrames, want)
				}
				_, refused := c.do(next(told.OutFrames))
				wantErr(t, refused, codes.DeadlineExceeded, byPeer+"timed_out", "the peer's daemon refused: ", "(timed_out)")
				_, err = s.do(next(nil))
			}
			if r := wantErr(t, err, codes.DeadlineExceeded, "timed_out"); r.HandshakeId != id {
				t.Errorf("the refusal is of handshake %q, want %q", r.HandshakeId, id)
			}
			if n := beta.Snapshot().InFlight[Responder]; n != 0 {
				t.Errorf("%d places are held", n)
			}
		})
	}
}

// A client of a stock library learns only by its next request why its handshake is over, however late that comes: the end of
// the RPC is a fault of the daemon's to it.
func TestLateRequestIsAnswered(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{HandshakeTimeout: 50 * time.Millisecond})
	for _, agent := range []string{"grpc-go/1.85.0", "grpc-c/53.0.0", "grpc-java-netty/1.85.1", "grpc-c++/1.66.1 grpc-c/43.0.0"} {
		c := open(t, d, agent)
		c.must(t, clientStart(nil))
		id := d.record(t).ID // its time is over
		for d.Snapshot().InFlight[Initiator] != 0 || d.Snapshot().Streams != 1 {
			time.Sleep(time.Millisecond)
		}
		resp, err := c.do(next([]byte("salt")))
		if resp != nil {
			err = status.Error(codes.Code(resp.GetStatus().GetCode()), resp.GetStatus().GetDetails())
			if _, end := c.recv(); end != io.EOF {
				t.Errorf("%s: after the status: %v", agent, end)
			}
		}
		if got := status.Convert(err); got.Code() != codes.DeadlineExceeded || !strings.Contains(got.Message(), "(timed_out)") ||
			!strings.Contains(got.Message(), id) {
			t.Errorf("%s: %v", agent, err)
		}
		for d.Snapshot().Streams > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	c := open(t, d, "grpc-go/1.85.0")
	c.must(t, clientStart(nil))
	d.record(t)
	if err := d.Shutdown(testContext(t)); err != nil {
		t.Errorf("Shutdown with a client that may ask still: %v", err)
	}
}

// Who gives up tells the peer at once, wherever that has stopped.
func TestHandoverTellsThePeer(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	hasty := startDaemon(t, "beta.test", Config{HandshakeTimeout: 50 * time.Millisecond})
	t.Run("after message 2", func(t *testing.T) {
		for _, half := range []bool{false, true} { // the peer stops before message 3, or within it
			c := open(t, alpha, "")
			m1 := c.must(t, clientStart(nil)).OutFrames
			cs, ss := testnet.Pair(t)
			cs.Write(m1)
			u := greet(t, hasty.socket)
			give(t, u, serverStart(nil, nil), ss)
			m3 := c.must(t, next(frame(t, cs))).OutFrames
			if half {
				cs.Write(m3[:len(m3)/2])
			}
			_, err := c.do(next(frame(t, cs)))
			wantErr(t, err, codes.DeadlineExceeded, byPeer+"timed_out", "the peer's daemon refused: ", "(timed_out)")
			wantID(t, wantRefusal(t, answer(t, u), "timed_out"), hasty.record(t).ID)
		}
	})
	t.Run("within message 1", func(t *testing.T) {
		m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
		cs, ss := testnet.Pair(t)
		cs.Write(m1[:600])
		u := greet(t, hasty.socket)
		give(t, u, serverStart(nil, nil), ss)
		if got := frame(t, cs); !bytes.Equal(got, noiseproto.StatusFrame(reason.TimedOut)) {
			t.Errorf("the peer is told %x", got)
		}
		wantRefusal(t, answer(t, u), "timed_out")
	})
	t.Run("an initiator", func(t *testing.T) {
		cs, ss := testnet.Pair(t)
		u := greet(t, hasty.socket)
		give(t, u, clientStart(nil), cs)
		wantRefusal(t, answer(t, u), "timed_out")
		if got := frame(t, ss); len(got) != 8+1232 {
			t.Errorf("an initiator begins with %d bytes, want message 1", len(got))
		}
		if got := frame(t, ss); !bytes.Equal(got, noiseproto.StatusFrame(reason.TimedOut)) {
			t.Errorf("the peer is told %x", got)
		}
		cs.Close()
		if got, err := io.ReadAll(ss); err != nil || len(got) > 0 {
			t.Errorf("behind the status came %x, %v", got, err)
		}
	})
	t.Run("behind a frame that has no room", func(t *testing.T) {
		m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
		cs, ss := testnet.Pair(t)
		cs.Write(m1)
		before := 0
		for chunk := make([]byte, 64<<10); ; { // the peer reads nothing
			ss.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := ss.Write(chunk)
			if before += n; n == 0 {
				break
			}
			if err != nil {
				chunk = chunk[:1]
			}
		}
		u := greet(t, hasty.socket)
		give(t, u, serverStart(nil, nil), ss)
		wantRefusal(t, answer(t, u), "timed_out")
		ss.Close()
		got, err := io.ReadAll(cs)
		if err != nil {
			t.Fatal(err)
		}
		whole := 0 // message 2, if it found room after all
		if got = got[before:]; len(got) > 8 {
			whole = 8 + int(binary.BigEndian.Uint16(got[6:]))
		}
		if at := bytes.Index(got, noiseproto.StatusFrame(reason.TimedOut)); at >= 0 && at != whole {
			t.Errorf("the status came after %d bytes of a frame of %d", at, whole)
		}
	})
	for want, giveUp := range map[reason.Code]func(beta *daemon, u *net.UnixConn){
		reason.LocalAccount: func(_ *daemon, u *net.UnixConn) { u.Close() },
		reason.ShuttingDown: func(beta *daemon, _ *net.UnixConn) { beta.Shutdown(canceled()) },
	} {
		t.Run(want.String(), func(t *testing.T) {
			beta := startDaemon(t, "beta.test", Config{})
			cs, ss := testnet.Pair(t)
			io.WriteString(cs, "salt\x01")
			u := greet(t, beta.socket)
			give(t, u, serverStart(nil, nil), ss)
			for !handed.Alive(ss) { // until the daemon has taken the bytes
				time.Sleep(time.Millisecond)
			}
			giveUp(beta, u)
			if got := frame(t, cs); !bytes.Equal(got, noiseproto.StatusFrame(want)) {
				t.Errorf("the peer is told %x", got)
			}
			if _, err := u.Read(make([]byte, 1)); err == nil {
				t.Error("the application got an answer")
			}
		})
	}
}

// frame reads one frame of the peer's protocol.
func frame(t *testing.T, c *net.TCPConn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	f := make([]byte, 8, 64<<10)
	if _, err := io.ReadFull(c, f); err != nil {
		t.Fatal(err)
	}
	f = f[:8+int(binary.BigEndian.Uint16(f[6:]))]
	if _, err := io.ReadFull(c, f[8:]); err != nil {
		t.Fatal(err)
	}
	return f
}
