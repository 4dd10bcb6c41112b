package altscreds

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// A stream is what a record has in addition where it speaks altsd-tcp/1.
type stream struct {
	in      chunkReader // of record.readMu
	endSent bool        // of record.writeMu
}

// speakChunks has the bytes of both directions come in chunks, in frames as large as both sides want them.
func (r *record) speakChunks(peerMax uint32) {
	// The first keys are made here, since that takes more of a stack than all that follows, and stacks are most of what an
	// idle connection costs. An error comes again.
	_, _ = r.in.next(), r.out.next()
	r.chunks, r.readSize = new(stream), chunkReadSize
	r.maxPayload = int(min(max(peerMax, defaultFrame), advertisedFrame)) - overhead
}

// tooLarge refuses a frame that is larger than we asked for: altsd-tcp/1 has no peers of other makes that would send one.
func (r *record) tooLarge(b []byte) error {
	if len(b) < lengthSize {
		return nil
	}
	if length := binary.LittleEndian.Uint32(b); length > advertisedFrame {
		return fmt.Errorf("altscreds: a frame of %d bytes is over the %d that were asked for", length, advertisedFrame)
	}
	return nil
}

// awaitAny is await, but that an end is only what the peer says is one, where it speaks chunks.
func (r *record) awaitAny() error {
	err := r.await()
	if err == io.EOF && r.chunks != nil && !r.chunks.in.ended {
		return r.failRead(errCut)
	}
	return err
}

// readAny is read, but without the headers of chunks.
func (r *record) readAny(b []byte) (n int, err error) {
	if r.chunks != nil {
		return r.readChunks(b)
	}
	return r.read(b)
}

func (r *record) readChunks(b []byte) (n int, err error) {
	in := &r.chunks.in
	for n < len(b) && r.readErr == nil {
		if r.plainFrom < r.plainTo {
			skipped, err := in.skip((*r.readBuf)[r.plainFrom:r.plainTo])
			r.plainFrom += skipped
			if err != nil {
				r.failRead(err)
				break
			}
			m := copy(b[n:], (*r.readBuf)[r.plainFrom:min(r.plainTo, r.plainFrom+in.left)])
			r.plainFrom += m
			in.left -= m
			n += m
			r.checkEnd()
			continue
		}
		ciphertext, ok, err := r.frame()
		if err != nil {
			r.failRead(err)
		}
		if !ok {
			break
		}
		start, size := r.from+headerSize, len(ciphertext)-tagSize
		if size <= min(in.left, len(b)-n) { // all of it is data
			if err := r.open(b[n:n+size], ciphertext); err != nil {
				r.failRead(err)
				break
			}
			n += size
			in.left -= size
			continue
		}
		if err := r.open(ciphertext[:size], ciphertext); err != nil {
			r.failRead(err)
			break
		}
		r.plainFrom, r.plainTo = start, start+size
	}
	r.releaseIdle()
	if n == 0 && len(b) > 0 {
		return 0, r.readErr
	}
	return n, nil
}

// checkEnd ends the reading once the peer said so, after which nothing may come.
func (r *record) checkEnd() {
	switch {
	case !r.chunks.in.ended:
	case r.plainFrom < r.plainTo || r.from < r.to:
		r.failRead(errAfterEnd)
	default:
		r.failRead(io.EOF)
	}
}

// writeChunks is Write; writeMu is held.
func (r *record) writeChunks(b []byte) (int, error) {
	chunks := (len(b)-1)/maxChunk + 1
	frames := (len(b)+chunks*chunkHeader-1)/r.maxPayload + 1
	buf := getBuffer(min(len(b)+chunks*chunkHeader+frames*overhead, writeBatch))
	defer putBuffer(buf)
	sent, taken, left := 0, 0, 0 // left: of the chunk begun
	for sent < len(b) {
		n := 0
		for taken < len(b) {
			head := 0
			if left == 0 {
				left, head = min(len(b)-taken, maxChunk), chunkHeader
			}
			size := min(r.maxPayload-head, left)
			if n+overhead+head+size > len(*buf) {
				if head > 0 {
					left = 0
				}
				break
			}
			payload := b[taken : taken+size]
			if head > 0 {
				payload = (*buf)[n+headerSize:][:head+size]
				binary.BigEndian.PutUint32(payload, uint32(left))
				copy(payload[head:], b[taken:])
			}
			m, err := sealFrame(&r.out, (*buf)[n:], payload)
			if err != nil {
				r.writeErr = err
				return sent, err
			}
			n += m
			taken += size
			left -= size
		}
		if _, err := r.raw.Write((*buf)[:n]); err != nil {
			r.writeErr = err
			return sent, err
		}
		sent = taken
	}
	return sent, nil
}

// sendEnd says that this direction has ended; writeMu is held.
func (r *record) sendEnd() error {
	switch {
	case r.chunks.endSent:
		return nil
	case r.writeErr != nil:
		return fmt.Errorf("altscreds: the end was not sent, since the connection had failed: %w", r.writeErr)
	}
	r.writeErr = net.ErrClosed
	var end [overhead + chunkHeader]byte
	if _, err := sealFrame(&r.out, end[:], end[headerSize:][:chunkHeader]); err != nil {
		return err
	}
	if _, err := r.raw.Write(end[:]); err != nil {
		r.writeErr = err
		return err
	}
	r.chunks.endSent = true
	return nil
}
