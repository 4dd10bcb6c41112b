package handed

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Poller waits, with one goroutine and an epoll instance of our own, for what the Go runtime cannot be asked to wait
// for: sockets that their giver made blocking, and the end of a connection from which nobody reads.
type Poller struct {
	file *os.File // the epoll instance, itself watched by the Go runtime: no thread blocks in epoll_wait
	raw  syscall.RawConn
	done chan struct{}

	mu   sync.Mutex
	wake map[uint64]func(events uint32) // called under mu
	next uint64
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
	p := &Poller{file: os.NewFile(uintptr(epfd), "epoll"), done: make(chan struct{}), wake: make(map[uint64]func(uint32))}
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
			if wake := p.wake[token(e)]; wake != nil {
				wake(e.Events)
			}
		}
		p.mu.Unlock()
	}
}

// Watch has gone called, beside whatever goes on, when the other end of c no longer sends: closed says whether it is
// closed, or else only that no more can be received (shutdown(2), by either end). Gone may be called more than once,
// must not block, and is not called any more once stop has returned.
func (p *Poller) Watch(c *net.UnixConn, gone func(closed bool)) (stop func(), err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Not EPOLLIN: what is received wakes nobody here.
	id := p.add(func(events uint32) { gone(events&(unix.EPOLLHUP|unix.EPOLLERR) != 0) })
	stop = func() {
		p.remove(id)
		_ = raw.Control(func(fd uintptr) { _ = p.control(unix.EPOLL_CTL_DEL, int(fd), 0, id) })
	}
	cerr := raw.Control(func(fd uintptr) { err = p.control(unix.EPOLL_CTL_ADD, int(fd), unix.EPOLLRDHUP|unix.EPOLLET, id) })
	if err == nil {
		err = cerr
	}
	if err != nil {
		p.remove(id)
		return nil, err
	}
	return stop, nil
}

func (p *Poller) add(wake func(events uint32)) (id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.wake[p.next] = wake
	return p.next
}

func (p *Poller) remove(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wake, id)
}

func (p *Poller) control(op, fd int, mask uint32, id uint64) error {
	var err error
	if cerr := p.raw.Control(func(epfd uintptr) { err = unix.EpollCtl(int(epfd), op, fd, event(mask, id)) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// The kernel hands 8 bytes back with an event; they carry a number of our own, never reused, since a descriptor is.
func event(mask uint32, id uint64) *unix.EpollEvent {
	return &unix.EpollEvent{Events: mask, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
}

func token(e unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }
