package forward_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// A program is what a local program has: it reads, writes, and ends its direction.
type program interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// stdioProgram is the program at the other ends of standard input and output.
type stdioProgram struct{ *os.File }

func (p stdioProgram) CloseWrite() error { return p.Close() }

type pipes struct {
	io.Reader
	stdioProgram
}

func (p pipes) Read(b []byte) (int, error) { return p.Reader.Read(b) }

// kinds are what a local connection may be.
var kinds = []string{"tcp", "unix", "stdio", "stdio on a socket"}

// local returns a program and its connection, as a forward has it.
func local(tb testing.TB, kind string) (program, net.Conn) {
	tb.Helper()
	switch kind {
	case "tcp":
		a, b := testnet.Pair(tb)
		return a, b
	case "unix":
		a, b := unixPair(tb)
		return a, b
	case "stdio":
		inR, inW, err := os.Pipe()
		outR, outW, err2 := os.Pipe()
		if err := errors.Join(err, err2); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { inW.Close(); outR.Close() })
		return pipes{outR, stdioProgram{inW}}, must(forward.NewStdio(inR, outW))
	}
	a, b := unixPair(tb)
	in, out := must(b.File()), must(b.File())
	b.Close()
	return a, must(forward.NewStdio(in, out))
}

func unixPair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			tb.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		tb.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

// A carried connection is bob's program and alice's, with a forward for each.
type carried struct {
	bob, alice   program
	bobs, alices chan forward.Result
}

// carry has two forwards carry between programs of a kind, over raw, which are bob's and alice's ends of a connection.
func (w *world) carry(ctx context.Context, kind string, o forward.Ends, raw ...net.Conn) *carried {
	w.tb.Helper()
	if raw == nil {
		a, b := testnet.Pair(w.tb)
		raw = []net.Conn{a, b}
	}
	bob, alice := w.secure(raw[0], raw[1])
	c := &carried{bobs: make(chan forward.Result, 1), alices: make(chan forward.Result, 1)}
	var bobs, alices net.Conn
	c.bob, bobs = local(w.tb, kind)
	c.alice, alices = local(w.tb, kind)
	go func() { c.bobs <- forward.Carry(ctx, bobs, bob, o) }()
	go func() { c.alices <- forward.Carry(w.tb.Context(), alices, alice, forward.Ends{}) }()
	return c
}

// TestRule53HalfClose: 8 MiB and an end, then 1 MiB back and an end, from either side first: all arrives, and the end is
// clean at both.
func TestRule53HalfClose(t *testing.T) {
	w := newWorld(t)
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	for _, kind := range kinds {
		for _, first := range []string{"bob", "alice"} {
			t.Run(kind+"/"+first, func(t *testing.T) {
				w.tb = t
				c := w.carry(t.Context(), kind, forward.Ends{})
				one, other := c.bob, c.alice
				want := [2]forward.Result{{ToPeer: 8 << 20, FromPeer: 1 << 20}, {ToPeer: 1 << 20, FromPeer: 8 << 20}}
				if first == "alice" {
					one, other = other, one
					want[0], want[1] = want[1], want[0]
				}
				send := func(p program, b []byte) {
					if n, err := p.Write(b); n != len(b) || err != nil {
						t.Errorf("%d bytes were written: %v", n, err)
					}
					p.CloseWrite()
				}
				go send(one, data)
				if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes came, %v", len(got), err)
				}
				go send(other, data[:1<<20])
				if got, err := io.ReadAll(one); err != nil || !bytes.Equal(got, data[:1<<20]) {
					t.Fatalf("%d bytes came back, %v", len(got), err)
				}
				if got := [2]forward.Result{<-c.bobs, <-c.alices}; got != want {
					t.Errorf("%+v, not %+v", got, want)
				}
				settled(t, noneCarries)
			})
		}
	}
}

// A tamper is what somebody on the way does instead of passing on a record of alice's; done: nothing more is passed on.
type tamper func(record []byte, earlier [][]byte, bob *net.TCPConn) (done bool)

// isEnd reports whether a record has no more than an end in it; its length is to be seen.
func isEnd(record []byte) bool { return len(record) == 8+4+16 }

// between returns two ends of a connection, between which somebody is, who knows where records begin.
func between(tb testing.TB, how tamper) (bob, alice net.Conn) {
	tb.Helper()
	bob, toBob := testnet.Pair(tb)
	alice, toAlice := testnet.Pair(tb)
	go io.Copy(toAlice, toBob)
	go func() {
		var earlier [][]byte
		for {
			frame := make([]byte, 8)
			if _, err := io.ReadFull(toAlice, frame); err != nil {
				toBob.CloseWrite()
				return
			}
			n := int(binary.LittleEndian.Uint32(frame)) - 4
			handshake := string(frame[:4]) == "salt"
			if handshake {
				n = int(binary.BigEndian.Uint16(frame[6:]))
			}
			frame = append(frame, make([]byte, n)...)
			if _, err := io.ReadFull(toAlice, frame[8:]); err != nil {
				return
			}
			if handshake {
				toBob.Write(frame)
				continue
			}
			if how(frame, earlier, toBob) {
				return
			}
			earlier = append(earlier, frame)
		}
	}()
	return bob, alice
}

