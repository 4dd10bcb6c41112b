package localgrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	echoPath  = "/test/Echo" // answers each request by itself
	mutePath  = "/test/Mute" // answers none
	checkPath = "/grpc.health.v1.Health/Check"
	watchPath = "/grpc.health.v1.Health/Watch"
)

// A counter is an Account that counts.
type counter struct {
	mu            sync.Mutex
	streams, held int
	most          int // held at once
	maxStreams    int
	maxHeld       int
}

func (a *counter) Enter() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams >= a.maxStreams {
		return status.Error(codes.ResourceExhausted, "too many")
	}
	a.streams++
	return nil
}

func (a *counter) Leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams--
}

func (a *counter) Hold(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > 0 && a.held+n > a.maxHeld {
		return false
	}
	a.held += n
	a.most = max(a.most, a.held)
	return true
}

func (a *counter) peak() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.most
}

func (a *counter) counts() (streams, held int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.streams, a.held
}

// A tape is a Meter that remembers what was charged.
type tape struct {
	mu  sync.Mutex
	sum int
}

func (m *tape) TryCharge(units int) bool { return m.Charge(context.Background(), units) == nil }

func (m *tape) Charge(_ context.Context, units int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sum += units
	return nil
}

func (m *tape) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sum
}

// An echo answers each request by itself, or never.
type echo struct {
	st   *Stream
	mute bool
}

func (e echo) Message(b []byte) {
	m := new(wrapperspb.BytesValue)
	if proto.Unmarshal(b, m) == nil && !e.mute {
		e.st.Send(m)
	}
}

func (e echo) End(err error) {
	if !e.mute && err == io.EOF {
		e.st.Finish(nil)
	}
}

func (e echo) Drain() {}

// A server serves on a UNIX socket.
type server struct {
	*Server
	path    string
	account *counter
	tape    *tape
	meter   Meter
	ended   chan error // of each connection
}

func startServer(t testing.TB, set func(*server)) *server {
	t.Helper()
	s := &server{Server: New(), account: &counter{maxStreams: 1000, maxHeld: 8 << 20}, tape: new(tape),
		ended: make(chan error, 1000), path: filepath.Join(t.TempDir(), "s")}
	s.Age, s.Grace, s.Linger, s.meter = time.Hour, time.Minute, 50*time.Millisecond, s.tape
	s.Handle(echoPath, func(st *Stream) Call { return echo{st: st} })
	s.Handle(mutePath, func(st *Stream) Call { return echo{st: st, mute: true} })
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	if set != nil {
		set(s)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		s.closeAll()
		conns.Wait()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // what works for them ends soon
			streams, held := s.account.counts()
			if streams == 0 && held == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d streams and %d bytes are left behind", streams, held)
			}
		}
	})
	go func() {
		for {
			u, err := l.AcceptUnix()
			if err != nil {
				return
			}
			conns.Go(func() {
				err := s.ServeConn(u, Peer{Context: ctx, Account: s.account, Meter: s.meter})
				select {
				case s.ended <- err:
				default:
				}
			})
		}
	}()
	return s
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		go c.do(c.shut)
	}
}

// A client speaks HTTP/2 raw.
type client struct {
	net.Conn
	t   testing.TB
	fr  *http2.Framer
	enc *hpack.Encoder
	hdr bytes.Buffer
}

func (s *server) dialRaw(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func (s *server) dial(t testing.TB, settings ...http2.Setting) *client {
	t.Helper()
	c := &client{Conn: s.dialRaw(t), t: t}
	io.WriteString(c, http2.ClientPreface)
	c.fr = http2.NewFramer(c, c)
	c.enc = hpack.NewEncoder(&c.hdr)
	c.fr.WriteSettings(settings...)
	return c
}

func (c *client) block(path string, extra ...string) []byte {
	c.hdr.Reset()
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "x",
		"content-type", "application/grpc", "te", "trailers"}, extra...)
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.hdr.Bytes()
}

func (c *client) open(id uint32, path string, extra ...string) {
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(path, extra...), EndHeaders: true})
}

// message returns a request of n bytes for echo, with its prefix.
func message(n int) []byte {
	b, err := proto.Marshal(wrapperspb.Bytes(bytes.Repeat([]byte("x"), n)))
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// next returns the next frame that is no WINDOW_UPDATE, SETTINGS or PING.
func (c *client) next() (http2.Frame, error) {
	for {
		f, err := c.fr.ReadFrame()
		switch f.(type) {
		case *http2.WindowUpdateFrame, *http2.SettingsFrame, *http2.PingFrame:
			continue
		}
		return f, err
	}
}

// An answer is all that came on a stream until its end.
type answer struct {
	fields map[string]string
	data   []byte
	reset  http2.ErrCode
	was    bool // reset
}

// answer reads until a stream's end.
func (c *client) answer(id uint32) answer {
	c.t.Helper()
	a := answer{fields: map[string]string{}}
	dec := hpack.NewDecoder(4096, nil)
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("stream %d: %v", id, err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, err := dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				c.t.Fatal(err)
			}
			if f.StreamID == id {
				for _, kv := range fields {
					a.fields[kv.Name] = kv.Value
				}
				if f.StreamEnded() {
					return a
				}
			}
		case *http2.DataFrame:
			if f.StreamID == id {
				a.data = append(a.data, f.Data()...)
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				a.reset, a.was = f.ErrCode, true
				return a
			}
		case *http2.GoAwayFrame:
			c.t.Fatalf("stream %d: GOAWAY %v %s", id, f.ErrCode, f.DebugData())
		}
	}
}

// wantGoAway reads until GOAWAY and the connection's end.
func (c *client) wantGoAway(code http2.ErrCode, text string) {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("%v, want GOAWAY %v", err, code)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if g.ErrCode != code || !bytes.Contains(g.DebugData(), []byte(text)) {
				c.t.Errorf("GOAWAY %v %q, want %v %q", g.ErrCode, g.DebugData(), code, text)
			}
			break
		}
	}
	c.wantEnd()
}

func (c *client) wantEnd() {
	c.t.Helper()
	for {
		if _, err := c.fr.ReadFrame(); err != nil {
			if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				c.t.Errorf("the connection goes on")
			}
			return
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
