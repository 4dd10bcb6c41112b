package altscreds

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// chunked returns one end of a connection that speaks chunks over a wire.
func chunked(t testing.TB, w wire, client bool) *record {
	t.Helper()
	r, err := newRecord(w, client, testKey, advertisedFrame, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.speakChunks(advertisedFrame)
	return r
}

// records returns the frames of a client that has these payloads.
func records(t testing.TB, payloads ...[]byte) []byte {
	t.Helper()
	var s cipherState
	s.init(testKey, false)
	var all []byte
	for _, p := range payloads {
		frame := make([]byte, overhead+len(p))
		if _, err := sealFrame(&s, frame, p); err != nil {
			t.Fatal(err)
		}
		all = append(all, frame...)
	}
	return all
}

func chunk(data string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

var end = make([]byte, chunkHeader)

// ways are those by which a program reads.
var ways = map[string]func(r *record) ([]byte, error){
	"Read":        func(r *record) ([]byte, error) { return io.ReadAll(struct{ io.Reader }{r}) },
	"Read a byte": func(r *record) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(r)) },
	"WriteTo": func(r *record) ([]byte, error) {
		var b bytes.Buffer
		n, err := r.writeTo(&b)
		if n != int64(b.Len()) {
			return b.Bytes(), errors.New("the count is wrong")
		}
		return b.Bytes(), err
	},
	"a byte, then WriteTo": func(r *record) ([]byte, error) {
		b := make([]byte, 1)
		if n, err := r.Read(b); err != nil {
			if err == io.EOF {
				err = nil
			}
			return b[:n], err
		}
		var rest bytes.Buffer
		_, err := r.writeTo(&rest)
		return append(b, rest.Bytes()...), err
	},
}

// outcomeOf names how reading ended.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "end"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	}
	return "refused"
}

var update = flag.Bool("update", false, "write testdata/altsd-tcp.json")

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// chunkVectors are those of docs/spec/vectors.md.
type chunkVectors struct {
	Protocol string   `json:"protocol"`
	KeyData  hexBytes `json:"key_data"`
	Sent     struct {
		Writes []hexBytes `json:"writes"`
		Bytes  hexBytes   `json:"bytes"`
		Frames hexBytes   `json:"frames"`
	} `json:"sent"`
	Received []receivedVector `json:"received"`
}

type receivedVector struct {
	Name     string     `json:"name"`
	Payloads []hexBytes `json:"payloads"`
	Data     hexBytes   `json:"data"`
	Outcome  string     `json:"outcome"`
}

