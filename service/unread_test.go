package service

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// An application that sends request upon request and reads no answer keeps its place no longer than any other.
func TestRule24AnswersNotRead(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{HandshakeTimeout: 5 * time.Second})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(http2.ClientPreface))
	fr := http2.NewFramer(c, c)
	var mu sync.Mutex
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	fr.WriteSettingsAck()
	go func() {
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if p, ok := f.(*http2.PingFrame); ok && !p.IsAck() {
				mu.Lock()
				fr.WritePing(true, p.Data)
				mu.Unlock()
			}
		}
	}()
	var hb bytes.Buffer
	e := hpack.NewEncoder(&hb)
	for _, kv := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", altspb.FullMethod}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		e.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hb.Bytes(), EndHeaders: true})
	send := func(m proto.Message) {
		b, _ := proto.Marshal(m)
		h := make([]byte, 5)
		binary.BigEndian.PutUint32(h[1:], uint32(len(b)))
		mu.Lock()
		fr.WriteData(1, false, append(h, b...))
		mu.Unlock()
	}
	a := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, a, "").must(t, clientStart(nil)).OutFrames
	send(serverStart(m1, nil))
	// message 3: header and then byte by byte, each answered by a small response that nobody reads
	hdr := noiseproto.StatusFrame(0)[:8]
	copy(hdr[5:], []byte{3, 0x5f, 0xff})
	for i, b := range append(hdr, make([]byte, 9000)...) {
		send(next([]byte{b}))
		if i%100 == 99 {
			time.Sleep(8 * time.Millisecond)
		}
	}
	if r := d.record(t); r.Reason != "timed_out" {
		t.Errorf("record %+v, want timed_out", r)
	}
	if n := d.Snapshot().InFlight[Responder]; n != 0 {
		t.Errorf("%d handshakes keep their places", n)
	}
}
