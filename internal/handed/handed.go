// Package handed does bounded input and output on a connected TCP socket that another process has handed over.
//
// Such a socket shares its open file description with the giver, who may be hostile: he can switch it to blocking mode,
// set SO_LINGER, read from it or shut it down at any moment. So nothing here relies on O_NONBLOCK or changes it: every
// call carries MSG_DONTWAIT, waits are never in the call but for an epoll instance, and SO_LINGER is cleared before the
// descriptor is closed. Go's net package would set O_NONBLOCK, and block a thread in read(2) for as long as the giver
// likes.
//
// The epoll instance is the Go runtime's, which wakes the goroutine that waits and nobody else. That takes only what is
// in non-blocking mode when it is registered, and does not care about the mode after that. What is in blocking mode then
// waits for the instance of a Poller.
package handed

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotTCP is the cause of an Adopt that was given anything but a connected TCP stream socket.
var ErrNotTCP = errors.New("not a connected TCP stream socket")

// ErrInterrupted is returned by Read and Write for Interrupt. Read has taken nothing then.
var ErrInterrupted = errors.New("interrupted")

// ErrTaken is returned by Read and Write if the socket was ready again and again, and then was not.
var ErrTaken = errors.New("somebody else reads from the socket or writes to it")

// maxFruitless is after how many wakings in a row for nothing that is so. One or two are the runtime's; each of the rest
// costs us as much as it does whoever takes the bytes.
const maxFruitless = 32

// A Socket is a connected TCP stream socket that another process holds as well. One goroutine at a time may use it;
// Interrupt is for the others.
type Socket struct {
	fd   int
	file *os.File // owns fd
	raw  syscall.RawConn

	local, peer netip.AddrPort

	// Of one that the Go runtime does not wait for; else p is nil.
	p           *Poller
	id          uint64
	ready       chan struct{}
	interrupted atomic.Bool
}

// Adopt takes over fd, whatever it is: on error it is closed. The first call on it is getsockopt(SO_DOMAIN), which no
// file system answers, so that a descriptor of a FUSE file can't block us.
func (p *Poller) Adopt(fd int) (*Socket, error) {
	s := &Socket{fd: fd}
	if err := s.check(); err != nil {
		// Something else may linger as well. Not a socket: no effect.
		noLinger(fd)
		_ = unix.Close(fd)
		return nil, err
	}
	s.file = os.NewFile(uintptr(fd), "handed")
	var err error
	if s.raw, err = s.file.SyscallConn(); err == nil && s.file.SetDeadline(time.Time{}) != nil { // ErrNoDeadline
		err = s.adoptedBy(p)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Socket) adoptedBy(p *Poller) error {
	s.ready = make(chan struct{}, 1)
	id := p.add(func(uint32) { s.poke() })
	// EPOLLHUP and EPOLLERR come unasked: without EPOLLONESHOT, again and again, until the first wait.
	if err := p.control(unix.EPOLL_CTL_ADD, s.fd, unix.EPOLLONESHOT, id); err != nil {
		p.remove(id)
		return err
	}
	s.p, s.id = p, id
	return nil
}

func (s *Socket) check() error {
	domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_INET && domain != unix.AF_INET6 {
		return ErrNotTCP
	}
	for _, o := range [...]struct{ option, want int }{
		{unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_PROTOCOL, unix.IPPROTO_TCP}, {unix.SO_ACCEPTCONN, 0},
	} {
		if got, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, o.option); err != nil || got != o.want {
			return ErrNotTCP
		}
	}
	peer, err := unix.Getpeername(s.fd)
	if err != nil {
		return ErrNotTCP
	}
	s.peer = addrPort(peer)
	if local, err := unix.Getsockname(s.fd); err == nil {
		s.local = addrPort(local)
	}
	return nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Local returns the address at the giver's end.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Peer returns the address at the other end.
func (s *Socket) Peer() netip.AddrPort { return s.peer }

// Read waits for bytes and reads between 1 and len(b) of them. It returns io.EOF at the peer's end.
func (s *Socket) Read(b []byte) (n int, err error) {
	werr := s.wait(false, func() bool {
		for {
			if n, _, err = unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case werr != nil:
		return 0, werr
	case err != nil:
		return 0, fmt.Errorf("handed socket: %w", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes b, waiting for room, and returns how many bytes of it went: all, unless it returns an error.
func (s *Socket) Write(b []byte) (n int, err error) {
	for n < len(b) {
		var m int
		werr := s.wait(true, func() bool {
			m, err = s.Offer(b[n:])
			return m > 0 || err != nil
		})
		n += m
		if werr != nil {
			return n, werr
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Offer writes what of b there is room for, without waiting or being interrupted, and returns how much that is.
func (s *Socket) Offer(b []byte) (n int, err error) {
	for {
		n, err = unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, fmt.Errorf("handed socket: %w", err)
		}
	}
}

// wait calls try until it returns true, each time that the socket is ready to be read or written.
func (s *Socket) wait(write bool, try func() bool) error {
	left := maxFruitless
	done := func(uintptr) bool {
		if try() {
			return true
		}
		left--
		return left == 0
	}
	var err error
	switch {
	case s.p != nil:
		err = s.waitByPoller(write, done)
	case write:
		err = s.raw.Write(done)
	default:
		err = s.raw.Read(done)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		_ = s.file.SetDeadline(time.Time{})
		return ErrInterrupted
	case err == nil && left == 0:
		return ErrTaken
	}
	return err
}

func (s *Socket) waitByPoller(write bool, done func(uintptr) bool) error {
	mask := uint32(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT)
	if write {
		mask = unix.EPOLLOUT | unix.EPOLLONESHOT
	}
	for !s.interrupted.Swap(false) {
		if done(0) {
			return nil
		}
		if err := s.p.control(unix.EPOLL_CTL_MOD, s.fd, mask, s.id); err != nil {
			return err
		}
		<-s.ready
	}
	return ErrInterrupted
}

// Interrupt has the Read or Write that is under way return ErrInterrupted, or else the next one. It may be called at any
// time, by anybody, and does not block.
func (s *Socket) Interrupt() {
	if s.p == nil {
		_ = s.file.SetDeadline(time.Unix(1, 0))
		return
	}
	s.interrupted.Store(true)
	s.poke()
}

func (s *Socket) poke() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Close gives up our descriptor; the giver's stays open, and so does the connection.
func (s *Socket) Close() {
	if s.p != nil {
		// The registration belongs to the shared open file description: it would outlive our descriptor.
		_ = s.p.control(unix.EPOLL_CTL_DEL, s.fd, 0, s.id)
		s.p.remove(s.id)
	}
	// Had the giver set a lingering close and gone away, close would block for as long as he said.
	noLinger(s.fd)
	_ = s.file.Close() // which ends the runtime's registration
}

func noLinger(fd int) { _ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) }