// newChunkVectors makes them from what the norm says, without the package.
func newChunkVectors() *chunkVectors {
	v := &chunkVectors{Protocol: "altsd-tcp/1", KeyData: testKey}
	v.Sent.Writes = []hexBytes{[]byte("hello"), []byte(", world")}
	v.Sent.Bytes = slices.Concat(chunk("hello"), chunk(", world"), end)
	for i, p := range [][]byte{chunk("hello"), chunk(", world"), end} {
		v.Sent.Frames = append(v.Sent.Frames, refFrame(testKey, uint64(i), p)...)
	}
	huge := []byte{0, 0x10, 0, 1}
	for _, c := range []struct {
		name     string
		payloads [][]byte
	}{
		{"nothing but an end", [][]byte{end}},
		{"a chunk a record", [][]byte{chunk("one"), chunk("two"), end}},
		{"all in one record", [][]byte{slices.Concat(chunk("one"), chunk("two"), end)}},
		{"a chunk over three records", [][]byte{{0, 0, 0, 9, 'a'}, []byte("bcdefg"), []byte("hi"), end}},
		{"a record with the end of a chunk and the beginning of the next", [][]byte{{0, 0, 0, 3, 'a', 'b'}, {'c', 0, 0, 0, 2, 'd'}, {'e', 0, 0, 0, 0}}},
		{"a header over two records", [][]byte{{0, 0}, {0, 2, 'o', 'k'}, {0}, {0, 0, 0}}},
		{"a header a byte at a time", [][]byte{{0}, {0}, {0}, {1}, {'x'}, {0}, {0}, {0}, {0}}},
		{"records without payload before the end", [][]byte{{}, chunk("one"), {}, {}, end}},
		{"no end", [][]byte{chunk("one")}},
		{"no end after nothing", nil},
		{"cut within a header", [][]byte{chunk("one"), {0, 0, 0}}},
		{"cut within a chunk", [][]byte{chunk("one"), {0, 0, 0, 3, 't', 'w'}}},
		{"a second end", [][]byte{chunk("one"), end, end}},
		{"a second end in one record", [][]byte{slices.Concat(chunk("one"), end, end)}},
		{"a chunk after the end", [][]byte{chunk("one"), end, chunk("two")}},
		{"a chunk after the end in one record", [][]byte{slices.Concat(chunk("one"), end, chunk("two"))}},
		{"a byte after the end", [][]byte{slices.Concat(chunk("one"), end, []byte{0})}},
		{"a record without payload after the end", [][]byte{chunk("one"), end, {}}},
		{"a chunk that is too long", [][]byte{chunk("one"), slices.Concat(huge, []byte("data"))}},
		{"the longest length there is", [][]byte{{0xff, 0xff, 0xff, 0xff}}},
		{"a length in the other byte order", [][]byte{{3, 0, 0, 0, 'o', 'n', 'e'}}},
	} {
		r := receivedVector{Name: c.name}
		for _, p := range c.payloads {
			r.Payloads = append(r.Payloads, p)
		}
		r.Data, r.Outcome = refDecode(c.payloads)
		v.Received = append(v.Received, r)
	}
	return v
}

// refDecode is section 9.2 of docs/spec/protocol.md by itself: what is delivered of the payloads, and how that ends.
func refDecode(payloads [][]byte) (data []byte, outcome string) {
	var all []byte
	endAt := -1 // the payload that completes the end
	for i, p := range payloads {
		if endAt >= 0 {
			return data, "refused"
		}
		for _, b := range p {
			if endAt >= 0 {
				return data, "refused"
			}
			all = append(all, b)
			// The whole is read anew from its beginning at each byte, which is slow and has no state.
			rest, at := all, []byte(nil)
			for {
				if len(rest) < 4 {
					break
				}
				n := uint64(rest[0])<<24 | uint64(rest[1])<<16 | uint64(rest[2])<<8 | uint64(rest[3])
				if n > 1048576 {
					return data, "refused"
				}
				rest = rest[4:]
				if n == 0 {
					endAt = i
					break
				}
				take := min(n, uint64(len(rest)))
				at = append(at, rest[:take]...)
				rest = rest[take:]
			}
			data = at
		}
	}
	if endAt < 0 {
		return data, "cut"
	}
	return data, "end"
}

// refFrame is the frame of section 7.3 by itself, from the initiator.
func refFrame(keyData []byte, n uint64, payload []byte) []byte {
	counter := binary.LittleEndian.AppendUint64(nil, n)
	counter = append(counter, 0, 0, 0, 0)
	mac := hmac.New(sha256.New, keyData[:32])
	mac.Write(append(bytes.Clone(counter[2:8]), 1))
	block, _ := aes.NewCipher(mac.Sum(nil)[:16])
	aead, _ := cipher.NewGCM(block)
	nonce := make([]byte, 12)
	for i := range nonce {
		nonce[i] = counter[i] ^ keyData[32+i]
	}
	sealed := aead.Seal(nil, nonce, payload, nil)
	frame := binary.LittleEndian.AppendUint32(nil, uint32(4+len(sealed)))
	return append(append(frame, 6, 0, 0, 0), sealed...)
}

