package service

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// selfless are daemons that cannot stand behind themselves, or not behind the caller, and the code for it.
func selfless(t *testing.T) map[reason.Code]*daemon {
	expired := testMachine(t, "beta.test", testca.Leaf{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)})
	fails := func(c reason.Code) accountsFunc {
		return func(context.Context, uint32) (Account, error) { return Account{}, reason.Errorf(c, "no account") }
	}
	return map[reason.Code]*daemon{
		reason.OwnCertificate: startDaemon(t, "beta.test", Config{Machine: expired}),
		reason.LocalAccount:   startDaemon(t, "beta.test", Config{Accounts: fails(reason.LocalAccount)}),
		reason.Internal:       startDaemon(t, "beta.test", Config{Accounts: fails(reason.Internal)}),
	}
}

// A server's daemon that refuses for its own sake waits for the whole of message 1, in whatever parts it comes: then the
// client's daemon is told, and all four, the two errors and the two records, have one handshake ID.
func TestRefusalsOfItsOwnHaveTheID(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	for code, beta := range selfless(t) {
		t.Run(code.String(), func(t *testing.T) {
			for _, parts := range [][]int{{1240}, {1, 1239}, {8, 1000, 232}, {4, 4, 1, 1230, 1}} {
				c, s := open(t, alpha, ""), open(t, beta, "")
				m1 := c.must(t, clientStart(nil)).OutFrames
				var told []byte
				for i, n := range parts {
					req := next(m1[:n])
					if i == 0 {
						req = serverStart(m1[:n], nil)
					}
					resp := s.must(t, req)
					if int(resp.BytesConsumed) != n || i < len(parts)-1 && len(resp.OutFrames) > 0 {
						t.Fatalf("%v: part %d: %v", parts, i, resp)
					}
					m1, told = m1[n:], resp.OutFrames
				}
				if !bytes.Equal(told, noiseproto.StatusFrame(code)) {
					t.Fatalf("%v: the peer is told %x", parts, told)
				}
				_, err := c.do(next(told))
				id := wantErr(t, err, rpcCode(code, true), byPeer+code.String(), "the peer's daemon refused: ").HandshakeId
				_, err = s.do(next(nil))
				wantID(t, wantErr(t, err, rpcCode(code, false), code.String(), "this machine's daemon refused: "), id)
				ra, rb := alpha.record(t), beta.record(t)
				if id == "" || ra.ID != id || rb.ID != id || !ra.ByPeer || rb.ByPeer {
					t.Errorf("%v: handshake %q is %+v and %+v", parts, id, ra, rb)
				}
			}
		})
	}
}

// The same where the daemon has the connection, also if the peer's first bytes come after it.
func TestHandoverRefusalsOfItsOwnHaveTheID(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	for code, beta := range selfless(t) {
		t.Run(code.String(), func(t *testing.T) {
			for _, late := range []bool{false, true} {
				c := open(t, alpha, "")
				m1 := c.must(t, clientStart(nil)).OutFrames
				cs, ss := testnet.Pair(t)
				u := greet(t, beta.socket)
				if !late {
					cs.Write(m1)
				}
				give(t, u, serverStart(nil, nil), ss)
				if late {
					cs.Write(m1)
				}
				told := make([]byte, 12)
				if _, err := io.ReadFull(cs, told); err != nil || !bytes.Equal(told, noiseproto.StatusFrame(code)) {
					t.Fatalf("the peer is told %x: %v", told, err)
				}
				_, err := c.do(next(told))
				id := wantErr(t, err, rpcCode(code, true), byPeer+code.String(), "the peer's daemon refused: ").HandshakeId
				wantID(t, wantRefusal(t, answer(t, u), code.String()), id)
				if r := beta.record(t); r.ID != id || id == "" {
					t.Errorf("handshake %q is %+v", id, r)
				}
			}
		})
	}
}

// Whatever comes instead of message 1, or if nothing does, the application learns why it was refused, and a peer of
// another protocol nothing.
func TestRefusalsOfItsOwnWithoutMessage1(t *testing.T) {
	for code, beta := range selfless(t) {
		t.Run(code.String(), func(t *testing.T) {
			for _, in := range []string{"", "GET / HTTP/1.1\r\n\r\n", "salt\x01\x01\x04"} {
				if in == "" && code == reason.OwnCertificate {
					continue // that is found out when the peer begins
				}
				cs, ss := testnet.Pair(t)
				io.WriteString(cs, in)
				u := greet(t, beta.socket)
				give(t, u, serverStart(nil, nil), ss)
				wantRefusal(t, answer(t, u), code.String())
				if r := beta.record(t); r.Reason != code.String() || r.ID != "" {
					t.Errorf("%q: %+v", in, r)
				}
				ss.Close()
				want := noiseproto.StatusFrame(code)
				if in == "" || in[0] != 's' {
					want = nil
				}
				if got, err := io.ReadAll(cs); !bytes.Equal(got, want) && err == nil {
					t.Errorf("%q: the peer is told %x", in, got)
				}
			}
			s := open(t, beta, "")
			resp, err := s.do(serverStart([]byte("GET / HTTP/1.1\r\n\r\n"), nil))
			if resp != nil {
				t.Errorf("another protocol is answered: %v", resp)
			}
			wantErr(t, err, rpcCode(code, false), code.String())
			_, err = open(t, beta, "").do(serverStart(nil, nil))
			if code != reason.OwnCertificate {
				wantErr(t, err, rpcCode(code, false), code.String())
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
