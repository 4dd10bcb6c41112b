package altscreds

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	// maxEmptyFrames is how many frames without payload may follow one another: a peer that sends more keeps a Read busy
	// without ever letting it return.
	maxEmptyFrames = 1 << 10
	// writeBatch is how many bytes of frames are given to the connection in one call.
	writeBatch = 16 * sentFrame
	// readSize is how much is asked of the connection in one call, chunkReadSize where it speaks altsd-tcp/1: two frames.
	readSize      = 40 << 10
	chunkReadSize = 2 * (lengthSize + advertisedFrame)
)

var errRecordEmpty = errors.New("altscreds: the peer sends nothing but empty frames")

// record is the secured connection: frames over raw. One reader and one writer may use it at a time; others queue.
type record struct {
	raw      net.Conn
	chunks   *stream // nil: the plaintext is the bytes themselves
	readSize int     // how much is asked of raw in one call

	readMu  sync.Mutex
	in      cipherState
	readBuf *[]byte // nil while there is nothing received that was not yet returned
	// Of *readBuf, [plainFrom:plainTo] is decrypted and not yet returned, [from:to] received and not yet decrypted.
	plainFrom, plainTo, from, to int
	empty                        int              // frames without payload in sequence
	readErr                      error            // final
	socket                       socketReader     // waits without holding a buffer
	header                       [headerSize]byte // the same for connections that are no sockets

	writeMu    sync.Mutex
	out        cipherState
	maxPayload int   // of a frame that we send
	writeErr   error // final: part of a frame may have left
}

// newRecord starts the record protocol on raw. keyData has at least keySize bytes; peerMax is the frame size that the
// peer advertised, 0 if none; extra, which is copied, are bytes that the handshake received beyond its end.
func newRecord(raw net.Conn, client bool, keyData []byte, peerMax uint32, extra []byte) (*record, error) {
	r := &record{raw: raw, readSize: readSize}
	r.in.init(keyData, client)
	r.out.init(keyData, !client)
	r.maxPayload = maxPayload(peerMax)
	if len(extra) > 0 {
		if r.readBuf = getBuffer(max(len(extra), readSize)); r.readBuf == nil {
			return nil, fmt.Errorf("altscreds: %d bytes of the peer's came with the handshake's end, more than a frame",
				len(extra))
		}
		r.to = copy(*r.readBuf, extra)
	}
	r.socket.init(raw)
	return r, nil
}

// frame returns the payload and tag of the first frame received; ok is false if it is not yet whole.
func (r *record) frame() (ciphertext []byte, ok bool, err error) {
	if r.from == r.to {
		return nil, false, nil
	}
	if r.chunks != nil {
		if err := r.tooLarge((*r.readBuf)[r.from:r.to]); err != nil {
			return nil, false, err
		}
	}
	return parseFrame((*r.readBuf)[r.from:r.to])
}