// TestRule53Vectors: the file is what the norm says, and the package reads and writes as the file has it.
func TestRule53Vectors(t *testing.T) {
	const file = "testdata/altsd-tcp.json"
	want, err := json.MarshalIndent(newChunkVectors(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is made anew: -update, or find out why", file)
	}
	var v chunkVectors
	if err := json.Unmarshal(got, &v); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := chunked(t, wire{Writer: &out}, true)
	for _, b := range v.Sent.Writes {
		if n, err := w.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.closeWrite(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), v.Sent.Frames) {
		t.Errorf("sent %x", out.Bytes())
	}
	outcomes := map[string]int{}
	for _, c := range v.Received {
		outcomes[c.Outcome]++
		var payloads [][]byte
		for _, p := range c.Payloads {
			payloads = append(payloads, p)
		}
		for name, read := range ways {
			data, err := read(chunked(t, wire{Reader: bytes.NewReader(records(t, payloads...))}, false))
			if !bytes.Equal(data, c.Data) || outcomeOf(err) != c.Outcome {
				t.Errorf("%s, by %s: %q, %v; want %q, %s", c.Name, name, data, err, c.Data, c.Outcome)
			}
		}
	}
	if outcomes["end"] == 0 || outcomes["cut"] == 0 || outcomes["refused"] == 0 {
		t.Errorf("%v", outcomes)
	}
}

// TestRule53Cut: a stream that is cut anywhere, between records and within one, has no end, and nothing but what was sent.
func TestRule53Cut(t *testing.T) {
	whole := records(t, chunk("first"), slices.Concat(chunk("second"), chunk("third")), end)
	const all = "firstsecondthird"
	for n := range len(whole) + 1 {
		for name, read := range ways {
			data, err := read(chunked(t, wire{Reader: bytes.NewReader(whole[:n])}, false))
			if !strings.HasPrefix(all, string(data)) || n < len(whole) != (outcomeOf(err) == "cut") || n == len(whole) && err != nil {
				t.Errorf("cut after %d bytes of %d, by %s: %q, %v", n, len(whole), name, data, err)
			}
		}
	}
	frames := [][]byte{records(t, chunk("first")), nil, nil}
	frames[1] = records(t, chunk("first"), chunk("second"))[len(frames[0]):]
	frames[2] = records(t, chunk("first"), chunk("second"), end)[len(frames[0])+len(frames[1]):]
	for _, o := range []struct {
		name   string
		frames [][]byte
	}{
		{"the last record dropped", frames[:2]},
		{"an old record for the last", [][]byte{frames[0], frames[1], frames[0]}},
		{"the end before its time", [][]byte{frames[0], frames[2]}},
		{"the end of another connection's", [][]byte{frames[0], frames[1], records(t, end)}},
		{"an old record after the end", [][]byte{frames[0], frames[1], frames[2], frames[1]}},
	} {
		for name, read := range ways {
			data, err := read(chunked(t, wire{Reader: bytes.NewReader(slices.Concat(o.frames...))}, false))
			if err == nil || !strings.HasPrefix("firstsecond", string(data)) {
				t.Errorf("%s, by %s: %q, %v", o.name, name, data, err)
			}
		}
	}
}

// TestRule53FrameBounds: no frame is larger than the peer asked for, and none is taken that is larger than we did, before
// any memory is spent on it.
func TestRule53FrameBounds(t *testing.T) {
	for peerMax, want := range map[uint32]int{0: defaultFrame, 5000: 5000, 16384: 16384, advertisedFrame: advertisedFrame, 1 << 20: advertisedFrame} {
		var out bytes.Buffer
		r, _ := newRecord(wire{Writer: &out}, true, testKey, peerMax, nil)
		r.speakChunks(peerMax)
		message := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16+1)
		if n, err := r.Write(message); n != len(message) || err != nil {
			t.Fatal(n, err)
		}
		if err := r.closeWrite(); err != nil {
			t.Fatal(err)
		}
		sent := bytes.Clone(out.Bytes())
		if first := lengthSize + int(binary.LittleEndian.Uint32(sent)); first != want {
			t.Errorf("towards %d the first frame has %d bytes, not %d", peerMax, first, want)
		}
		for name, read := range ways {
			if name == "Read a byte" && peerMax != advertisedFrame {
				continue
			}
			if got, err := read(chunked(t, wire{Reader: bytes.NewReader(sent)}, false)); err != nil || !bytes.Equal(got, message) {
				t.Errorf("towards %d, by %s: %d bytes, %v", peerMax, name, len(got), err)
			}
		}
	}
	header := binary.LittleEndian.AppendUint32(nil, advertisedFrame+1)
	r := chunked(t, wire{Reader: io.MultiReader(bytes.NewReader(header), blocked{})}, false)
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, iotest.ErrTimeout) || !strings.Contains(err.Error(), "65537") {
		t.Errorf("a frame that is too large: %v", err)
	}
}

