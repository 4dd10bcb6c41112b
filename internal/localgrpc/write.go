package localgrpc

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

const maxOut = 32 << 10 // bytes of answers that are gathered, but for those of one frame

var outs = sync.Pool{New: func() any { b := make([]byte, 0, maxOut/4); return &b }}

// frame appends a frame to what is to be written, and returns where its payload goes, n bytes.
func (c *conn) frame(t http2.FrameType, flags http2.Flags, id uint32, n int) []byte {
	if c.out == nil {
		c.outBuf = outs.Get().(*[]byte)
		c.out = (*c.outBuf)[:0]
	}
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
	end := len(c.out)
	for cap(c.out) < end+n {
		c.grow(n)
	}
	c.out = c.out[:end+n]
	return c.out[end:]
}

// grow makes room for n bytes more, and wipes what it copies from: there may be keys.
func (c *conn) grow(n int) {
	old := c.out
	c.out = append(make([]byte, 0, 2*cap(old)+n), old...)
	clear(old)
}

func (c *conn) frame32(t http2.FrameType, id, v uint32) {
	binary.BigEndian.PutUint32(c.frame(t, 0, id, 4), v)
}

func (c *conn) reset(id uint32, code http2.ErrCode) {
	c.frame32(http2.FrameRSTStream, id, uint32(code))
}

func (c *conn) settings(list ...http2.Setting) {
	p := c.frame(http2.FrameSettings, 0, 0, 6*len(list))
	for i, s := range list {
		binary.BigEndian.PutUint16(p[6*i:], uint16(s.ID))
		binary.BigEndian.PutUint32(p[6*i+2:], s.Val)
	}
}

func (c *conn) goAway(last uint32, code http2.ErrCode, debug string) {
	p := c.frame(http2.FrameGoAway, 0, 0, 8+len(debug))
	binary.BigEndian.PutUint32(p, last)
	binary.BigEndian.PutUint32(p[4:], uint32(code))
	copy(p[8:], debug)
}

// flush writes what was gathered. What the socket does not take at once is written by a goroutine until a deadline.
func (c *conn) flush() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.written = 0
	if err := c.raw.Write(c.tryWrite); err != nil || c.writeErr != nil {
		c.dropOut()
		c.shut()
		return
	}
	if c.written == len(c.out) {
		c.dropOut()
		return
	}
	c.writing = true
	go c.writeRest(c.written)
}

// dropOut wipes what was written, and gives the buffer back if it is one of the pool's.
func (c *conn) dropOut() {
	clear(c.out)
	if c.outBuf != nil && cap(*c.outBuf) == cap(c.out) {
		outs.Put(c.outBuf)
	}
	c.out, c.outBuf = nil, nil
}

// attemptWrite is called by the runtime; true means do not wait.
func (c *conn) attemptWrite(fd uintptr) bool {
	c.writeErr = nil
	for c.written < len(c.out) {
		n, err := syscall.Write(int(fd), c.out[c.written:])
		switch err {
		case nil:
			c.written += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			c.writeErr = err
			return true
		}
	}
	return true
}

// writeRest writes what the socket did not take, but for the first done bytes; a peer that takes nothing for
// writeTimeout loses its connection.
func (c *conn) writeRest(done int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.closed {
		b, buf := c.out, c.outBuf
		c.out, c.outBuf = nil, nil
		c.mu.Unlock()
		_ = c.sock.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := c.sock.Write(b[done:])
		clear(b)
		if buf != nil && cap(*buf) == cap(b) {
			outs.Put(buf)
		}
		done = 0
		c.mu.Lock()
		if err != nil {
			c.shut()
		}
		c.pump()
	}
	_ = c.sock.SetWriteDeadline(time.Time{})
	c.writing = false
	c.taken.Broadcast()
	c.pump()
	c.flush()
	c.endIfDone()
}

// pump sends what waits for a window, or for the socket, while there is room.
func (c *conn) pump() {
	for len(c.blocked) > 0 && c.sendWindow > 0 && !c.full() {
		st := c.blocked[0]
		c.blocked = c.blocked[1:]
		st.queued = false
		st.push()
	}
	if len(c.blocked) == 0 {
		c.blocked = nil
	}
}

// full reports whether as much waits for the socket as may.
func (c *conn) full() bool {
	if len(c.out) >= maxOut {
		c.flush()
	}
	return len(c.out) >= maxOut || c.writing && len(c.out) >= maxOut/2 || c.closed
}
