package localgrpc

import (
	"math"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What each kind of frame does to a connection.

func (c *conn) handle(f http2.Frame) error {
	if _, ok := f.(*http2.SettingsFrame); !ok && !c.settled {
		return bad(http2.ErrCodeProtocol, "the first frame is not SETTINGS")
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.handleSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.handlePing(f.Data)
		} else if c.ending && f.Data == goAwayPing {
			c.lastCall()
		}
	case *http2.HeadersFrame:
		return c.handleHeaders(f)
	case *http2.ContinuationFrame:
		if c.block.continuations++; c.block.continuations > maxContinuations {
			return bad(http2.ErrCodeEnhanceYourCalm, "headers in too many frames")
		}
		return c.decode(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return c.handleData(f)
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last {
			return bad(http2.ErrCodeProtocol, "RST_STREAM for a stream that was not opened")
		}
		if st := c.streams[f.StreamID]; st != nil {
			st.abort()
		}
	case *http2.WindowUpdateFrame:
		return c.handleWindow(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		return bad(http2.ErrCodeProtocol, "PUSH_PROMISE from a client")
	}
	return nil
}

// pingDelay is how long the answer to a PING may wait. gRPC libraries send one after DATA that they received, to learn of the
// bandwidth, and the next after DATA that follows its answer: answered at once, each answer of ours would wake both ends once
// more.
const pingDelay = 100 * time.Millisecond

// handlePing has a PING answered in a while; one that comes meanwhile, which is not for that, is answered at once, with it.
func (c *conn) handlePing(data [8]byte) {
	both := c.pinged
	c.pong()
	c.ping, c.pinged = data, true
	switch {
	case both:
		c.pong()
	case c.pingTimer == nil:
		c.pingTimer = time.AfterFunc(pingDelay, func() { c.do(c.pong) })
	default:
		c.pingTimer.Reset(pingDelay)
	}
}

// pong answers the PING that waits, if one does.
func (c *conn) pong() {
	if c.pinged {
		c.pinged = false
		copy(c.frame(http2.FramePing, http2.FlagPingAck, 0, len(c.ping)), c.ping[:])
	}
}

// handleSettings adjusts the streams once a frame, however many settings there are in it.
func (c *conn) handleSettings(f *http2.SettingsFrame) error {
	if !c.settled {
		c.settled = true
		_ = c.sock.SetDeadline(time.Time{})
	}
	if f.IsAck() {
		return nil
	}
	first := c.firstWindow
	err := f.ForeachSetting(func(s http2.Setting) error {
		if s.ID == http2.SettingInitialWindowSize {
			first = int64(s.Val)
		}
		return s.Valid()
	})
	if err != nil {
		return err
	}
	delta := first - c.firstWindow
	c.firstWindow = first
	if delta != 0 {
		for _, st := range c.streams {
			if st.sendWindow += delta; st.sendWindow > math.MaxInt32 {
				return bad(http2.ErrCodeFlowControl, "SETTINGS make a stream's window too large")
			}
			st.enqueue()
		}
	}
	c.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
	return nil
}

func (c *conn) handleWindow(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.sendWindow += int64(f.Increment); c.sendWindow > math.MaxInt32 {
			return bad(http2.ErrCodeFlowControl, "WINDOW_UPDATE makes the connection's window too large")
		}
		c.pump()
		return nil
	}
	st := c.streams[f.StreamID]
	if st == nil {
		if f.StreamID > c.last {
			return bad(http2.ErrCodeProtocol, "WINDOW_UPDATE for a stream that was not opened")
		}
		return nil
	}
	if st.sendWindow += int64(f.Increment); st.sendWindow > math.MaxInt32 {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	st.enqueue()
	return nil
}

func (c *conn) handleData(f *http2.DataFrame) error {
	n := int(f.Length)
	if c.recvWindow -= n; c.recvWindow < 0 {
		return bad(http2.ErrCodeFlowControl, "more DATA than the connection's window")
	}
	st := c.streams[f.StreamID]
	switch {
	case st == nil && f.StreamID > c.last:
		return bad(http2.ErrCodeProtocol, "DATA for a stream that was not opened")
	case st == nil || st.recvClosed:
		c.credit(n)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	if st.recvWindow -= n; st.recvWindow < 0 {
		c.credit(n)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	st.receive(f.Data(), n, f.StreamEnded())
	return nil
}

func (c *conn) handleHeaders(f *http2.HeadersFrame) error {
	c.block = &headerBlock{id: f.StreamID, end: f.StreamEnded()}
	if f.StreamID%2 == 0 {
		return bad(http2.ErrCodeProtocol, "a client's stream has an even number")
	}
	if f.HasPriority() && f.Priority.StreamDep == f.StreamID {
		c.block.malformed = "the stream depends on itself"
	}
	return c.decode(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (c *conn) field(f hpack.HeaderField) { c.block.field(f) }

func (c *conn) decode(fragment []byte, last bool) error {
	h := c.block
	if h.bytes += len(fragment); h.bytes > maxBlock {
		return bad(http2.ErrCodeEnhanceYourCalm, "headers of too many bytes")
	}
	if _, err := c.dec.Write(fragment); err != nil {
		return bad(http2.ErrCodeCompression, "headers that cannot be decoded: "+err.Error())
	}
	if !last {
		return nil
	}
	c.block = nil
	if err := c.dec.Close(); err != nil {
		return bad(http2.ErrCodeCompression, "headers that cannot be decoded: "+err.Error())
	}
	if h.id <= c.last {
		return c.handleTrailers(h)
	}
	c.last = h.id
	return c.open(h)
}

// handleTrailers ends a stream's requests; what a client says in its trailers is not looked at.
func (c *conn) handleTrailers(h *headerBlock) error {
	st := c.streams[h.id]
	switch {
	case st == nil:
		return bad(http2.ErrCodeStreamClosed, "HEADERS for a stream that has ended")
	case st.recvClosed:
		return http2.StreamError{StreamID: h.id, Code: http2.ErrCodeStreamClosed}
	case !h.end || h.malformed != "" || h.method+h.scheme+h.path != "":
		return http2.StreamError{StreamID: h.id, Code: http2.ErrCodeProtocol}
	}
	st.receive(nil, 0, true)
	return nil
}

// open begins a stream, or refuses it, of which nothing is kept then.
func (c *conn) open(h *headerBlock) error {
	if h.list <= maxHeaderList && (h.malformed != "" || h.method == "" || h.scheme == "" || h.path == "") {
		return http2.StreamError{StreamID: h.id, Code: http2.ErrCodeProtocol}
	}
	if h.id > c.limit || len(c.streams)+c.working >= maxStreams {
		return http2.StreamError{StreamID: h.id, Code: http2.ErrCodeRefusedStream}
	}
	deadline, ok := h.deadline()
	code, err := h.refuse()
	method := c.srv.methods[h.path]
	switch {
	case err != nil:
	case !ok:
		err = status.Errorf(codes.Internal, "shared-altsd: the grpc-timeout is %.20q, which is none", h.timeout)
	case method == nil:
		err = status.Errorf(codes.Unimplemented, "shared-altsd: there is no method %.200q", h.path)
	default:
		err = c.peer.Account.Enter()
	}
	if err != nil {
		block := trailers(true, err)
		if code != "" {
			block = refusal(code, err)
		}
		copy(c.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, h.id, len(block)), block)
		if !h.end {
			c.reset(h.id, http2.ErrCodeNo)
		}
		return nil
	}
	st := &Stream{c: c, id: h.id, UserAgent: h.userAgent, deadline: deadline, recvWindow: streamWindow,
		sendWindow: c.firstWindow}
	c.streams[h.id] = st
	st.call = method(st)
	if c.draining {
		st.call.Drain()
	}
	if !deadline.IsZero() {
		st.setTimer(time.Until(deadline), func() { st.fail(errDeadline) })
	}
	if h.end {
		st.receive(nil, 0, true)
	}
	return nil
}

// refuse resets a stream for an error in a frame of it.
func (c *conn) refuse(e http2.StreamError) {
	if st := c.streams[e.StreamID]; st != nil {
		st.abort()
	}
	c.reset(e.StreamID, e.Code)
}
