package localgrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func init() { // that no test waits long
	prefaceTimeout, partTimeout = 300*time.Millisecond, 300*time.Millisecond
	writeTimeout, answerTimeout = 300*time.Millisecond, 2*time.Second
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// Requests are answered each by one response, whatever frames they come in.
func TestEcho(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	for i, piece := range []int{1 << 14, 1000, 7, 1} {
		id := uint32(2*i + 1)
		c.open(id, echoPath)
		want := append(message(100), append(message(0), message(3000)...)...)
		for rest := want; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			c.fr.WriteDataPadded(id, len(rest) <= piece, rest[:min(piece, len(rest))], make([]byte, i))
		}
		if a := c.answer(id); !bytes.Equal(a.data, want) || a.fields["grpc-status"] != "0" || a.fields[":status"] != "200" {
			t.Errorf("in pieces of %d: %d bytes, %v", piece, len(a.data), a.fields)
		}
	}
}

// A stock client finds health as by grpc-go's server.
func TestHealth(t *testing.T) {
	s := startServer(t, nil)
	conn, err := grpc.NewClient("unix:"+s.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := grpc_health_v1.NewHealthClient(conn)
	for range 3 {
		resp, err := h.Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
		if err != nil || resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Fatalf("Check: %v, %v", resp, err)
		}
	}
	_, err = h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("Check of none: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, err := h.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := w.Recv(); err != nil || resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("Watch: %v, %v", resp, err)
	}
	cancel()
	eventually(t, "a watch goes on that was cancelled", func() bool { n, _ := s.account.counts(); return n == 0 })
}

// What cannot be answered is refused by gRPC's own statuses.
func TestRefusals(t *testing.T) {
	s := startServer(t, nil)
	for _, test := range []struct {
		name, path string
		headers    []string
		data       []byte
		http, grpc string
		text       string
	}{
		{name: "an unknown method", path: "/no/Such", grpc: "12", text: "no method"},
		{name: "a compression", path: echoPath, headers: []string{"grpc-encoding", "gzip"}, grpc: "12", text: "gzip"},
		{name: "no compression", path: echoPath, headers: []string{"grpc-encoding", "identity"}, grpc: "0"},
		{name: "a bad timeout", path: echoPath, headers: []string{"grpc-timeout", "1x"}, grpc: "13", text: "1x"},
		{name: "a compressed message", path: echoPath, data: []byte{1, 0, 0, 0, 0}, grpc: "13", text: "compressed"},
		{name: "a large message", path: echoPath, data: []byte{0, 0, 2, 0, 1}, grpc: "8", text: "larger than max"},
		{name: "half a message", path: echoPath, data: []byte{0, 0, 0, 0, 1}, grpc: "13", text: "middle of a message"},
		{name: "no request", path: checkPath, grpc: "13", text: "without a request"},
		{name: "two requests", path: checkPath, data: make([]byte, 10), grpc: "13", text: "one request"},
		{name: "no protobuf", path: checkPath, data: []byte{0, 0, 0, 0, 1, 0xff}, grpc: "13", text: "could not be read"},
		{name: "many headers", path: echoPath, headers: []string{"a", strings.Repeat("x", 9000), "b", strings.Repeat("y", 9000)},
			grpc: "8", text: "headers"},
	} {
		c := s.dial(t)
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(test.path, test.headers...), EndHeaders: true})
		c.fr.WriteData(1, true, test.data)
		a := c.answer(1)
		if a.fields["grpc-status"] != test.grpc || a.fields[":status"] != "200" || !strings.Contains(a.fields["grpc-message"], test.text) {
			t.Errorf("%s: %v", test.name, a.fields)
		}
	}
	for _, test := range []struct{ name, value, http string }{
		{"content-type", "application/json", "415"}, {"content-type", "application/grpcish", "415"},
		{"content-type", "application/grpc+proto", "200"}, {"content-type", "application/grpc;x", "200"},
		{":method", "GET", "405"},
	} {
		c := s.dial(t)
		block := map[string]string{":method": "POST", "content-type": "application/grpc"}
		block[test.name] = test.value
		b := literal(nil, ":method", block[":method"])
		b = literal(literal(b, ":scheme", "http"), ":path", echoPath)
		b = literal(b, "content-type", block["content-type"])
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: true, EndStream: true})
		if a := c.answer(1); a.fields[":status"] != test.http {
			t.Errorf("%s %s: %v", test.name, test.value, a.fields)
		}
	}
}