// TestRule53WriteAfterEnd: the end is said once, and nothing after it; a connection that failed has none.
func TestRule53WriteAfterEnd(t *testing.T) {
	var out bytes.Buffer
	r := chunked(t, wire{Writer: &out}, true)
	r.Write([]byte("x"))
	for range 2 {
		if err := r.closeWrite(); err != nil {
			t.Error(err)
		}
	}
	sent := out.Len()
	if n, err := r.Write([]byte("y")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %d, %v", n, err)
	}
	s := source{r: strings.NewReader("z")}
	if n, err := r.readFrom(&s); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom after CloseWrite: %d, %v", n, err)
	}
	if out.Len() != sent {
		t.Error("something was sent after the end")
	}
	r = chunked(t, wire{Writer: &failing{10}}, true)
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("no error")
	}
	if err := r.closeWrite(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("the end of what failed: %v", err)
	}
}

// TestChunkWrites: what several write at once comes whole, each, and before the end.
func TestChunkWrites(t *testing.T) {
	const writers, size = 8, 300_000
	a, b := net.Pipe()
	w, r := chunked(t, wire{Writer: a}, true), chunked(t, wire{Reader: b}, false)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if n, err := w.Write(bytes.Repeat([]byte{byte(i)}, size)); n != size || err != nil {
				t.Error(n, err)
			}
		})
	}
	go func() {
		wg.Wait()
		w.closeWrite()
	}()
	var got bytes.Buffer
	if n, err := r.writeTo(&got); n != writers*size || err != nil {
		t.Fatal(n, err)
	}
	for part := range slices.Chunk(got.Bytes(), size) {
		if !bytes.Equal(part, bytes.Repeat(part[:1], size)) {
			t.Error("two writes are mixed")
		}
	}
}

// TestSpliceIdle: neither way holds a buffer while it waits, before the first byte and after the last, and Close ends both;
// so it does a CloseWrite and a Write to a peer who does not read.
func TestSpliceIdle(t *testing.T) {
	var mu sync.Mutex
	held := 0
	defer CountBuffers(func(delta int) { mu.Lock(); held += delta; mu.Unlock() })()
	none := func() bool { mu.Lock(); defer mu.Unlock(); return held == 0 }
	for _, network := range []string{"tcp", "unix"} {
		program, local := socketPair(t, network)
		raw1, raw2 := socketPair(t, "tcp")
		near, far := chunkConn(t, raw1, true), chunkConn(t, raw2, false)
		done := make(chan error, 2)
		go func() { _, err := near.ReadFrom(local); done <- err }()
		go func() { _, err := near.WriteTo(local); done <- err }()
		b := make([]byte, 5)
		for range 3 {
			settled(t, none)
			program.Write([]byte("hello"))
			if _, err := io.ReadFull(far, b); err != nil || string(b) != "hello" {
				t.Fatal(string(b), err)
			}
			far.Write([]byte("world"))
			if _, err := io.ReadFull(program, b); err != nil || string(b) != "world" {
				t.Fatal(string(b), err)
			}
		}
		settled(t, none)
		near.Close()
		local.Close()
		for range 2 {
			if err := <-done; err == nil {
				t.Error("no error")
			}
		}
		settled(t, none)
	}

	raw1, raw2 := socketPair(t, "tcp")
	near := chunkConn(t, raw1, true)
	defer raw2.Close()
	wrote, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		for {
			if _, err := near.Write(make([]byte, 1<<20)); err != nil {
				wrote <- err
				return
			}
		}
	}()
	go func() { ended <- near.CloseWrite() }()
	near.Close()
	<-wrote
	<-ended
	settled(t, none)
}

