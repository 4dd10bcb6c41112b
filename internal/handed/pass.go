package handed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoDescriptor is returned by Receive for a message without exactly one descriptor.
var ErrNoDescriptor = errors.New("the message does not carry exactly one descriptor")

// Send writes b on c, with the descriptor of conn beside its first byte. b must not be empty.
func Send(c *net.UnixConn, b []byte, conn syscall.RawConn) error {
	var err error
	if cerr := conn.Control(func(fd uintptr) {
		var n int
		n, _, err = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
		if err == nil && n < len(b) {
			_, err = c.Write(b[n:])
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

// Receive reads up to len(b) bytes from c and the one descriptor that came with them. With none, or with more than one,
// it closes what came and returns ErrNoDescriptor.
func Receive(c *net.UnixConn, b []byte) (n, fd int, err error) {
	// Room for exactly one descriptor (CmsgSpace, being aligned, has room for two): the kernel drops further ones and says
	// so with MSG_CTRUNC.
	oob := make([]byte, unix.CmsgLen(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	fds := descriptors(oob[:oobn])
	if err == nil && n > 0 && len(fds) == 1 && flags&unix.MSG_CTRUNC == 0 {
		return n, fds[0], nil
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	if err != nil {
		return n, -1, fmt.Errorf("reading a descriptor: %w", err)
	}
	return n, -1, ErrNoDescriptor
}

// descriptors gives all descriptors in oob, so that those that nobody asked for can be closed.
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

// Peek waits for the first byte on c and gives it without taking it.
func Peek(c *net.UnixConn) (byte, error) {
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