// Deadlines end a call, in each of grpc-timeout's units.
func TestDeadline(t *testing.T) {
	c := startServer(t, nil).dial(t)
	c.open(1, mutePath, "grpc-timeout", "20m")
	if a := c.answer(1); a.fields["grpc-status"] != "4" {
		t.Errorf("%v", a.fields)
	}
	for s, want := range map[string]time.Duration{"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second,
		"99999999H": 1000 * time.Hour, "5000u": 5 * time.Millisecond, "7n": 7} {
		d, ok := (&headerBlock{timeout: s}).deadline()
		if left := time.Until(d); !ok || left > want || left < want-time.Second {
			t.Errorf("%s: %v", s, left)
		}
	}
	for _, s := range []string{"S", "1", "-1S", "123456789S", "1x", "+1S"} {
		if _, ok := (&headerBlock{timeout: s}).deadline(); ok {
			t.Errorf("%s is taken", s)
		}
	}
}

func TestTrailers(t *testing.T) {
	if got := encodeText("50% für\n+a"); got != "50%25 f%C3%BCr%0A+a" {
		t.Errorf("%s", got)
	}
	st, err := status.New(codes.Unavailable, strings.Repeat("ü", 5000)).WithDetails(new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if b := trailers(true, st.Err()); len(b) > maxFrame || !bytes.Contains(b, []byte("grpc-status-details-bin")) {
		t.Errorf("trailers of %d bytes", len(b))
	}
}

// Streams at once are bounded, and so are those of an account.
func TestStreamsAtOnce(t *testing.T) {
	s := startServer(t, func(s *server) { s.account.maxStreams = maxStreams + 1 })
	c := s.dial(t)
	for i := range uint32(maxStreams) {
		c.open(2*i+1, mutePath)
	}
	c.open(601, mutePath)
	if a := c.answer(601); a.reset != http2.ErrCodeRefusedStream {
		t.Errorf("%+v", a)
	}
	other := s.dial(t)
	other.open(1, mutePath)
	other.open(3, echoPath)
	if a := other.answer(3); a.fields["grpc-status"] != "8" {
		t.Errorf("%+v", a)
	}
}

// What is sent beyond a window, fixed as it is, ends the stream or the connection; what waits is bounded.
func TestRequestsThatWaitAreBounded(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.open(1, mutePath)
	for range streamWindow/maxFrame + 1 {
		c.fr.WriteData(1, false, make([]byte, maxFrame))
	}
	if a := c.answer(1); a.reset != http2.ErrCodeFlowControl {
		t.Errorf("%+v", a)
	}
	c = s.dial(t)
	for i := range uint32(9) {
		c.open(2*i+1, mutePath)
		for range 8 {
			if c.fr.WriteData(2*i+1, false, make([]byte, maxFrame)) != nil {
				break
			}
		}
	}
	c.wantGoAway(http2.ErrCodeFlowControl, "connection's window")
	if s.account.peak() > connWindow {
		t.Errorf("%d bytes were held at once", s.account.peak())
	}
}

// A request that is not whole is kept only up to what it says is its length, and what an account may hold.
func TestAccountBoundsWhatIsHeld(t *testing.T) {
	s := startServer(t, func(s *server) { s.account.maxHeld = 40 << 10 })
	c := s.dial(t)
	for i := range uint32(4) {
		c.open(2*i+1, mutePath)
		c.fr.WriteData(2*i+1, false, message(maxMessage / 2)[:16000])
	}
	if a := c.answer(5); a.fields["grpc-status"] != "8" {
		t.Errorf("%+v", a)
	}
}

// A call that is over, whose answer the client does not take, takes no more data: it is counted, dropped, and given back
// to the connection's window alone.
func TestFinishedCallsTakeNothing(t *testing.T) {
	s := startServer(t, func(s *server) {
		s.Handle("/test/Over", func(st *Stream) Call { return over{echo{st: st}} })
	})
	c := s.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	updates := make(chan uint32, 1000)
	go func() {
		for {
			f, err := c.fr.ReadFrame()
			if err != nil {
				close(updates)
				return
			}
			if w, ok := f.(*http2.WindowUpdateFrame); ok {
				updates <- w.StreamID
			}
		}
	}()
	for i := range uint32(20) {
		c.open(2*i+1, "/test/Over")
		c.fr.WriteData(2*i+1, false, message(10))
		for range 9 {
			c.fr.WriteData(2*i+1, false, make([]byte, maxFrame))
		}
	}
	eventually(t, "the windows are not given back", func() bool { return len(updates) >= 10 })
	if _, held := s.account.counts(); held > 20*100 || s.account.peak() > 200<<10 {
		t.Errorf("%d bytes are held, %d were", held, s.account.peak())
	}
	c.Close()
	for id := range updates {
		if id != 0 {
			t.Errorf("the window of stream %d is given back", id)
		}
	}
}

// An over ends after the first request.
type over struct{ echo }

func (o over) Message(b []byte) {
	o.echo.Message(b)
	o.st.Finish(nil)
}

// Answers that no window has room for wait, within bounds, and for a while only.
func TestAnswersThatWait(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	c.open(1, echoPath)
	c.fr.WriteData(1, true, message(100))
	if a := c.answer(1); a.fields["grpc-status"] != "0" || len(a.data) != 10 {
		t.Errorf("%+v", a)
	}
	want := message(100 << 10)
	c.open(3, echoPath)
	for b := want; len(b) > 0; b = b[min(len(b), maxFrame):] {
		c.fr.WriteData(3, len(b) <= maxFrame, b[:min(len(b), maxFrame)])
	}
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 50 << 10})
	c.fr.WriteWindowUpdate(3, 60<<10)
	c.fr.WriteWindowUpdate(0, 60<<10)
	if a := c.answer(3); a.fields["grpc-status"] != "0" || !bytes.Equal(a.data, want) {
		t.Errorf("%v, %d bytes", a.fields, len(a.data))
	}
}

