package altscreds

import (
	"io"
	"net"
	"syscall"
)

// socketReader reads from a socket into a buffer that it takes only once there is something to read, so that an idle
// connection holds none.
type socketReader struct {
	raw syscall.RawConn // nil if the connection is no socket of package net

	// The arguments and results of attempt, which is made once so that a read allocates nothing.
	attempt          func(fd uintptr) bool
	size, head, tail int // of the buffer's beginning and end, those that stay free
	n                int
	buf              *[]byte
	err              error
}

func (s *socketReader) init(conn net.Conn) {
	// Other types that offer SyscallConn may decrypt, buffer or count what they read, which this would pass by.
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return // closed already: the ordinary Read will say so
	}
	s.raw, s.attempt = raw, s.try
}

// try is called by the runtime when the socket may be readable; false means wait.
func (s *socketReader) try(fd uintptr) bool {
	s.buf = getBuffer(s.size)
	for {
		s.n, s.err = syscall.Read(int(fd), (*s.buf)[s.head:len(*s.buf)-s.tail])
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.n > 0 && s.err == nil {
		return true
	}
	putBuffer(s.buf)
	s.buf, s.n = nil, 0
	if s.err == nil {
		s.err = io.EOF
	}
	return s.err != syscall.EAGAIN
}

// read waits for bytes and returns them, behind the head, in a buffer of getBuffer's, which holds at least size bytes, or
// an error.
func (s *socketReader) read(size int) (*[]byte, int, error) {
	s.size, s.buf, s.n, s.err = size, nil, 0, nil
	err := s.raw.Read(s.attempt)
	buf, n, readErr := s.buf, s.n, s.err
	s.buf = nil
	switch {
	case buf != nil:
		return buf, n, nil
	case err != nil:
		return nil, 0, err // the deadline, or closed
	case readErr != io.EOF:
		return nil, 0, &net.OpError{Op: "read", Err: readErr}
	}
	return nil, 0, io.EOF
}
