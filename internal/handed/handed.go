// Package handed does bounded input and output on a connected TCP socket that another process has handed over.
//
// Such a socket shares its open file description with the giver, who may be hostile: he can switch it to blocking mode,
// set SO_LINGER, read from it or shut it down at any moment. So nothing here relies on O_NONBLOCK or changes it: every
// call carries MSG_DONTWAIT, readiness comes from an epoll instance of our own, deadlines from timers of our own, and
// SO_LINGER is cleared before the descriptor is closed. Go's net package would block a thread in read(2) for as long as
// the giver likes.
package handed

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Wait says how long Read and Write wait: it returns nil once ready has given something, or else the error that they
// then return.
type Wait func(ready <-chan struct{}) error

// ErrNotTCP is the cause of an Adopt that was given anything but a connected TCP stream socket.
var ErrNotTCP = errors.New("not a connected TCP stream socket")

// A Poller waits for any number of sockets with one goroutine.
type Poller struct {
	file *os.File // the epoll instance, itself watched by the Go runtime: no thread blocks in epoll_wait
	raw  syscall.RawConn
	done chan struct{}

	mu      sync.Mutex
	sockets map[uint64]*Socket
	next    uint64
}

// NewPoller starts a Poller; Close ends it.
func NewPoller() (*Poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	// The flag on the epoll descriptor, ours alone, is what makes the Go runtime poll it.
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("epoll instance: %w", err)
	}
	p := &Poller{file: os.NewFile(uintptr(epfd), "epoll"), done: make(chan struct{}), sockets: make(map[uint64]*Socket)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("epoll instance: %w", err)
	}
	go p.run()
	return p, nil
}

// Close ends the poller's goroutine. Sockets still open are no longer woken; close them first.
func (p *Poller) Close() error {
	err := p.file.Close()
	<-p.done
	return err
}

func (p *Poller) run() {
	defer close(p.done)
	var events [64]unix.EpollEvent
	for {
		var n int
		err := p.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if err != nil {
			return // the poller was closed
		}
		p.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			if s := p.sockets[token(e)]; s != nil {
				select {
				case s.ready <- struct{}{}:
				default:
				}
			}
		}
		p.mu.Unlock()
	}
}

// The kernel hands 8 bytes back with an event; they carry a number of our own, never reused, since a descriptor is.
func event(mask uint32, id uint64) *unix.EpollEvent {
	return &unix.EpollEvent{Events: mask, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
}

func token(e unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// A Socket is a connected TCP stream socket that another process holds as well. One goroutine at a time may use it.
type Socket struct {
	p     *Poller
	fd    int
	id    uint64
	ready chan struct{}
	peer  netip.AddrPort
}

// Adopt takes over fd, whatever it is: on error it is closed. The first call on it is getsockopt(SO_DOMAIN), which no
// file system answers, so that a descriptor of a FUSE file can't block us.
func (p *Poller) Adopt(fd int) (*Socket, error) {
	s := &Socket{p: p, fd: fd, ready: make(chan struct{}, 1)}
	if err := s.check(); err != nil {
		s.closeFD()
		return nil, err
	}
	p.mu.Lock()
	p.next++
	s.id = p.next
	p.sockets[s.id] = s
	p.mu.Unlock()
	// EPOLLHUP and EPOLLERR come unasked: without EPOLLONESHOT, again and again, until the first wait.
	if err := s.control(unix.EPOLL_CTL_ADD, unix.EPOLLONESHOT); err != nil {
		p.mu.Lock()
		delete(p.sockets, s.id)
		p.mu.Unlock()
		s.closeFD()
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return s, nil
}

func (s *Socket) check() error {
	domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_INET && domain != unix.AF_INET6 {
		return ErrNotTCP
	}
	for option, want := range map[int]int{unix.SO_TYPE: unix.SOCK_STREAM, unix.SO_PROTOCOL: unix.IPPROTO_TCP,
		unix.SO_ACCEPTCONN: 0} {
		if got, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, option); err != nil || got != want {
			return ErrNotTCP
		}
	}
	peer, err := unix.Getpeername(s.fd)
	if err != nil {
		return ErrNotTCP
	}
	s.peer = addrPort(peer)
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

// Peer is the address at the other end.
func (s *Socket) Peer() netip.AddrPort { return s.peer }

// Read reads between 1 and len(b) bytes, waiting for them as wait says. It returns io.EOF at the peer's end.
func (s *Socket) Read(b []byte, wait Wait) (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT)
		switch {
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		}
		if err := s.again(err, unix.EPOLLIN|unix.EPOLLRDHUP, wait); err != nil {
			return 0, err
		}
	}
}

// Write writes all of b, waiting for room as wait says.
func (s *Socket) Write(b []byte, wait Wait) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == nil {
			b = b[n:]
			continue
		}
		if err := s.again(err, unix.EPOLLOUT, wait); err != nil {
			return err
		}
	}
	return nil
}

// again waits for readiness after EAGAIN; any other error is final.
func (s *Socket) again(err error, mask uint32, wait Wait) error {
	switch err {
	case unix.EINTR:
		return nil
	case unix.EAGAIN:
	default:
		return fmt.Errorf("handed socket: %w", err)
	}
	// An event that came late for an earlier wait would end this one too soon; that costs one turn, not correctness.
	if err := s.control(unix.EPOLL_CTL_MOD, mask|unix.EPOLLONESHOT); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return wait(s.ready)
}

func (s *Socket) control(op int, mask uint32) error {
	var err error
	if cerr := s.p.raw.Control(func(epfd uintptr) { err = unix.EpollCtl(int(epfd), op, s.fd, event(mask, s.id)) }); cerr != nil {
		return cerr
	}
	return err
}

// Close returns up our descriptor; the giver's stays open, and so does the connection.
func (s *Socket) Close() {
	// The registration belongs to the shared open file description: it would outlive our descriptor.
	_ = s.control(unix.EPOLL_CTL_DEL, 0)
	s.p.mu.Lock()
	delete(s.p.sockets, s.id)
	s.p.mu.Unlock()
	s.closeFD()
}

func (s *Socket) closeFD() {
	// Had the giver set a lingering close and gone away, close would block for as long as he said. Not a socket: no
	// effect.
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	_ = unix.Close(s.fd)
}