// A talker answers each request later, and says more when its answers are gone, up to so many bytes.
type talker struct {
	echo
	more int
}

func (k *talker) Message(b []byte) {
	b = bytes.Clone(b)
	k.st.Go(func() { k.st.Do(func() { k.echo.Message(b) }) })
}

func (k *talker) Sent() {
	if k.more--; k.more >= 0 && !k.st.Waits() {
		k.st.Send(wrapperspb.Bytes(bytes.Repeat([]byte("y"), 1000)))
	}
}

// Requests that came while one was worked on are taken when it was answered, the end as well.
func TestRequestsBehindASlowOne(t *testing.T) {
	s := startServer(t, func(s *server) {
		s.Handle("/test/Talk", func(st *Stream) Call { return &talker{echo: echo{st: st}} })
	})
	c := s.dial(t)
	c.open(1, "/test/Talk")
	c.fr.WriteData(1, false, slices.Concat(message(10), message(20)))
	c.fr.WriteData(1, true, message(30))
	want := slices.Concat(message(10), message(20), message(30))
	if a := c.answer(1); a.fields["grpc-status"] != "0" || !bytes.Equal(a.data, want) {
		t.Errorf("%+v", a)
	}
}

// A call is told when its answers are gone, so that what it has to say need not wait in memory.
func TestSent(t *testing.T) {
	s := startServer(t, func(s *server) {
		s.Handle("/test/Talk", func(st *Stream) Call { return &talker{echo{st: st}, 1} })
	})
	c := s.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	c.open(1, "/test/Talk")
	c.fr.WriteData(1, false, message(100))
	var data []byte
	for want := len(message(100)) + len(message(1000)); len(data) < want; {
		f, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*http2.DataFrame); ok {
			if len(data) == 0 {
				c.fr.WriteWindowUpdate(1, 60<<10)
			}
			data = append(data, f.Data()...)
		}
	}
	if !bytes.HasPrefix(data, message(100)) || !bytes.HasSuffix(data, []byte("yyyy")) {
		t.Errorf("%d bytes: %q", len(data), data)
	}
}

// A stream whose step waits holds up no other of its connection.
func TestSlowCallHoldsNoOther(t *testing.T) {
	c := startServer(t, nil).dial(t)
	c.open(1, mutePath)
	c.fr.WriteData(1, false, message(10))
	c.open(3, echoPath)
	c.fr.WriteData(3, true, message(10))
	if a := c.answer(3); a.fields["grpc-status"] != "0" {
		t.Errorf("%+v", a)
	}
}

func TestWindowOverflow(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.open(1, mutePath)
	c.fr.WriteWindowUpdate(1, 1<<31-1)
	if a := c.answer(1); a.reset != http2.ErrCodeFlowControl {
		t.Errorf("%+v", a)
	}
	c.fr.WriteWindowUpdate(0, 1<<31-1)
	c.wantGoAway(http2.ErrCodeFlowControl, "too large")
	c = s.dial(t)
	c.open(1, mutePath)
	c.fr.WriteWindowUpdate(1, 1<<30)
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	c.wantGoAway(http2.ErrCodeFlowControl, "too large")
}