// pass passes on, and is done if that is asked for.
func pass(bob *net.TCPConn, b []byte, then ...func() error) bool {
	bob.Write(b)
	for _, f := range then {
		f()
	}
	return len(then) > 0
}

// TestRule53Tampered: alice says "first", "second" and her end; of what bob's program is shown nothing is a clean end where
// somebody on the way has a part in it.
func TestRule53Tampered(t *testing.T) {
	w := newWorld(t)
	for _, how := range []struct {
		name string
		by   tamper
	}{
		{"the last record dropped", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				return pass(bob, nil, bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"an old record for the last", func(r []byte, earlier [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				return pass(bob, earlier[0], bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"cut between two records", func(r []byte, earlier [][]byte, bob *net.TCPConn) bool {
			if len(earlier) == 1 {
				return pass(bob, nil, bob.Close)
			}
			return pass(bob, r)
		}},
		{"cut within a record", func(r []byte, earlier [][]byte, bob *net.TCPConn) bool {
			if len(earlier) == 1 {
				return pass(bob, r[:len(r)/2], bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"cut within the end", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				return pass(bob, r[:len(r)-1], bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"a FIN injected", func(r []byte, _ [][]byte, bob *net.TCPConn) bool { return pass(bob, r, bob.CloseWrite) }},
		{"reset", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			return pass(bob, r, func() error { return bob.SetLinger(0) }, bob.Close)
		}},
		{"a byte changed", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				r[9] ^= 1
			}
			return pass(bob, r)
		}},
	} {
		for _, kind := range append(kinds, "unix, held") {
			t.Run(how.name+"/"+kind, func(t *testing.T) {
				w.tb = t
				raw1, raw2 := between(t, how.by)
				kind, held := strings.CutSuffix(kind, ", held")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := w.carry(ctx, kind, forward.Ends{Hold: held}, raw1, raw2)
				// Not before the first was read, so that they are two records.
				go func() {
					io.WriteString(c.alice, "first")
					io.ReadFull(c.alice, make([]byte, 1))
					io.WriteString(c.alice, "second")
					c.alice.CloseWrite()
				}()
				_, err := io.ReadFull(c.bob, make([]byte, 5))
				_, werr := c.bob.Write([]byte("x"))
				reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(werr, syscall.ECONNRESET) // it is told once
				if held {
					conn := c.bob.(*net.UnixConn)
					conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
					if _, err := io.Copy(io.Discard, conn); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("what is to be held ended by %v", err)
					}
					select {
					case r := <-c.bobs:
						t.Errorf("what is to be held is over: %+v", r)
					default:
					}
					c.bob.Close()
				} else {
					rest, err := io.ReadAll(c.bob)
					if !strings.HasPrefix("second", string(rest)) {
						t.Errorf("read %q", rest)
					}
					if kind == "tcp" && !reset && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("the program sees %v and not a reset", err)
					}
				}
				if r := <-c.bobs; r.Err == nil || r.By != forward.Peer {
					t.Errorf("bob's forward: %+v", r)
				}
				raw1.Close()
				raw2.Close()
				<-c.alices
				settled(t, noneCarries)
			})
		}
	}
}

// TestRule53AfterEnd: what comes after the peer's end is an error, and so is its close before it was told of ours.
func TestRule53AfterEnd(t *testing.T) {
	w := newWorld(t)
	for _, how := range []struct {
		name, want string
		by         tamper
	}{
		{"an old record", "after its end", func(r []byte, earlier [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				return pass(bob, append(r, earlier[0]...), bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"a byte, later", "after its end", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				pass(bob, r)
				time.Sleep(10 * time.Millisecond)
				return pass(bob, []byte{0}, bob.CloseWrite)
			}
			return pass(bob, r)
		}},
		{"a close", "closed the connection", func(r []byte, _ [][]byte, bob *net.TCPConn) bool {
			if isEnd(r) {
				return pass(bob, r, bob.Close)
			}
			return pass(bob, r)
		}},
	} {
		for _, kind := range kinds {
			t.Run(how.name+"/"+kind, func(t *testing.T) {
				w.tb = t
				raw1, raw2 := between(t, how.by)
				c := w.carry(t.Context(), kind, forward.Ends{}, raw1, raw2)
				io.WriteString(c.alice, "first")
				c.alice.CloseWrite()
				// The data is shown, and the end may be: the peer did say it.
				if got, err := io.ReadAll(c.bob); string(got) != "first" && err == nil {
					t.Errorf("%q, %v", got, err)
				}
				if r := <-c.bobs; r.By != forward.Peer || r.Err == nil || !strings.Contains(r.Err.Error(), how.want) {
					t.Errorf("bob's forward: %+v", r)
				}
				raw2.Close()
				<-c.alices
			})
		}
	}
}

// TestRule53Ended: what the daemon ends, and what is stopped here, is clean nowhere.
func TestRule53Ended(t *testing.T) {
	for _, kind := range kinds {
		for _, by := range []forward.Side{forward.Daemon, forward.Stop, forward.Local} {
			if by == forward.Local && kind != "tcp" {
				continue
			}
			t.Run(kind+"/"+by.String(), func(t *testing.T) {
				w := newWorld(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				c := w.carry(ctx, kind, forward.Ends{Hold: true}, nil...)
				io.WriteString(c.alice, "hello")
				if _, err := io.ReadFull(c.bob, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				switch by {
				case forward.Daemon:
					d, err := policy.ParseDenied([]policy.File{{Name: "denied.policy", Data: []byte("deny any * alice@node2.example.com\n")}})
					if err != nil {
						t.Fatal(err)
					}
					w.bobs.SetPolicy(policy.New(d, nil))
				case forward.Stop:
					cancel(errors.New("too old"))
				case forward.Local:
					c.bob.(*net.TCPConn).SetLinger(0)
					c.bob.Close()
				}
				if _, err := io.ReadAll(c.alice); kind == "tcp" && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("alice's program: %v", err)
				}
				if r := <-c.alices; r.By != forward.Peer || r.Err == nil {
					t.Errorf("alice's forward: %+v", r)
				}
				if by == forward.Daemon && kind == "unix" {
					c.bob.Close() // it is held
				}
				if _, err := io.ReadAll(c.bob); kind == "tcp" && by != forward.Local && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("bob's program: %v", err)
				}
				r := <-c.bobs
				if r.By != by || r.Err == nil || r.FromPeer != 5 || r.ToPeer != 0 {
					t.Errorf("bob's forward: %+v", r)
				}
				if by == forward.Stop && r.Err.Error() != "too old" {
					t.Errorf("the cause is not told: %v", r.Err)
				}
			})
		}
	}
}

// TestStopsWhatIsBlocked: what neither program nor peer reads is stopped by ctx at once, in whichever direction it stands.
func TestStopsWhatIsBlocked(t *testing.T) {
	w := newWorld(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			w.tb = t
			ctx, cancel := context.WithCancelCause(t.Context())
			c := w.carry(ctx, kind, forward.Ends{})
			for _, p := range []program{c.bob, c.alice} {
				go p.Write(make([]byte, 32<<20))
			}
			// Something has come each way, and nobody reads the rest.
			for _, p := range []program{c.bob, c.alice} {
				if _, err := io.ReadFull(p, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			cancel(errors.New("drained"))
			if r := <-c.bobs; r.By != forward.Stop {
				t.Errorf("%+v", r)
			}
			c.alice.Close() // its forward may be writing to it
			if r := <-c.alices; r.Err == nil {
				t.Errorf("%+v", r)
			}
			c.bob.Close()
			settled(t, noneCarries)
		})
	}
}

// TestProgramTookNoMore: a program that is gone when the peer's last bytes come, its end right behind them, is its own fault.
func TestProgramTookNoMore(t *testing.T) {
	w := newWorld(t)
	raw1, raw2 := between(t, func(r []byte, earlier [][]byte, bob *net.TCPConn) bool {
		return isEnd(r) && pass(bob, append(earlier[0], r...), bob.CloseWrite)
	})
	c := w.carry(t.Context(), "unix", forward.Ends{}, raw1, raw2)
	c.bob.Close() // an end, as yet
	if _, err := io.ReadAll(c.alice); err != nil {
		t.Fatal(err)
	}
	c.alice.Write([]byte("late"))
	c.alice.CloseWrite()
	if r := <-c.bobs; r.Err == nil || r.By != forward.Local {
		t.Errorf("bob's forward: %+v", r)
	}
	raw2.Close()
	<-c.alices
}

// TestOtherProtocols: what tells its own ends is carried as it is, with half-close by TCP's.
func TestOtherProtocols(t *testing.T) {
	w := newWorld(t)
	w.protocol = "grpc"
	c := w.carry(t.Context(), "tcp", forward.Ends{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	for _, p := range [][2]program{{c.bob, c.alice}, {c.alice, c.bob}} {
		go func() {
			p[0].Write(data)
			p[0].CloseWrite()
		}()
		if got, err := io.ReadAll(p[1]); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	want := forward.Result{ToPeer: 1 << 20, FromPeer: 1 << 20}
	if one, other := <-c.bobs, <-c.alices; one != want || other != want {
		t.Errorf("%+v, %+v", one, other)
	}
}

func settled(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become true")
		}
	}
}

// noneCarries reports whether no goroutine of a forward is left.
func noneCarries() bool {
	stacks := make([]byte, 1<<20)
	return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("forward.(*carrier)"))
}
