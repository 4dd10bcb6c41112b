package localgrpc

import (
	"encoding/binary"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A stream's answers: at once where the windows and the socket have room, else they wait, counted as what is held.

// Send answers a request by m, which is encoded at once. It reports whether the call goes on.
func (st *Stream) Send(m proto.Message) bool {
	if st.over {
		return false
	}
	st.answered()
	return st.Tell(m)
}

// Tell is Send, but answers no request: the next one does not come for it.
func (st *Stream) Tell(m proto.Message) bool {
	if st.over {
		return false
	}
	st.start()
	size := proto.Size(m)
	n := prefixSize + size
	if len(st.out) == 0 && int64(n) <= min(st.sendWindow, st.c.sendWindow) && n <= maxFrame && !st.c.full() {
		st.spend(n)
		p := st.c.frame(http2.FrameData, 0, st.id, n)
		encode(p, m, size)
		return true
	}
	if !st.Hold(n) {
		st.fail(status.New(codes.ResourceExhausted, "shared-altsd: the client does not take its answers (overloaded)"))
		return false
	}
	out := make([]byte, len(st.out)+n)
	copy(out, st.out)
	encode(out[len(st.out):], m, size)
	clear(st.out)
	st.out = out
	st.enqueue()
	return true
}

// encode puts m, of the given size, with its prefix into p.
func encode(p []byte, m proto.Message, size int) {
	p[0] = 0
	binary.BigEndian.PutUint32(p[1:], uint32(size))
	if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(p[prefixSize:prefixSize], m); err != nil {
		clear(p[prefixSize:]) // no message of ours has required fields or text that is no UTF-8
	}
}

func (st *Stream) spend(n int) {
	st.sendWindow -= int64(n)
	st.c.sendWindow -= int64(n)
}

// enqueue has what waits for a window sent as soon as there is one.
func (st *Stream) enqueue() {
	if !st.queued && st.sendWindow > 0 && len(st.out) > 0 {
		st.queued = true
		st.c.blocked = append(st.c.blocked, st)
		st.c.pump()
	}
}

// push sends one frame of what waits.
func (st *Stream) push() {
	if st.c.streams[st.id] != st {
		return
	}
	n := int(min(int64(len(st.out)), st.sendWindow, st.c.sendWindow, maxFrame))
	if n > 0 {
		st.spend(n)
		copy(st.c.frame(http2.FrameData, 0, st.id, n), st.out)
		clear(st.out[:n])
		st.out = st.out[n:]
		st.letGo(n)
	}
	switch {
	case len(st.out) > 0:
		if st.sendWindow > 0 {
			st.queued = true
			st.c.blocked = append(st.c.blocked, st)
		}
	case st.over:
		st.remove()
	default:
		st.out = nil
		if c, ok := st.call.(interface{ Sent() }); ok {
			c.Sent()
		}
		st.proceed() // also to what comes after a request that Sent answered
	}
}

// Waits reports whether answers wait for the client to take them. A Call that has a method Sent is told when they are gone.
func (st *Stream) Waits() bool { return len(st.out) > 0 }

// start sends the response's headers.
func (st *Stream) start() {
	if !st.started {
		st.started = true
		copy(st.c.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, st.id, len(responseHeaders)), responseHeaders)
	}
}