// Headers are bounded in bytes and in frames.
func TestHeaderBounds(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(echoPath)})
	for range maxContinuations + 1 {
		c.fr.WriteContinuation(1, false, nil)
	}
	c.wantGoAway(http2.ErrCodeEnhanceYourCalm, "too many frames")
	c = s.dial(t)
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(echoPath)})
	for range 3 {
		c.fr.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, 16000))
	}
	c.wantGoAway(http2.ErrCodeEnhanceYourCalm, "too many bytes")
	c = s.dial(t)
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true})
	c.wantGoAway(http2.ErrCodeCompression, "decoded")
	c = s.dial(t)
	c.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, []byte{200, 0x82})
	c.fr.WriteContinuation(1, true, nil)
	c.wantGoAway(http2.ErrCodeProtocol, "cannot be read")
}

// Each frame of a flood is charged, by what it costs.
func TestFloodsAreCharged(t *testing.T) {
	const n = 500
	for name, flood := range map[string]struct {
		each  int
		frame func(c *client, i int)
	}{
		"PING":     {1, func(c *client, i int) { c.fr.WritePing(true, [8]byte{}) }},
		"SETTINGS": {1, func(c *client, i int) { c.fr.WriteSettingsAck() }},
		"SETTINGS for 100 streams": {25, func(c *client, i int) {
			for id := uint32(3); i == 0 && id < 203; id += 2 {
				c.open(id, mutePath)
			}
			c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
		}},
		"WINDOW_UPDATE": {1, func(c *client, i int) { c.fr.WriteWindowUpdate(1, 1) }},
		"PRIORITY":      {1, func(c *client, i int) { c.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }},
		"empty DATA":    {1, func(c *client, i int) { c.fr.WriteData(1, false, nil) }},
		"DATA":          {10, func(c *client, i int) { c.fr.WriteData(1, false, []byte{0}) }},
		"unknown":       {5, func(c *client, i int) { c.fr.WriteRawFrame(99, 0, 1, make([]byte, 1024)) }},
		"rapid reset": {12, func(c *client, i int) {
			c.open(uint32(2*i+3), mutePath)
			c.fr.WriteRSTStream(uint32(2*i+3), http2.ErrCodeCancel)
		}},
	} {
		s := startServer(t, nil)
		c := s.dial(t)
		go io.Copy(io.Discard, c)
		c.open(1, mutePath)
		for i := range n {
			flood.frame(c, i)
		}
		eventually(t, name+" is not charged", func() bool { return s.tape.total() >= n*flood.each })
		c.Close()
		if err := <-s.ended; err != nil && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "pipe") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Rule 41: each frame is charged for before it is worked on, however its bytes are cut.
func TestRule41Frames(t *testing.T) {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	for range 100 {
		f.WritePing(true, [8]byte{})
		f.WriteData(1, false, nil)
	}
	f.WriteData(1, false, make([]byte, 1000))
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: make([]byte, 6400), EndHeaders: true})
	want := 100*(1+1) + 1 + 3 + 10 + 125 + 1 + 25 + 10 + 200
	for _, piece := range []int{1, 7, 1000, 1 << 20} {
		s := startServer(t, nil)
		c := s.dial(t)
		c.open(1, mutePath)
		c.fr.WritePing(false, [8]byte{1})
		for acked := false; !acked; {
			f, err := c.fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			p, ok := f.(*http2.PingFrame)
			acked = ok && p.IsAck()
		}
		before := s.tape.total()
		for all := b.Bytes(); len(all) > 0; {
			n := min(piece, len(all))
			c.Write(all[:n])
			all = all[n:]
		}
		eventually(t, "the last frame is not charged", func() bool { return s.tape.total()-before >= want })
		c.Close()
		<-s.ended
		if got := s.tape.total() - before; got != want {
			t.Errorf("in pieces of %d: %d units, want %d", piece, got, want)
		}
	}
}

// A brake is a Meter that lets so many units pass.
type brake struct {
	mu   sync.Mutex
	left int
	err  error
}

func (b *brake) TryCharge(units int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left -= units
	return b.left >= 0
}

func (b *brake) Charge(ctx context.Context, _ int) error {
	if b.err != nil {
		return b.err
	}
	<-ctx.Done()
	return ctx.Err()
}