// socketPair returns both ends of a connection.
func socketPair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// chunkConn is a Conn after its handshake.
func chunkConn(t *testing.T, raw net.Conn, client bool) *Conn {
	t.Helper()
	c := &Conn{raw: raw}
	c.rec, _ = newRecord(raw, client, testKey, advertisedFrame, nil)
	c.rec.speakChunks(advertisedFrame)
	c.done.Store(true)
	return c
}

func settled(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become true")
		}
	}
}

// FuzzChunks has payloads of arbitrary bytes and lengths read in each way, which gives what the norm by itself gives.
func FuzzChunks(f *testing.F) {
	f.Add(slices.Concat(chunk("one"), chunk("two"), end), uint8(3))
	f.Add(slices.Concat(chunk("one"), end, end), uint8(100))
	f.Add([]byte{0, 0x10, 0, 1, 'x'}, uint8(1))
	f.Add(append([]byte{0, 0x10, 0, 0}, make([]byte, 100)...), uint8(33))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		if len(in) > 1000 {
			return
		}
		payloads := slices.Collect(slices.Chunk(in, int(size)+1))
		data, outcome := refDecode(payloads)
		for name, read := range ways {
			got, err := read(chunked(t, wire{Reader: bytes.NewReader(records(t, payloads...))}, false))
			if !bytes.Equal(got, data) || outcomeOf(err) != outcome {
				t.Errorf("by %s: %q, %v; want %q, %s", name, got, err, data, outcome)
			}
		}
	})
}

// TestRule53Names: what makes a net.Conn demands a name, those of altsd-tcp/1 are well formed, and gRPC's credentials take none.
func TestRule53Names(t *testing.T) {
	for service, good := range map[string]bool{"5432": true, "a": true, "x.y_z-0": true, strings.Repeat("s", maxService): true,
		"": false, strings.Repeat("s", maxService+1): false, "A": false, "a b": false, "a:b": false, "ü": false, "a/b": false} {
		name, err := ServiceProtocol(service)
		if (err == nil) != good || good && (name != "altsd-tcp/1:"+service || len(name) > 64 || !IsServiceProtocol(name)) {
			t.Errorf("%q: %q, %v", service, name, err)
		}
		if _, err := Listen("tcp", "127.0.0.1:none", ServerOptions{ApplicationProtocols: []string{servicePrefix + service}}); !good &&
			!strings.Contains(err.Error(), "is not 1 to 52 bytes") {
			t.Errorf("%q: %v", service, err)
		}
	}
	const cure = "ServiceProtocol"
	for _, protocols := range [][]string{nil, {}, {"altsd-tcp/2:x"}, {"http/1.1", "altsd-tcp/1"}} {
		so, co := ServerOptions{ApplicationProtocols: protocols}, ClientOptions{ApplicationProtocols: protocols, ServerName: "x"}
		_, listenErr := Listen("tcp", "127.0.0.1:0", so)
		_, listenerErr := NewListener(nil, so)
		_, dialErr := Dial("tcp", "127.0.0.1:1", co)
		_, dialerErr := (&Dialer{Options: co}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
		for i, err := range []error{listenErr, listenerErr, dialErr, dialerErr, Client(nil, co).Handshake(), Server(nil, so).Handshake()} {
			if err == nil || !strings.Contains(err.Error(), cure) {
				t.Errorf("%q, %d: %v", protocols, i, err)
			}
		}
	}
	for _, protocols := range [][]string{{"altsd-tcp/1:x"}, {"grpc", "altsd-tcp/1:x"}} {
		_, clientErr := NewClientCredentials(ClientOptions{ApplicationProtocols: protocols})
		_, serverErr := NewServerCredentials(ServerOptions{ApplicationProtocols: protocols})
		for _, err := range []error{clientErr, serverErr} {
			if err == nil || !strings.Contains(err.Error(), "leave it out") {
				t.Errorf("%q: %v", protocols, err)
			}
		}
	}
	if _, err := NewServerCredentials(ServerOptions{}); err != nil {
		t.Errorf("gRPC without a name: %v", err)
	}
}
