package altscreds

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc/mem"
)

// The record protocol ALTSRP_GCM_AES128_REKEY, as every stock ALTS library speaks it. A frame is
//
//	length   4 bytes, little-endian: of what follows
//	type     4 bytes, little-endian: 6
//	payload  AES-128-GCM, no additional data
//	tag      16 bytes
const (
	recordProtocol = "ALTSRP_GCM_AES128_REKEY"

	lengthSize = 4
	headerSize = 8
	tagSize    = 16
	overhead   = headerSize + tagSize

	recordType = 6

	// keySize is how much of the key data the record protocol uses: 32 bytes to derive keys, 12 as nonce mask.
	keySize = 44

	// maxLength is the greatest length field accepted, the limit of stock Go. Java's peers stay 4 bytes below it, and
	// those of C++ count the length field out, so that one told 1 MiB reaches exactly this.
	maxLength = 1 << 20
	// maxEmptyFrames is how many frames without payload may follow one another: a peer that sends more keeps a Read busy
	// without ever letting it return.
	maxEmptyFrames = 1 << 10

	// defaultFrame is the size of a whole frame towards a peer that advertised none, and the least ever used.
	defaultFrame = 4 << 10
	// advertisedFrame is the greatest frame we ask our peers to send. Stock Java breaks if told 1 MiB. A frame cannot be
	// decrypted before it is whole, so a larger one costs memory and delay, and its overhead is small already.
	advertisedFrame = 64 << 10
	// sentFrame is the greatest whole frame that we send. It is smaller than it might be: a frame that does not fit whole
	// into the 32 KiB that gRPC reads at a time is copied once more, which costs most when frames are large. (Measured
	// against TLS, bulk over gRPC in processor time: 4 KiB 1.20, 8 KiB 1.23, 16 KiB 1.05.)
	sentFrame = 8<<10 + overhead
	// writeBatch is how many bytes of frames are given to the connection in one call.
	writeBatch = 16 * sentFrame
	// readSize is how much is asked of the connection in one call.
	readSize = 40 << 10
)

var (
	errRecordAuth = errors.New("altscreds: a frame did not authenticate: something between the two ends changes bytes, " +
		"or the peer is faulty")
	errRecordCounter  = errors.New("altscreds: all frame numbers of this connection are used up; open a new one")
	errRecordEmpty    = errors.New("altscreds: the peer sends nothing but empty frames")
	errRecordTooShort = errors.New("altscreds: a frame is too short to hold its type and tag")
)

// cipherState is one direction of a connection.
type cipherState struct {
	kdfKey    [32]byte
	nonceMask [12]byte
	nonce     [12]byte // scratch, here because the AEAD lets its arguments escape
	direction byte     // the last byte of the counter: 0x80 for server to client
	counter   uint64   // of the next frame
	exhausted bool     // the counter has come round
	epoch     uint64   // counter >> 16 that aead was made for
	aead      cipher.AEAD
}

func (s *cipherState) init(keyData []byte, fromServer bool) {
	copy(s.kdfKey[:], keyData[:32])
	copy(s.nonceMask[:], keyData[32:keySize])
	if fromServer {
		s.direction = 0x80
	}
}