// fill receives more bytes. While it waits for the first bytes of a frame no buffer is held.
func (r *record) fill() error {
	if r.readBuf == nil {
		if r.socket.raw != nil {
			var err error
			r.readBuf, r.to, err = r.socket.read(r.readSize)
			return err
		}
		n, err := r.raw.Read(r.header[:])
		if n == 0 {
			return err
		}
		r.readBuf = getBuffer(r.readSize)
		r.to = copy(*r.readBuf, r.header[:n])
		return nil
	}
	buf := *r.readBuf
	switch {
	case r.from > 0 && (r.from == r.to || len(buf)-r.from < frameSize(buf[r.from:r.to])):
		// A frame that does not fit behind the earlier ones moves to the front.
		r.to = copy(buf, buf[r.from:r.to])
		r.from = 0
	case r.to == len(buf):
		// Memory follows what was received, not what the length field claims: a header alone buys nothing.
		larger := getBuffer(min(2*len(buf), bufferSizes[len(bufferSizes)-1]))
		r.to = copy(*larger, buf[r.from:r.to])
		r.from = 0
		putBuffer(r.readBuf)
		r.readBuf = larger
	}
	buf = *r.readBuf
	n, err := r.raw.Read(buf[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	return err
}

// await returns when there is plaintext or a whole frame.
func (r *record) await() error {
	for r.plainFrom == r.plainTo {
		_, ok, err := r.frame()
		if err != nil {
			return r.failRead(err)
		}
		if ok {
			return nil
		}
		if r.readErr != nil {
			return r.readErr
		}
		if err := r.fill(); err != nil {
			partial := r.to > r.from
			if err == io.EOF && partial {
				return r.failRead(fmt.Errorf("altscreds: the connection ended within a frame: %w", io.ErrUnexpectedEOF))
			}
			if err == io.EOF {
				return r.failRead(io.EOF)
			}
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				return err // what was received stays; a later Read goes on
			}
			return r.failRead(err)
		}
	}
	return nil
}

// failRead makes err final.
func (r *record) failRead(err error) error {
	r.readErr = err
	r.releaseRead()
	return err
}

func (r *record) releaseRead() {
	r.from, r.to, r.plainFrom, r.plainTo = 0, 0, 0, 0
	if r.readBuf != nil {
		putBuffer(r.readBuf)
		r.readBuf = nil
	}
}

// read fills b from the frames that have been received, as many as there are, without waiting for more. It returns an
// error only if there was nothing before it.
func (r *record) read(b []byte) (n int, err error) {
	for n < len(b) {
		if r.plainFrom < r.plainTo {
			m := copy(b[n:], (*r.readBuf)[r.plainFrom:r.plainTo])
			r.plainFrom += m
			n += m
			continue
		}
		if r.readErr != nil {
			break
		}
		ciphertext, ok, err := r.frame()
		if err != nil {
			r.failRead(err)
			break
		}
		if !ok {
			break
		}
		start, size := r.from+headerSize, len(ciphertext)-tagSize
		dst, direct := b[n:], size <= len(b)-n
		if !direct {
			dst = ciphertext
		}
		if err := r.open(dst[:size], ciphertext); err != nil {
			r.failRead(err)
			break
		}
		if direct {
			n += size
		} else {
			r.plainFrom, r.plainTo = start, start+size
		}
	}
	r.releaseIdle()
	if n == 0 && len(b) > 0 {
		return 0, r.readErr
	}
	return n, nil
}

// open opens the next frame, of which frame gave the ciphertext, to dst.
func (r *record) open(dst, ciphertext []byte) error {
	if r.empty++; len(dst) > 0 {
		r.empty = 0
	} else if r.empty > maxEmptyFrames {
		return errRecordEmpty
	}
	if err := r.in.open(dst, ciphertext); err != nil {
		return err
	}
	r.from += headerSize + len(ciphertext)
	return nil
}

// releaseIdle returns the buffer if all that was received is returned.
func (r *record) releaseIdle() {
	if r.readErr == nil && r.from == r.to && r.plainFrom == r.plainTo {
		r.releaseRead()
	}
}

// Read returns what has been received, at least one byte, or waits for it.
func (r *record) Read(b []byte) (int, error) {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	if len(b) == 0 {
		return 0, r.readErr
	}
	for {
		if err := r.awaitAny(); err != nil {
			return 0, err
		}
		if n, err := r.readAny(b); n > 0 || err != nil {
			return n, err
		}
	}
}

// ReadOnReady is Read into a buffer of size bytes that is taken from pool only when there is something to put into it.
func (r *record) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	for {
		if err := r.awaitAny(); err != nil {
			return nil, 0, err
		}
		b := pool.Get(size)
		n, err := r.readAny(*b)
		if n > 0 {
			return b, n, nil
		}
		pool.Put(b)
		if err != nil {
			return nil, 0, err
		}
	}
}

// Write sends b in frames, several to a call of raw. After an error, which may have come amid a frame, every Write
// fails.
func (r *record) Write(b []byte) (int, error) {
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	if r.writeErr != nil {
		return 0, r.writeErr
	}
	if len(b) == 0 {
		return 0, nil
	}
	if r.chunks != nil {
		return r.writeChunks(b)
	}
	frames := (len(b)-1)/r.maxPayload + 1
	buf := getBuffer(min(len(b)+frames*overhead, writeBatch))
	defer putBuffer(buf)
	sent := 0
	for sent < len(b) {
		n, taken := 0, sent
		for taken < len(b) {
			payload := min(r.maxPayload, len(b)-taken)
			if n+overhead+payload > len(*buf) {
				break
			}
			m, err := sealFrame(&r.out, (*buf)[n:], b[taken:taken+payload])
			if err != nil {
				r.writeErr = err
				return sent, err
			}
			n += m
			taken += payload
		}
		if _, err := r.raw.Write((*buf)[:n]); err != nil {
			r.writeErr = err
			return sent, err
		}
		sent = taken
	}
	return sent, nil
}

// closeWrite ends our direction after the frames under way, that of raw if there is no other way to say so.
func (r *record) closeWrite() error {
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	if r.chunks != nil {
		return r.sendEnd()
	}
	if r.writeErr == nil {
		r.writeErr = net.ErrClosed
	}
	return closeWrite(r.raw)
}

// release returns the read buffer once raw is closed, which has woken any reader.
func (r *record) release() {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	r.failRead(net.ErrClosed)
}
