package noiseproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// The sizes of docs/spec/protocol.md, section 3, in bytes.
const (
	headerSize   = 8
	message1Size = 1232
	message2Min  = 1190
	message3Min  = 70
	messageMax   = 24576
	statusSize   = 4
)

// magic begins every frame. Read as a little-endian length of the ALTS record protocol it is over 1 MiB, so that a
// record layer that meets a late handshake frame fails at once.
const magic = "salt"

// A frameType is the sixth byte of a header.
type frameType byte

const (
	frameMessage1 frameType = 1
	frameMessage2 frameType = 2
	frameMessage3 frameType = 3
	frameStatus   frameType = 4
)

func (t frameType) String() string {
	switch t {
	case frameMessage1, frameMessage2, frameMessage3:
		return fmt.Sprintf("message %d", byte(t))
	case frameStatus:
		return "status"
	}
	return fmt.Sprintf("frame of unknown type %d", byte(t))
}

// bounds returns the least and the greatest length of a body of type t.
func (t frameType) bounds() (lo, hi int) {
	switch t {
	case frameMessage1:
		return message1Size, message1Size
	case frameMessage2:
		return message2Min, messageMax
	case frameMessage3:
		return message3Min, messageMax
	case frameStatus:
		return statusSize, statusSize
	}
	return 0, -1
}

// A header is what stands before a body, the magic taken off.
type header struct {
	version byte
	typ     frameType
	length  int // of the body, bytes
}

// putHeader writes the header of a body of n bytes to b[:headerSize].
func putHeader(b []byte, version byte, t frameType, n int) {
	copy(b, magic)
	b[4], b[5] = version, byte(t)
	binary.BigEndian.PutUint16(b[6:], uint16(n))
}

// A frameReader takes frames from bytes that arrive in any segmentation. Nothing of a body is stored, and no room is
// made for one, before its header has passed. The zero value is ready for the first frame.
type frameReader struct {
	raw     [headerSize]byte // the header so far
	nraw    int              // how much of raw is there
	checked bool             // whether the header has passed
	hdr     header
	partial []byte // the body so far; its capacity is the body's length; nil while none of it was stored
}

// want returns how many bytes complete the header, or else the body.
func (r *frameReader) want() int {
	if !r.checked {
		return headerSize - r.nraw
	}
	return r.hdr.length - len(r.partial)
}

// read takes what it can from in and returns how much that was. When a frame is whole it returns its body, true, and is
// ready for the next frame; hdr and raw stay as they are until then. The body may be a part of in, so it is valid
// only as long as in is. check judges a header as soon as it is there; its error ends the reading, as does a byte
// that is not the magic's (an *foreignError).
func (r *frameReader) read(in []byte, check func(header) error) (n int, body []byte, whole bool, err error) {
	if !r.checked {
		for r.nraw < headerSize {
			if n == len(in) {
				return n, nil, false, nil
			}
			if r.nraw < len(magic) && in[n] != magic[r.nraw] {
				return n, nil, false, &foreignError{looksLike(append(r.raw[:r.nraw:r.nraw], in[n:min(len(in), n+32)]...))}
			}
			r.raw[r.nraw] = in[n]
			r.nraw++
			n++
		}
		r.hdr = header{r.raw[4], frameType(r.raw[5]), int(binary.BigEndian.Uint16(r.raw[6:]))}
		if err := check(r.hdr); err != nil {
			return n, nil, false, err
		}
		r.checked = true
	}
	switch rest := in[n:]; {
	case r.partial == nil && len(rest) >= r.hdr.length:
		body = rest[:r.hdr.length:r.hdr.length] // whole in one piece: no copy
		n += r.hdr.length
	case len(rest) == 0:
		return n, nil, false, nil
	default:
		if r.partial == nil {
			r.partial = make([]byte, 0, r.hdr.length)
		}
		take := min(r.hdr.length-len(r.partial), len(rest))
		r.partial = append(r.partial, rest[:take]...)
		n += take
		if len(r.partial) < r.hdr.length {
			return n, nil, false, nil
		}
		body = r.partial
	}
	r.nraw, r.checked, r.partial = 0, false, nil
	return n, body, true, nil
}

// A protocol is what bytes without our magic look like, and what to do about that.
type protocol struct{ name, cure string }

// A foreignError says that the peer sent bytes that do not begin with the magic.
type foreignError struct{ protocol }

func (e *foreignError) Error() string { return "not a frame of this protocol: " + e.name }

// ErrForeign is in the chain of an error that says that the peer does not speak this protocol at all. To such a peer
// nothing is answered.
var ErrForeign = errors.New("the peer does not speak the shared-altsd protocol")

const cureCredentials = "use ALTS credentials at both ends, or at neither"

// looksLike names the protocol whose first bytes b are. b is not empty, and may be as short as one byte.
func looksLike(b []byte) protocol {
	s := string(b)
	// has reports whether b begins with p, or is a beginning of p of at least least bytes.
	has := func(p string, least int) bool {
		return strings.HasPrefix(s, p) || len(s) >= least && strings.HasPrefix(p, s)
	}
	switch {
	case has("\x16\x03", 1), has("\x15\x03", 1):
		return protocol{"TLS", cureCredentials}
	case has("PRI * HTTP/2.0", 2):
		return protocol{"HTTP/2 without transport security (insecure gRPC)", cureCredentials}
	case len(b) >= 9 && b[0] == 0 && (b[3] == 4 || b[3] == 7) && string(b[5:9]) == "\x00\x00\x00\x00":
		// A server's first frame is SETTINGS, or GOAWAY when it dislikes us: 24 bits of length, type, flags, stream 0.
		return protocol{"HTTP/2 without transport security (insecure gRPC)", cureCredentials}
	case has("SSH-", 1):
		return protocol{"SSH", "check the port number"}
	case len(b) >= 8 && b[3] == 0 && string(b[4:8]) == "\x06\x00\x00\x00":
		return protocol{"the ALTS record protocol, whose handshake is over or was never seen here",
			"open a new connection, and let nothing join or replay connections between the two"}
	case strings.Trim(s, "\x00") == "":
		return protocol{"zero bytes", "check the port number, and what stands between the two machines"}
	}
	for _, m := range []string{"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "DELETE ", "CONNECT ", "PATCH ", "TRACE ",
		"HTTP/1."} {
		if has(m, 1) {
			return protocol{"HTTP", "check the port number, and whether a proxy stands between the two"}
		}
	}
	return protocol{fmt.Sprintf("something unknown (its first bytes are % x)", b[:min(len(b), 4)]),
		"check the port number, and that both ends use ALTS credentials with a shared-altsd daemon"}
}

// foreign turns a foreignError into the refusal that our own side reads.
func foreign(e *foreignError, initiator bool) *reason.Error {
	who := "client"
	if initiator {
		who = "server"
	}
	return &reason.Error{
		Code:   reason.Malformed,
		Detail: fmt.Sprintf("the %s at the other end speaks %s, not ALTS: %s", who, e.name, e.cure),
		Err:    ErrForeign,
	}
}
