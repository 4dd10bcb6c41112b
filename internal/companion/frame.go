// Package companion carries requests of the daemon to a companion, and their answers, over a UNIX socket of which each end asks
// the kernel who the other is. What requests and answers say is the protocols' of the companions: docs/spec/companions.md.
package companion

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/handed"
)

const (
	// MaxBody is the most that a request or an answer has, bytes.
	MaxBody = 16 << 10

	lengthSize = 2
	idSize     = 4
	helloID    = 0

	// pause bounds what a peer may take for its hello, for the rest of a frame that it began, and to take an answer.
	pause = 10 * time.Second
)

// appendFrame adds a frame to b.
func appendFrame(b []byte, id uint32, body []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(idSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, body...)
}

// readFrame reads a frame, whose body is a slice of its own. For its first byte it waits as long as that takes.
func readFrame(conn net.Conn, r *bufio.Reader) (id uint32, body []byte, err error) {
	if _, err := r.Peek(1); err != nil {
		return 0, nil, err
	}
	conn.SetReadDeadline(time.Now().Add(pause))
	defer conn.SetReadDeadline(time.Time{})
	return parseFrame(r)
}

// parseFrame reads a frame. io.EOF says that nothing came.
func parseFrame(r io.Reader) (id uint32, body []byte, err error) {
	var head [lengthSize + idSize]byte
	if _, err := io.ReadFull(r, head[:lengthSize]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n < idSize || n > idSize+MaxBody {
		return 0, nil, fmt.Errorf("a frame of %d bytes, it must have %d to %d", n, idSize, idSize+MaxBody)
	}
	if _, err := io.ReadFull(r, head[lengthSize:]); err != nil {
		return 0, nil, cut(err)
	}
	body = make([]byte, n-idSize)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, cut(err)
	}
	return binary.BigEndian.Uint32(head[lengthSize:]), body, nil
}

// cut is err for who is inside a frame.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// greet says what is spoken here, and returns an error unless the other end says the same.
func greet(conn net.Conn, r *bufio.Reader, protocol string) error {
	conn.SetDeadline(time.Now().Add(pause))
	defer conn.SetDeadline(time.Time{})
	if _, err := conn.Write(appendFrame(nil, helloID, []byte(protocol))); err != nil {
		return err
	}
	id, body, err := parseFrame(r)
	switch {
	case err != nil:
		return fmt.Errorf("its hello: %w", err)
	case id != helloID || string(body) != protocol:
		return &helloError{said: string(body), want: protocol}
	}
	return nil
}

// A helloError says that the other end speaks something else.
type helloError struct{ said, want string }

func (e *helloError) Error() string {
	return fmt.Sprintf("the other end speaks %.64q, not %q: name the socket of that companion, of the same release as this program",
		e.said, e.want)
}

// takeNone keeps descriptors out of a connection, or of those of a listener: none is expected, and the closing of one that lingers
// would hold whoever reads. Before Linux 6.16 they cannot be kept out.
func takeNone(c syscall.Conn) error {
	if err := handed.TakeDescriptors(c, false); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
