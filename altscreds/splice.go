package altscreds

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// The ways of bytes through a forward. Neither holds a buffer while it waits for something to carry.

// spliceSize is how much of what has no faster way is copied at a time.
const spliceSize = 32 << 10

// spliceHead is what stands before the data of a frame that is read to where it is sealed.
const spliceHead = headerSize + chunkHeader

// ReadFrom sends what r has until its end, which it does not send: CloseWrite does. With it io.Copy to the connection is
// fast from a socket of package net's, which is waited for without a buffer.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if c.other != nil {
		return io.Copy(c.other, r)
	}
	if e := c.ended.Load(); e != nil {
		return 0, e
	}
	s := source{r: r}
	if conn, ok := r.(net.Conn); ok {
		s.socket.init(conn)
	}
	n, err = c.rec.readFrom(&s)
	return n, c.why(err)
}

// WriteTo writes to w what is received until the peer's end. With it io.Copy from the connection is fast.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if c.other != nil {
		return io.Copy(w, c.other)
	}
	if e := c.ended.Load(); e != nil {
		return 0, e
	}
	n, err = c.rec.writeTo(w)
	return n, c.why(err)
}

// WaitClose waits, once Read or WriteTo has come to the peer's end, for the peer to close the connection. An error says
// that it sent something after its end, that the connection broke, or that it was closed here.
func (c *Conn) WaitClose() error {
	if !c.done.Load() {
		return errors.New("altscreds: WaitClose before the handshake is done")
	}
	if e := c.ended.Load(); e != nil {
		return e
	}
	n, err := c.raw.Read(make([]byte, 1))
	switch {
	case n > 0:
		return errAfterEnd
	case err == io.EOF:
		return nil
	}
	return c.why(err)
}

// A source is what is read to be sent.
type source struct {
	r      io.Reader
	socket socketReader // of r, if that is a socket
}

// read waits for bytes and returns them, between a head and a tail that stay free, in a buffer of getBuffer's that has the
// size or more.
func (s *source) read(size, head, tail int) (buf *[]byte, n int, err error) {
	if s.socket.raw != nil {
		s.socket.head, s.socket.tail = head, tail
		return s.socket.read(size)
	}
	buf = getBuffer(size)
	for n == 0 && err == nil {
		n, err = s.r.Read((*buf)[head : len(*buf)-tail])
	}
	if n > 0 {
		return buf, n, nil // an error comes again
	}
	putBuffer(buf)
	return nil, 0, err
}

// readFrom sends what there is to read until its end.
func (r *record) readFrom(s *source) (n int64, err error) {
	for {
		var buf *[]byte
		var m int
		if r.chunks == nil {
			buf, m, err = s.read(spliceSize, 0, 0)
		} else {
			buf, m, err = s.read(overhead+r.maxPayload, spliceHead, tagSize)
		}
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case r.chunks == nil:
			_, err = r.Write((*buf)[:m])
		default:
			err = r.writeInPlace(*buf, m)
		}
		putBuffer(buf)
		if err != nil {
			return n, err
		}
		n += int64(m)
	}
}

// writeInPlace sends as a chunk the n bytes behind the head of buf, where they are sealed.
func (r *record) writeInPlace(buf []byte, n int) error {
	if chunkHeader+n > r.maxPayload { // the buffer is larger than asked for
		_, err := r.Write(buf[spliceHead:][:n])
		return err
	}
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	if r.writeErr != nil {
		return r.writeErr
	}
	binary.BigEndian.PutUint32(buf[headerSize:], uint32(n))
	n, err := sealFrame(&r.out, buf, buf[headerSize:spliceHead+n])
	if err == nil {
		_, err = r.raw.Write(buf[:n])
	}
	r.writeErr = err
	return err
}

// writeTo writes what is received until the peer's end.
func (r *record) writeTo(w io.Writer) (n int64, err error) {
	for {
		buf, from, to, err := r.batch()
		if buf != nil {
			m, err := w.Write((*buf)[from:to])
			putBuffer(buf)
			n += int64(m)
			if err != nil {
				return n, err
			}
			continue
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// batch waits, and returns what has been received, opened to [from:to] of a buffer of getBuffer's. The buffer is nil if
// there is no data in it.
func (r *record) batch() (buf *[]byte, from, to int, err error) {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	if err := r.awaitAny(); err != nil {
		return nil, 0, 0, err
	}
	// As it stands there, what is left of an earlier Read included.
	buf = getBuffer(max(spliceSize, min(r.to-min(r.from, r.plainFrom), bufferSizes[len(bufferSizes)-1])))
	from, to = chunkHeader, chunkHeader
	if r.plainFrom < r.plainTo {
		n, _ := r.readAny((*buf)[from:])
		to += n
	} else {
		to = r.openFrames(*buf, to)
		r.releaseIdle()
	}
	if to == from {
		putBuffer(buf)
		return nil, 0, 0, r.readErr
	}
	return buf, from, to, nil
}

// openFrames opens the frames that are whole to b, from to on, and returns the end of their data.
func (r *record) openFrames(b []byte, to int) int {
	for r.readErr == nil {
		ciphertext, ok, err := r.frame()
		size := len(ciphertext) - tagSize
		if err != nil {
			r.failRead(err)
		}
		if !ok || to+size > len(b) {
			break
		}
		if r.chunks == nil {
			if err := r.open(b[to:to+size], ciphertext); err != nil {
				r.failRead(err)
				break
			}
			to += size
			continue
		}
		to = r.openChunks(b, to, size, ciphertext)
	}
	return to
}

// openChunks opens a frame to b and returns where the data that begins at to ends then, without headers. A frame that
// begins with a header is opened so that the header comes to stand before to, in the place of bytes that are put back.
func (r *record) openChunks(b []byte, to, size int, ciphertext []byte) int {
	in, at := &r.chunks.in, to
	var kept [chunkHeader]byte
	if in.left == 0 && in.got == 0 {
		at -= chunkHeader
		copy(kept[:], b[at:])
		defer func(at int) { copy(b[at:], kept[:]) }(at)
	}
	if err := r.open(b[at:at+size], ciphertext); err != nil {
		r.failRead(err)
		return to
	}
	for end := at + size; at < end; {
		n, err := in.skip(b[at:end])
		at += n
		if err != nil {
			r.failRead(err)
			return to
		}
		n = min(in.left, end-at)
		if to != at {
			copy(b[to:], b[at:at+n])
		}
		at += n
		to += n
		in.left -= n
	}
	r.checkEnd()
	return to
}
