package localgrpc

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pair returns two ends of a UNIX socket.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// FuzzConn is a whole connection's bytes after the preface: whatever comes, the server ends with it, holds no more than it
// may, keeps nothing, and answers in frames of HTTP/2.
func FuzzConn(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	fr.AllowIllegalWrites = true
	begin := func(path string) {
		seed.Reset()
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		var hdr bytes.Buffer
		enc := hpack.NewEncoder(&hdr)
		for _, kv := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-timeout", "1S"}} {
			enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
		}
		b := hdr.Bytes()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:9]})
		fr.WriteContinuation(1, true, b[9:])
	}
	for _, path := range []string{echoPath, mutePath, checkPath, watchPath, "/none"} {
		begin(path)
		fr.WriteData(1, false, message(300))
		fr.WriteDataPadded(1, true, message(3), make([]byte, 5))
		fr.WriteWindowUpdate(1, 1000)
		fr.WritePing(false, [8]byte{1})
		fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		fr.WriteRSTStream(1, http2.ErrCodeCancel)
		fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		f.Add(bytes.Clone(seed.Bytes()))
	}
	begin(echoPath)
	fr.WriteData(1, false, []byte{1, 2, 3, 4, 5, 6})
	fr.WriteWindowUpdate(0, 1<<31-1)
	f.Add(bytes.Clone(seed.Bytes()))
	f.Fuzz(func(t *testing.T, b []byte) { serveBytes(t, b) })
}

func serveBytes(t *testing.T, b []byte) {
	server, client := pair(t)
	defer client.Close()
	s := New()
	s.Age, s.Grace, s.Linger = time.Hour, time.Minute, time.Minute
	s.Handle(echoPath, func(st *Stream) Call { return echo{st: st} })
	s.Handle(mutePath, func(st *Stream) Call { return echo{st: st, mute: true} })
	account := &counter{maxStreams: 1000, maxHeld: 8 << 20}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeConn(server, Peer{Context: context.Background(), Account: account, Meter: Free{}})
	}()
	go func() {
		io.WriteString(client, http2.ClientPreface)
		client.Write(b)
		client.CloseWrite()
	}()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	fr := http2.NewFramer(nil, client)
	for {
		if _, err := fr.ReadFrame(); err != nil {
			if _, bad := err.(http2.ConnectionError); bad || isTimeout(err) {
				t.Fatalf("the server's frames: %v", err)
			}
			break
		}
	}
	client.Close()
	<-done
	streams, held := account.counts()
	for end := time.Now().Add(10 * time.Second); streams+held != 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		streams, held = account.counts() // what works for a stream ends soon
	}
	if streams != 0 || held != 0 {
		t.Fatalf("%d streams and %d bytes are left behind", streams, held)
	}
	if account.peak() > maxHeld {
		t.Fatalf("%d bytes were held", account.peak())
	}
}