// next sets the AEAD and s.nonce for the next frame. The key is derived anew from bits 16 to 63 of the counter, so that
// one key serves 2^16 frames.
func (s *cipherState) next() error {
	if s.exhausted {
		return errRecordCounter
	}
	if epoch := s.counter >> 16; s.aead == nil || epoch != s.epoch {
		var info [9]byte
		binary.LittleEndian.PutUint64(info[:], epoch) // the upper 2 bytes are 0
		mac := hmac.New(sha256.New, s.kdfKey[:])
		mac.Write(info[:6])
		mac.Write([]byte{1})
		block, err := aes.NewCipher(mac.Sum(nil)[:16])
		if err != nil {
			return fmt.Errorf("altscreds: AES-128: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return fmt.Errorf("altscreds: AES-128-GCM: %w", err)
		}
		s.aead, s.epoch = aead, epoch
	}
	mask := binary.LittleEndian.Uint64(s.nonceMask[:8])
	binary.LittleEndian.PutUint64(s.nonce[:8], s.counter^mask)
	copy(s.nonce[8:], s.nonceMask[8:])
	s.nonce[11] ^= s.direction
	return nil
}

// advance counts a frame as done.
func (s *cipherState) advance() {
	s.counter++
	s.exhausted = s.counter == 0
}

// seal writes the frame of plaintext to the beginning of dst, which does not overlap it, and returns the frame's size.
func (s *cipherState) seal(dst, plaintext []byte) (int, error) {
	if err := s.next(); err != nil {
		return 0, err
	}
	n := overhead + len(plaintext)
	binary.LittleEndian.PutUint32(dst, uint32(n-lengthSize))
	binary.LittleEndian.PutUint32(dst[lengthSize:], recordType)
	s.aead.Seal(dst[headerSize:headerSize:n], s.nonce[:], plaintext, nil)
	s.advance()
	return n, nil
}

// open decrypts to the beginning of dst, which is exactly the payload or does not overlap it.
func (s *cipherState) open(dst, ciphertext []byte) error {
	if err := s.next(); err != nil {
		return err
	}
	n := len(ciphertext) - tagSize
	if _, err := s.aead.Open(dst[:0:n], s.nonce[:], ciphertext, nil); err != nil {
		return errRecordAuth
	}
	s.advance()
	return nil
}

// record is the secured connection: frames over raw. One reader and one writer may use it at a time; others queue.
type record struct {
	raw net.Conn

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
	r := &record{raw: raw}
	r.in.init(keyData, client)
	r.out.init(keyData, !client)
	// A whole frame stays within what the peer advertised whether or not it counts the length field in.
	r.maxPayload = int(min(max(peerMax, defaultFrame), sentFrame)) - overhead
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
	if r.to-r.from < lengthSize {
		return nil, false, nil
	}
	b := (*r.readBuf)[r.from:r.to]
	length := binary.LittleEndian.Uint32(b)
	switch {
	case length > maxLength:
		return nil, false, fmt.Errorf("altscreds: a frame of %d bytes is over the limit of %d: the peer does "+
			"not speak the ALTS record protocol", length, maxLength)
	case length < overhead-lengthSize:
		return nil, false, errRecordTooShort
	case len(b) < headerSize:
		return nil, false, nil
	}
	if typ := binary.LittleEndian.Uint32(b[lengthSize:]); typ != recordType {
		return nil, false, fmt.Errorf("altscreds: a frame has type %d, not %d", typ, recordType)
	}
	if uint32(len(b)-lengthSize) < length {
		return nil, false, nil
	}
	return b[headerSize : lengthSize+length], true, nil
}

// fill receives more bytes. While it waits for the first bytes of a frame no buffer is held.
func (r *record) fill() error {
	if r.readBuf == nil {
		if r.socket.raw != nil {
			var err error
			r.readBuf, r.to, err = r.socket.read(readSize)
			return err
		}
		n, err := r.raw.Read(r.header[:])
		if n == 0 {
			return err
		}
		r.readBuf = getBuffer(readSize)
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

// frameSize tells the whole size of the frame that b begins, or the largest there is if b does not tell.
func frameSize(b []byte) int {
	if len(b) < lengthSize {
		return lengthSize + maxLength
	}
	return lengthSize + int(min(binary.LittleEndian.Uint32(b), maxLength))
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
		size := len(ciphertext) - tagSize
		if r.empty++; size > 0 {
			r.empty = 0
		} else if r.empty > maxEmptyFrames {
			r.failRead(errRecordEmpty)
			break
		}
		start := r.from + headerSize
		dst, direct := b[n:], size <= len(b)-n
		if !direct {
			dst = ciphertext
		}
		if err := r.in.open(dst[:size], ciphertext); err != nil {
			r.failRead(err)
			break
		}
		if direct {
			n += size
		} else {
			r.plainFrom, r.plainTo = start, start+size
		}
		r.from = start + len(ciphertext)
	}
	if r.readErr == nil && r.from == r.to && r.plainFrom == r.plainTo {
		r.releaseRead()
	}
	if n == 0 && len(b) > 0 {
		return 0, r.readErr
	}
	return n, nil
}

// Read returns what has been received, at least one byte, or waits for it.
func (r *record) Read(b []byte) (int, error) {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if err := r.await(); err != nil {
			return 0, err
		}
		if n, err := r.read(b); n > 0 || err != nil {
			return n, err
		}
	}
}

// ReadOnReady is Read into a buffer of size bytes that is taken from pool only when there is something to put into it.
func (r *record) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	r.readMu.Lock()
	defer r.readMu.Unlock()
	for {
		if err := r.await(); err != nil {
			return nil, 0, err
		}
		b := pool.Get(size)
		n, err := r.read(*b)
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
			m, err := r.out.seal((*buf)[n:], b[taken:taken+payload])
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

// closeWrite ends our direction of raw after the frames under way.
func (r *record) closeWrite() error {
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
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