// While the meter waits, nothing is read, so that the sender waits, too; a meter's error ends the connection.
func TestMeterPushesBack(t *testing.T) {
	s := startServer(t, func(s *server) { s.meter = &brake{left: 1000} })
	c := s.dial(t)
	c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	var err error
	for range 1 << 20 {
		if err = c.fr.WritePing(true, [8]byte{}); err != nil {
			break
		}
	}
	if !isTimeout(err) {
		t.Errorf("a sender over its budget goes on: %v", err)
	}
	s = startServer(t, func(s *server) { s.meter = &brake{left: 100} })
	c = s.dial(t)
	var pings bytes.Buffer
	for f := http2.NewFramer(&pings, nil); pings.Len() < 4000; {
		f.WritePing(false, [8]byte{1})
	}
	c.Write(pings.Bytes()) // at once, so that they are read in one piece
	acked := false         // what was answered before does not wait
	for !acked {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		p, ok := f.(*http2.PingFrame)
		acked = ok && p.IsAck()
	}
	s = startServer(t, func(s *server) { s.meter = &brake{left: 1, err: errors.New("enough")} })
	c = s.dial(t)
	c.fr.WritePing(false, [8]byte{})
	c.wantEnd()
	if err := <-s.ended; err == nil || err.Error() != "enough" {
		t.Errorf("%v", err)
	}
}

// A peer that does not read is not read either, and loses its connection after a while.
func TestPeerThatDoesNotRead(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.open(1, mutePath)
	var err error
	for i := 0; i < 1<<22 && err == nil; i++ {
		err = c.fr.WritePing(false, [8]byte{})
	}
	if err == nil || isTimeout(err) {
		t.Errorf("the connection goes on: %v", err)
	}
	eventually(t, "the stream is left", func() bool { n, _ := s.account.counts(); return n == 0 })
}

// What is no HTTP/2 is closed at once, silence after a while; where HTTP/2 is spoken badly, the peer is told.
func TestPreface(t *testing.T) {
	s := startServer(t, nil)
	for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\nXX", "", "PRI * H"} {
		c := s.dialRaw(t)
		start := time.Now()
		io.WriteString(c, hello)
		b, err := io.ReadAll(c)
		if len(b) > 0 || isTimeout(err) {
			t.Errorf("%q: %q, %v", hello, b, err)
		}
		if waited := time.Since(start) > prefaceTimeout/2; waited != strings.HasPrefix("PRI * H", hello) {
			t.Errorf("%q: waited %v", hello, waited)
		}
		<-s.ended
	}
	for text, bad := range map[string]func(*client){
		"first frame": func(c *client) { c.fr.WritePing(false, [8]byte{}) },
		"even number": func(c *client) { c.fr.WriteSettings(); c.open(2, echoPath) },
		"not opened":  func(c *client) { c.fr.WriteSettings(); c.fr.WriteData(1, true, nil) },
		"PUSH_PROMISE": func(c *client) {
			c.fr.WriteSettings()
			c.fr.WriteRawFrame(http2.FramePushPromise, 4, 1, make([]byte, 8))
		},
		"frame too large":      func(c *client) { c.fr.WriteSettings(); c.fr.WriteRawFrame(99, 0, 0, make([]byte, maxFrame+1)) },
		"unexpected CONTINUAT": func(c *client) { c.fr.WriteSettings(); c.fr.WriteContinuation(1, true, nil) },
	} {
		c := &client{Conn: s.dialRaw(t), t: t}
		c.fr = http2.NewFramer(c, c)
		c.fr.AllowIllegalWrites = true
		d := s.dial(t)
		c.enc, c.hdr = d.enc, d.hdr
		c.enc = d.enc
		io.WriteString(c, http2.ClientPreface)
		if strings.HasPrefix(text, "even") {
			c = d
			c.fr.AllowIllegalWrites = true
		}
		bad(c)
		code := http2.ErrCodeProtocol
		if strings.HasPrefix(text, "frame") {
			code = http2.ErrCodeFrameSize
		}
		c.wantGoAway(code, text)
	}
	c := &client{Conn: s.dialRaw(t), t: t} // no SETTINGS
	c.fr = http2.NewFramer(c, c)
	io.WriteString(c, http2.ClientPreface)
	c.wantEnd()
}

// A frame of which the rest does not come keeps its buffers no longer than a while.
func TestHalfFrame(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.fr.ReadFrame()
	c.Write([]byte{0, 0, 8, 6})
	c.wantEnd()
	if err := <-s.ended; !isTimeout(err) {
		t.Errorf("%v", err)
	}
}

