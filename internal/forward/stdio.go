package forward

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stdio is standard input and output as one connection. Both may be anything, and be others' as well, who are not to find
// them in another mode: they are waited for by poll, so that Close ends a Read and a Write under way.
type Stdio struct {
	in, out *os.File
	kind    uint32 // of out: the type in its mode
	wake    [2]*os.File

	users sync.RWMutex // who uses the descriptors, against who closes them
	once  sync.Once
}

// NewStdio makes one of a file to read and one to write, which it owns.
func NewStdio(in, out *os.File) (*Stdio, error) {
	s := &Stdio{in: in, out: out}
	var st unix.Stat_t
	if err := control(out, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	s.kind = st.Mode & unix.S_IFMT
	var err error
	if s.wake[0], s.wake[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	return s, nil
}

// Read returns what can be read, at least one byte, or waits for it.
func (s *Stdio) Read(b []byte) (n int, err error) {
	err = s.when(s.in, unix.POLLIN, func(fd int) error {
		n, err = unix.Read(fd, b)
		return err
	})
	switch {
	case err != nil:
		return 0, opError("read", err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of b.
func (s *Stdio) Write(b []byte) (n int, err error) {
	for n < len(b) {
		var m int
		err := s.when(s.out, unix.POLLOUT, func(fd int) (err error) {
			switch s.kind {
			case unix.S_IFSOCK:
				m, err = unix.SendmsgN(fd, b[n:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			case unix.S_IFREG:
				m, err = unix.Write(fd, b[n:])
			default: // a pipe that has room has it for so much, and would block for more
				m, err = unix.Write(fd, b[n:min(len(b), n+pipeBuf)])
			}
			return err
		})
		if err != nil {
			return n, opError("write", err)
		}
		n += m
	}
	return n, nil
}

const pipeBuf = 4096 // PIPE_BUF

// when calls do once the descriptor is ready, and again as long as it was not.
func (s *Stdio) when(f *os.File, events int16, do func(fd int) error) error {
	s.users.RLock()
	defer s.users.RUnlock()
	return control(f, func(fd int) error {
		return control(s.wake[0], func(wake int) error {
			for {
				fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(wake), Events: unix.POLLIN}}
				_, err := unix.Poll(fds, -1)
				switch {
				case fds[1].Revents != 0:
					return net.ErrClosed
				case err == nil:
					if err = do(fd); err != unix.EAGAIN && err != unix.EINTR {
						return err
					}
				case err != unix.EINTR && err != unix.EAGAIN:
					return err
				}
			}
		})
	})
}

// CloseWrite ends the output.
func (s *Stdio) CloseWrite() error {
	if s.kind == unix.S_IFSOCK { // which may be the input as well
		return opError("shutdown", control(s.out, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }))
	}
	return s.out.Close()
}

// Close closes both.
func (s *Stdio) Close() error {
	s.once.Do(func() {
		s.wake[1].Close() // after which the other end of the pipe is ready for ever
		s.users.Lock()
		defer s.users.Unlock()
		s.in.Close()
		s.out.Close()
		s.wake[0].Close()
	})
	return nil
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "stdio" }

// LocalAddr returns a name.
func (*Stdio) LocalAddr() net.Addr { return stdioAddr{} }

// RemoteAddr returns a name.
func (*Stdio) RemoteAddr() net.Addr { return stdioAddr{} }

// SetDeadline is not supported.
func (*Stdio) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline is not supported.
func (*Stdio) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline is not supported.
func (*Stdio) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// control calls do with a file's descriptor, whose mode it leaves alone.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := raw.Control(func(fd uintptr) { err = do(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

// opError says what was being done, unless nothing failed or it was ended.
func opError(op string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return err
	}
	return &net.OpError{Op: op, Net: "stdio", Err: os.NewSyscallError(op, err)}
}
