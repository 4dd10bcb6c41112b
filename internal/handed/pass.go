package handed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// The local interface by which an application hands the daemon a connected socket. It shares the UNIX socket with the
// gRPC service: a connection that begins with Hello is ours, one that begins with "P" is HTTP/2. The daemon answers
// with the same bytes. Then the application sends requests, each once the one before was answered: a u32 length,
// big-endian, and a HandshakerReq with a start request, with the descriptor beside the first byte. The daemon answers
// each with a u32 length and an Answer, which has the result or the refusal.
const (
	// Hello begins a connection, 8 bytes.
	Hello = "salt-fd1"
	// MaxMessage is the most that a request or an answer may have, in bytes, without its length.
	MaxMessage = 128 << 10

	prefix = 4 // bytes of the length
)

// ErrNoDescriptor is returned by ReadRequest for a request without exactly one descriptor.
var ErrNoDescriptor = errors.New("the request does not carry exactly one descriptor")

// WriteRequest sends m on c, with the descriptor of conn beside its first byte.
func WriteRequest(c *net.UnixConn, m proto.Message, conn syscall.RawConn) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) {
		var n int
		if n, _, err = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil); err == nil && n < len(b) {
			_, err = c.Write(b[n:])
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

// WriteAnswer sends m on c.
func WriteAnswer(c *net.UnixConn, m proto.Message) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	defer clear(b) // it may hold a key
	_, err = c.Write(b)
	return err
}

func encode(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefix, 512), m)
	if err == nil && len(b) > prefix+MaxMessage {
		err = fmt.Errorf("the message has %d bytes, more than %d", len(b)-prefix, MaxMessage)
	}
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-prefix))
	return b, nil
}

// ReadRequest waits for a request and gives its message, still encoded, and its descriptor, which is then the caller's to
// close. Decoded, a message may take up some 80 times as much: that is the caller's to bound. Once a request has begun, the
// rest of it may take as long as rest says. With no descriptor, or more than one, it closes what came and returns
// ErrNoDescriptor. An error is final for c. It returns io.EOF if c ended before the request.
func ReadRequest(c *net.UnixConn, rest time.Duration) (message []byte, fd int, err error) {
	buf := make([]byte, 2048) // most requests whole
	n, fd, err := receive(c, buf)
	if err != nil {
		return nil, -1, err
	}
	if !whole(buf[:n]) {
		_ = c.SetReadDeadline(time.Now().Add(rest))
		defer c.SetReadDeadline(time.Time{})
	}
	message, err = readBody(c, buf, n)
	if err != nil {
		_ = unix.Close(fd)
		return nil, -1, err
	}
	return message, fd, nil
}

func whole(b []byte) bool {
	return len(b) >= prefix && int64(len(b)) >= prefix+int64(binary.BigEndian.Uint32(b))
}

// ReadAnswer reads an answer into m.
func ReadAnswer(c *net.UnixConn, m proto.Message) error {
	buf := make([]byte, 1024)
	defer clear(buf) // it may hold a key
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	body, err := readBody(c, buf, n)
	if err != nil {
		return err
	}
	return proto.Unmarshal(body, m)
}

// readBody completes a message of which n bytes are in buf. More bytes than the message has are an error, since neither
// side speaks before it was answered.
func readBody(c *net.UnixConn, buf []byte, n int) ([]byte, error) {
	if n < prefix {
		m, err := io.ReadFull(c, buf[n:prefix])
		if err != nil {
			return nil, unexpected(err)
		}
		n += m
	}
	size := prefix + int64(binary.BigEndian.Uint32(buf))
	switch {
	case size > prefix+MaxMessage:
		return nil, fmt.Errorf("a message of %d bytes, more than %d", size-prefix, MaxMessage)
	case int64(n) > size:
		return nil, errors.New("bytes after a message that was not answered yet")
	case size > int64(len(buf)):
		buf = append(make([]byte, 0, size), buf[:n]...)[:size]
	}
	if _, err := io.ReadFull(c, buf[n:size]); err != nil {
		return nil, unexpected(err)
	}
	return buf[prefix:size], nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func receive(c *net.UnixConn, b []byte) (n, fd int, err error) {
	// Room for exactly one descriptor (CmsgSpace, being aligned, has room for two): the kernel drops further ones and says
	// so with MSG_CTRUNC.
	oob := make([]byte, unix.CmsgLen(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	fds := descriptors(oob[:max(oobn, 0)])
	switch {
	case err == nil && n > 0 && len(fds) == 1 && flags&unix.MSG_CTRUNC == 0:
		return n, fds[0], nil
	case errors.Is(err, io.EOF) || err == nil && n == 0 && len(fds) == 0:
		err = io.EOF
	case err == nil:
		err = ErrNoDescriptor
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return n, -1, err
}

// descriptors returns all descriptors in oob, so that those that nobody asked for can be closed.
func descriptors(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// TakeDescriptors sets whether descriptors may be sent to a connection, or to those that a listener will accept (Linux
// 6.16 and later; errors.ErrUnsupported before). Where nobody expects one, the kernel would drop it in the middle of our
// read, and a socket that lingers holds the reading thread for as long as its giver has said.
func TakeDescriptors(c syscall.Conn, on bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	value := 0
	if on {
		value = 1
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, value) })
	switch {
	case cerr != nil:
		return cerr
	case err == unix.ENOPROTOOPT:
		return fmt.Errorf("SO_PASSRIGHTS: %w", errors.ErrUnsupported)
	case err != nil:
		return fmt.Errorf("SO_PASSRIGHTS: %w", err)
	}
	return nil
}

// Peek waits for the first byte on a connection and gives it without taking it. It returns io.EOF at its end.
func Peek(c syscall.Conn) (byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	cerr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case err != nil:
		return 0, fmt.Errorf("recv: %w", err)
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}

// PeekUntil waits until enough says that what has come on a connection is enough, or until there is no more room in b,
// and reads it without taking it. It returns how much there is, and io.EOF with it if that is all that will come.
func PeekUntil(c syscall.Conn, b []byte, enough func([]byte) bool) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Read(func(fd uintptr) bool {
		all := ended(fd)
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case err != nil:
			return true
		case n == 0:
			err = io.EOF
			return true
		case n == len(b) || enough(b[:n]):
			return true
		}
		if all {
			err = io.EOF
		}
		return all
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case err != nil && err != io.EOF:
		return 0, fmt.Errorf("recv: %w", err)
	}
	return n, err
}

// ended reports whether no more will come on a socket than what is there to be read.
func ended(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// Alive reports whether a connection on which nobody has to speak is still open and silent.
func Alive(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = err == unix.EAGAIN
	})
	return alive && err == nil
}