// An idle connection has no buffers.
func TestIdleHoldsNoBuffer(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	c.open(1, echoPath)
	c.fr.WriteData(1, true, message(10))
	c.answer(1)
	time.Sleep(200 * time.Millisecond) // until the connection waits
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		if c.out != nil || c.blocked != nil || len(c.streams) > 0 || c.bench != nil {
			t.Error("an idle connection keeps buffers")
		}
		c.mu.Unlock()
	}
}

// At a drain new calls are told, those under way finish, and then the connection ends; a watch ends soon.
func TestDrain(t *testing.T) {
	s := startServer(t, nil)
	c := s.dial(t)
	idle := s.dial(t)
	c.open(1, echoPath)
	c.open(3, watchPath)
	c.fr.WriteData(3, true, make([]byte, 5))
	eventually(t, "no streams", func() bool { n, _ := s.account.counts(); return n == 2 })
	s.Drain()
	for {
		f, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeNo || g.LastStreamID != 1<<31-1 {
				t.Errorf("GOAWAY %+v", g)
			}
			break
		}
	}
	if a := c.answer(3); a.fields["grpc-status"] != "14" {
		t.Errorf("the watch: %+v", a)
	}
	idle.wantEnd()
	for last := uint32(0); last == 0; { // until the last call, which the connection of each has for itself
		f, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if last = g.LastStreamID; last != 3 {
				t.Errorf("GOAWAY %+v", g)
			}
		}
	}
	c.open(5, mutePath)
	if a := c.answer(5); a.reset != http2.ErrCodeRefusedStream {
		t.Errorf("a stream after the last: %+v", a)
	}
	c.fr.WriteData(1, true, message(10))
	if a := c.answer(1); a.fields["grpc-status"] != "0" {
		t.Errorf("the call under way: %+v", a)
	}
	c.wantEnd()
	late := s.dial(t)
	late.wantEnd()
}

// A client that opens calls, has steps made and resets them at once has no more of them than streams.
func TestResetCallsCountWhileTheyWork(t *testing.T) {
	work := make(chan struct{})
	s := startServer(t, func(s *server) {
		s.Handle("/test/Work", func(st *Stream) Call {
			st.Go(func() { <-work })
			return echo{st: st, mute: true}
		})
	})
	c := s.dial(t)
	for i := range uint32(maxStreams) {
		c.open(2*i+1, "/test/Work")
		c.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
	}
	c.open(601, echoPath)
	if a := c.answer(601); a.reset != http2.ErrCodeRefusedStream {
		t.Errorf("%+v", a)
	}
	close(work)
	eventually(t, "the calls still count", func() bool { n, _ := s.account.counts(); return n == 0 })
	c.open(603, echoPath)
	c.fr.WriteData(603, true, nil)
	if a := c.answer(603); a.fields["grpc-status"] != "0" {
		t.Errorf("%+v", a)
	}
}

// An old connection is asked to end; streams have a while to do so.
func TestAge(t *testing.T) {
	s := startServer(t, func(s *server) { s.Age, s.Grace = 100*time.Millisecond, 1500*time.Millisecond })
	c := s.dial(t)
	c.open(1, mutePath)
	start := time.Now()
	c.wantEnd()
	if d := time.Since(start); d < 1500*time.Millisecond || d > 10*time.Second {
		t.Errorf("ended after %v", d)
	}
}

// A teller says something of each request before it answers, later, and counts those that it has at a time.
type teller struct {
	echo
	now, most int
}

func (k *teller) Message(b []byte) {
	b = bytes.Clone(b)
	k.now++
	k.most = max(k.most, k.now)
	k.st.Tell(wrapperspb.Bytes([]byte("told")))
	k.st.Go(func() {
		time.Sleep(time.Millisecond)
		k.st.Do(func() { k.now--; k.echo.Message(b) })
	})
}

// What is told beside the answers lets no other request in.
func TestTell(t *testing.T) {
	k := new(teller)
	s := startServer(t, func(s *server) {
		s.Handle("/test/Tell", func(st *Stream) Call { k.st = st; return k })
	})
	c := s.dial(t)
	c.open(1, "/test/Tell")
	c.fr.WriteData(1, true, bytes.Repeat(message(10), 20))
	a := c.answer(1)
	if n := bytes.Count(a.data, []byte("told")); a.fields["grpc-status"] != "0" || n != 20 {
		t.Errorf("told %d times, %v", n, a.fields)
	}
	if k.most != 1 {
		t.Errorf("%d requests at a time", k.most)
	}
}
