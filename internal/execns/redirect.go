package execns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gRPC fixes the handshaker's port, and a listening socket at *:8080 and one at any loopback address's port 8080 keep
// each other away, whoever has them and to whatever device they are bound. So the command's hosts file has an address at
// which nothing can listen, and the kernel is made to ask exec about each connect(2) of the command's: exec connects
// those to that address to the relay, at a port that nobody else misses, and lets the kernel do all others. What passes
// the question by (io_uring, MSG_FASTOPEN, a system call of another architecture) reaches nobody.

// nowhere is an address to which TCP never connects: multicast.
var nowhere = net.IPv4(239, 192, 80, 80)

// errNoRedirect says that the kernel does not let the command be redirected.
var errNoRedirect = errors.New("connect(2) cannot be redirected here")

// auditArch is what the kernel calls the system calls of the architectures that have them as it is told below.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// A notification is struct seccomp_notif of linux/seccomp.h: a system call of a thread that waits for the answer.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// An answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

const (
	letKernel = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	idValid   = 0x40082102
)

// canRedirect reports whether this machine may have all that a redirection needs. That no filter of an outer program
// stands in its way shows only when it is made.
func canRedirect() bool {
	if auditArch[runtime.GOARCH] == 0 {
		return false
	}
	var sizes struct{ notif, resp, data uint16 }
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0,
		uintptr(unsafe.Pointer(&sizes))); errno != 0 || uintptr(sizes.notif) != unsafe.Sizeof(notification{}) ||
		uintptr(sizes.resp) != unsafe.Sizeof(answer{}) {
		return false
	}
	// SO_NETNS_COOKIE is the youngest of what is needed (Linux 5.14).
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if _, err := sameNetwork(fd); err != nil {
		return false
	}
	return mayTakeFrom(os.Getpid())
}

// mayTakeFrom reports whether the kernel, and what else guards processes from each other, lets this one take descriptors
// of that one.
func mayTakeFrom(pid int) bool {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, 0, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || err == unix.EBADF
}

// filterConnects makes the kernel ask about the connects of this thread, and of all that come from it, that may be by
// TCP, and returns the descriptor by which it asks.
func filterConnects() (int, error) {
	const (
		load           = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jump           = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret            = unix.BPF_RET | unix.BPF_K
		nr, arch, size = 0, 4, 16 + 2*8 // of struct seccomp_data; the architectures are little-endian
	)
	program := []unix.SockFilter{
		{Code: load, K: arch},
		{Code: jump, K: auditArch[runtime.GOARCH], Jf: 5},
		{Code: load, K: nr},
		{Code: jump, K: unix.SYS_CONNECT, Jf: 3},
		{Code: load, K: size},
		{Code: jump, K: unix.SizeofSockaddrInet4, Jt: 2},
		{Code: jump, K: unix.SizeofSockaddrInet6, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// Asked once, a thread waits for the answer through signals (Linux 5.19); before, it asks again.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	for _, more := range []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags|more, uintptr(unsafe.Pointer(&f)))
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINVAL || more == 0 {
			return 0, fmt.Errorf("%w: %w", errNoRedirect, errno)
		}
	}
	panic("not reached")
}

// A redirection answers the kernel's questions about the command's connects.
type redirection struct {
	asks   int // descriptor
	to     netip.AddrPort
	report func(kind string, err error)
}

// serve answers until the last of those who ask has ended.
func (r *redirection) serve() {
	for {
		n := new(notification)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.asks), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
		switch errno {
		case 0:
			go r.answer(n)
		case unix.EINTR, unix.ENOENT: // who asked is gone
		default:
			r.report("redirect", fmt.Errorf("the command's connections are not redirected any more: %w", errno))
			return
		}
	}
}

func (r *redirection) answer(n *notification) {
	a := answer{id: n.id, flags: letKernel}
	if r.forHandshaker(n) {
		err := r.connect(n)
		if errno, ok := errors.AsType[unix.Errno](err); err == nil || ok {
			a.flags, a.errno = 0, -int32(errno)
		} else {
			// The kernel then says that the address cannot be reached.
			r.report("redirect", fmt.Errorf("a connection of the command's could not be redirected: %w", err))
		}
	}
	unix.Syscall(unix.SYS_IOCTL, uintptr(r.asks), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
}

// forHandshaker reports whether a connect is to the address and port that the command's hosts file and gRPC have for the
// handshaker. A program that changes the address meanwhile, in another thread, misleads itself.
func (r *redirection) forHandshaker(n *notification) bool {
	b := make([]byte, min(uint32(n.args[2]), unix.SizeofSockaddrInet6)) // not 0: the filter's sizes
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(n.args[1]), Len: len(b)}}
	if got, err := unix.ProcessVMReadv(int(n.pid), local, remote, 0); err != nil || got != len(b) {
		return false
	}
	if binary.BigEndian.Uint16(b[2:]) != handshakerPort {
		return false
	}
	switch {
	case binary.NativeEndian.Uint16(b) == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return net.IP(b[4:8]).Equal(nowhere)
	case binary.NativeEndian.Uint16(b) == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		return net.IP(b[8:24]).Equal(nowhere) // as IPv4 in IPv6
	}
	return false
}

// connect connects the socket, of which it gets a descriptor of its own, to the relay.
func (r *redirection) connect(n *notification) error {
	process, err := openProcess(int(n.pid))
	if err != nil {
		return err
	}
	defer unix.Close(process)
	// The number of a process that has ended may be another's by now, and memory and descriptor with it.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.asks), idValid, uintptr(unsafe.Pointer(&n.id))); errno != 0 {
		return errno
	}
	fd, err := unix.PidfdGetfd(process, int(n.args[0]), 0)
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	defer unix.Close(fd)
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return unix.ENETUNREACH // a resolver tries its addresses by datagram sockets
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(r.to.Port()), Addr: r.to.Addr().As4()}
	if family == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Port: int(r.to.Port()), Addr: netip.AddrFrom16(r.to.Addr().As16()).As16()}
	}
	// In a network namespace that others share, somebody else may listen at the relay's address.
	same, err := sameNetwork(fd)
	if err != nil {
		return err
	}
	if !same {
		return errors.New("it is in another network namespace than exec")
	}
	for {
		switch err = unix.Connect(fd, to); err {
		case unix.EINTR:
		case unix.EISCONN: // perhaps by us, if a signal kept the answer from arriving
			if peer, perr := unix.Getpeername(fd); perr == nil && sameAddress(peer, to) {
				return nil
			}
			return err
		default:
			return err
		}
	}
}

// sameNetwork reports whether the socket is in this process's network namespace.
func sameNetwork(fd int) (bool, error) {
	theirs, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return false, fmt.Errorf("SO_NETNS_COOKIE: %w", err)
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("a socket: %w", err)
	}
	defer unix.Close(own)
	ours, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return ours == theirs, err
}

func sameAddress(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

// openProcess returns a pidfd for the process of the thread.
func openProcess(thread int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Tgid:")); ok {
			pid, err := strconv.Atoi(string(bytes.TrimSpace(rest)))
			if err != nil {
				return 0, err
			}
			return unix.PidfdOpen(pid, 0)
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no Tgid", thread)
}
