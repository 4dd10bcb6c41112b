package localgrpc

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	maxHeaderList    = 16 << 10 // by HTTP/2's count, 32 bytes beside each field
	maxBlock         = 32 << 10 // bytes of a header block
	maxContinuations = 8
	tableSize        = 4096
)

// A headerBlock is a request's headers, of which only what is looked at is kept.
type headerBlock struct {
	id            uint32
	end           bool // of the stream
	continuations int
	bytes         int // of the block
	list          int // as HTTP/2 counts

	method, scheme, path, contentType, encoding, userAgent, timeout string

	regular   bool   // a field that is no pseudo-header has come
	malformed string // what is wrong, if something is
}

// field takes one decoded field.
func (h *headerBlock) field(f hpack.HeaderField) {
	if h.list += int(f.Size()); h.list > maxHeaderList {
		return
	}
	if f.IsPseudo() {
		var to *string
		switch f.Name {
		case ":method":
			to = &h.method
		case ":scheme":
			to = &h.scheme
		case ":path":
			to = &h.path
		case ":authority":
			return
		}
		if to == nil || *to != "" || h.regular || f.Value == "" {
			h.malformed = "a pseudo-header that is unknown, empty, repeated or out of place"
			return
		}
		*to = f.Value
		return
	}
	h.regular = true
	switch f.Name {
	case "content-type":
		h.contentType = f.Value
	case "grpc-encoding":
		h.encoding = f.Value
	case "grpc-timeout":
		h.timeout = f.Value
	case "user-agent":
		h.userAgent = f.Value
	case "te":
		if f.Value != "trailers" {
			h.malformed = "te is not trailers"
		}
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.malformed = "a header of HTTP/1"
	default:
		if strings.ToLower(f.Name) != f.Name {
			h.malformed = "a header's name is not in lower case"
		}
	}
}

// refuse returns the HTTP status, if not 200, and the gRPC status of a request that cannot be answered.
func (h *headerBlock) refuse() (code string, err error) {
	switch {
	case h.list > maxHeaderList:
		return "", status.Errorf(codes.ResourceExhausted, "shared-altsd: the headers have more than %d bytes", maxHeaderList)
	case h.method != "POST":
		return "405", status.Error(codes.Internal, "shared-altsd: the HTTP method is not POST")
	case !isGRPC(h.contentType):
		return "415", status.Errorf(codes.Internal, "shared-altsd: the content-type is %.60q, not application/grpc",
			h.contentType)
	case h.encoding != "" && h.encoding != "identity":
		return "", status.Errorf(codes.Unimplemented, "shared-altsd: the grpc-encoding is %.60q; only identity is known",
			h.encoding)
	}
	return "", nil
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// deadline returns what grpc-timeout says, the zero time if there is none.
func (h *headerBlock) deadline() (time.Time, bool) {
	if h.timeout == "" {
		return time.Time{}, true
	}
	last := len(h.timeout) - 1
	unit := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond,
		'u': time.Microsecond, 'n': time.Nanosecond}[h.timeout[last]]
	n, err := strconv.ParseUint(h.timeout[:last], 10, 32)
	if unit == 0 || err != nil || last > 8 {
		return time.Time{}, false
	}
	const longest = 1000 * time.Hour // 8 digits of hours are more than a Duration holds
	d := longest
	if n < uint64(longest/unit) {
		d = time.Duration(n) * unit
	}
	return time.Now().Add(d), true
}

// responseHeaders begin a response: status 200 and the content type, without hpack's dynamic table.
var responseHeaders = literal([]byte{0x88}, "content-type", "application/grpc")

// literal appends a header field that is not indexed.
func literal(b []byte, name, value string) []byte {
	b = append(b, 0)
	for _, s := range [2]string{name, value} {
		if n := len(s); n < 127 {
			b = append(b, byte(n))
		} else {
			b = append(b, 127)
			for n -= 127; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
			b = append(b, byte(n))
		}
		b = append(b, s...)
	}
	return b
}

var okTrailers = literal(nil, "grpc-status", "0")

// maxText bounds the text of a status, so that the end of a call fits in one frame; what is longer is cut.
const maxText = 3 << 10

// trailers returns the header block that ends a call, with the response's headers in it if nothing came before.
func trailers(alone bool, err error) []byte {
	if err == nil && !alone {
		return okTrailers
	}
	var b []byte
	if alone {
		b = append(b, responseHeaders...)
	}
	s := status.Convert(err)
	b = literal(b, "grpc-status", strconv.Itoa(int(s.Code())))
	if text := s.Message(); text != "" {
		b = literal(b, "grpc-message", encodeText(text[:min(len(text), maxText)]))
	}
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		p.Message = strings.ToValidUTF8(p.Message[:min(len(p.Message), maxText)], "")
		if raw, err := proto.Marshal(p); err == nil {
			b = literal(b, "grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(raw))
		}
	}
	if s.Code() == codes.Unimplemented {
		b = literal(b, "grpc-accept-encoding", "identity")
	}
	return b
}

// encodeText returns a text in grpc-message's percent-encoding.
func encodeText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; ' ' <= c && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// refusal returns the response to a request that is none of gRPC's.
func refusal(code string, err error) []byte {
	b := literal(nil, ":status", code)
	b = literal(b, "content-type", "application/grpc")
	s := status.Convert(err)
	b = literal(b, "grpc-status", strconv.Itoa(int(s.Code())))
	return literal(b, "grpc-message", encodeText(s.Message()))
}
