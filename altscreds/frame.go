package altscreds

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	overhead   = headerSize + tagSize

	recordType = 6

	// maxLength is the greatest length field accepted, the limit of stock Go. Java's peers stay 4 bytes below it, and
	// those of C++ count the length field out, so that one told 1 MiB reaches exactly this.
	maxLength = 1 << 20

	// defaultFrame is the size of a whole frame towards a peer that advertised none, and the least ever used.
	defaultFrame = 4 << 10
	// advertisedFrame is the greatest frame we ask our peers to send. Stock Java breaks if told 1 MiB. A frame cannot be
	// decrypted before it is whole, so a larger one costs memory and delay, and its overhead is small already.
	advertisedFrame = 64 << 10
	// sentFrame is the greatest whole frame that we send. It is smaller than it might be: a frame that does not fit whole
	// into the 32 KiB that gRPC reads at a time is copied once more, which costs most when frames are large. (Measured
	// against TLS, bulk over gRPC in processor time: 4 KiB 1.20, 8 KiB 1.23, 16 KiB 1.05.)
	sentFrame = 8<<10 + overhead
)

var errFrameTooShort = errors.New("altscreds: a frame is too short to hold its type and tag")

// maxPayload returns how much payload a frame carries towards a peer that advertised a frame size, 0 if it did not. A
// whole frame stays within that size whether or not the peer counts the length field in.
func maxPayload(advertised uint32) int {
	return int(min(max(advertised, defaultFrame), sentFrame)) - overhead
}

// sealFrame writes the frame of payload to the beginning of dst and returns its size. The payload is in its place there
// or does not overlap dst.
func sealFrame(s *cipherState, dst, payload []byte) (int, error) {
	n := overhead + len(payload)
	binary.LittleEndian.PutUint32(dst, uint32(n-lengthSize))
	binary.LittleEndian.PutUint32(dst[lengthSize:], recordType)
	if err := s.seal(dst[headerSize:n], payload); err != nil {
		return 0, err
	}
	return n, nil
}

// parseFrame returns the payload and tag of the frame that b begins with; ok is false if it is not yet whole.
func parseFrame(b []byte) (ciphertext []byte, ok bool, err error) {
	if len(b) < lengthSize {
		return nil, false, nil
	}
	length := binary.LittleEndian.Uint32(b)
	switch {
	case length > maxLength:
		return nil, false, fmt.Errorf("altscreds: a frame of %d bytes is over the limit of %d: the peer does "+
			"not speak the ALTS record protocol", length, maxLength)
	case length < overhead-lengthSize:
		return nil, false, errFrameTooShort
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

// frameSize returns the whole size of the frame that b begins with, or the largest there is if b is too short to tell.
func frameSize(b []byte) int {
	if len(b) < lengthSize {
		return lengthSize + maxLength
	}
	return lengthSize + int(min(binary.LittleEndian.Uint32(b), maxLength))
}
