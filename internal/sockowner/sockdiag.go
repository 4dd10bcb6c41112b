package sockowner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpEstablished = 1 // of the kernel's include/net/tcp_states.h
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpListen      = 10
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY
	diagTCP        = 18 // TCPDIAG_GETSOCK, the first there was: sockets of both families
	diagTimeout    = 5 * time.Second
)

// sockID, diagRequest and diagMessage are struct inet_diag_sockid, inet_diag_req_v2 and inet_diag_msg of
// linux/inet_diag.h. Ports and addresses are in network byte order, all else in the machine's.
type sockID struct {
	sport, dport [2]byte
	src, dst     [16]byte
	ifIndex      uint32
	cookie       [2]uint32
}

type diagRequest struct {
	family, protocol, _, _ uint8
	states                 uint32
	id                     sockID
}

// A tcpDiagRequest is struct inet_diag_req.
type tcpDiagRequest struct {
	family, _, _, _ uint8
	id              sockID
	states, _       uint32
}

type diagMessage struct {
	family, state, timer, retrans uint8
	id                            sockID
	expires, rqueue, wqueue       uint32
	uid, inode                    uint32
}

// bytesOf returns v as the kernel reads it.
func bytesOf[T diagRequest | tcpDiagRequest](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// newSockID returns the identity of a TCP socket of the family of its addresses, seen from the end whose own address is
// src.
func newSockID(src, dst netip.AddrPort) sockID {
	var id sockID
	binary.BigEndian.PutUint16(id.sport[:], src.Port())
	binary.BigEndian.PutUint16(id.dport[:], dst.Port())
	copy(id.src[:], src.Addr().AsSlice())
	copy(id.dst[:], dst.Addr().AsSlice())
	id.cookie = [2]uint32{^uint32(0), ^uint32(0)} // INET_DIAG_NOCOOKIE
	return id
}

// familyOf returns the address family of a.
func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// lookup asks the kernel for the socket whose own end is src and whose other end is dst, which is ours, in one of the
// states.
func lookup(src, dst netip.AddrPort, states uint32) (Owner, error) {
	if src.Addr().Is4() != dst.Addr().Is4() || !OnLoopback(src.Addr()) || !OnLoopback(dst.Addr()) {
		return Owner{}, fmt.Errorf("%v to %v is not a loopback connection", src, dst)
	}
	req := diagRequest{family: familyOf(src.Addr()), protocol: unix.IPPROTO_TCP, states: states, id: newSockID(src, dst)}
	var body []byte
	err := askKernel(diagByFamily, unix.NLM_F_REQUEST, bytesOf(&req), func(answer []byte) (err error) {
		body, err = parseAnswer(answer)
		body = slices.Clone(body) // the next question may be under way
		return err
	}, func() bool { return true })
	if errors.Is(err, unix.ENOENT) {
		return Owner{}, fmt.Errorf("no socket at %v: %w", src, errors.Join(ErrNotAccepted, err))
	}
	if err != nil {
		return Owner{}, fmt.Errorf("asking the kernel for the owner of %v: %w", src, err)
	}
	return checkDiag(body, src, dst, states)
}

// checkDiag reads one inet_diag_msg. A lookup that finds no connected socket may give a listening one, and a socket in
// TIME_WAIT or already closed reports uid 0: so state, inode and all four parts of the address are checked here.
func checkDiag(body []byte, src, dst netip.AddrPort, states uint32) (Owner, error) {
	m, err := readDiag(body)
	if err != nil {
		return Owner{}, err
	}
	want := newSockID(src, dst)
	switch {
	case m.family == familyOf(src.Addr()):
	case m.family == unix.AF_INET6: // a socket of both families, as C-core makes them: the same addresses, mapped
		want.src, want.dst = src.Addr().As16(), dst.Addr().As16()
	default:
		return Owner{}, fmt.Errorf("sock_diag answered for address family %d", m.family)
	}
	switch {
	case m.state == tcpListen || m.state == tcpSynRecv: // there is a place where it will be
		return Owner{}, fmt.Errorf("the socket at %v is not connected (state %d): %w", src, m.state, ErrNotAccepted)
	case m.state > 31 || states>>m.state&1 == 0:
		return Owner{}, fmt.Errorf("the socket at %v is not connected (state %d)", src, m.state)
	case m.id.sport != want.sport || m.id.dport != want.dport || m.id.src != want.src || m.id.dst != want.dst:
		return Owner{}, fmt.Errorf("sock_diag answered for another socket than %v", src)
	case m.inode == 0 && m.state == tcpEstablished: // who closes a connection leaves this state
		return Owner{}, fmt.Errorf("the socket at %v is nobody's: %w", src, ErrNotAccepted)
	case m.inode == 0:
		return Owner{}, fmt.Errorf("the socket at %v is closed", src)
	}
	return Owner{UID: m.uid, inode: m.inode, cookie: m.id.cookie}, nil
}

// readDiag returns the inet_diag_msg that an answer begins with.
func readDiag(body []byte) (m diagMessage, err error) {
	if len(body) < int(unsafe.Sizeof(m)) {
		return m, errors.New("short answer from sock_diag")
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)), body)
	return m, nil
}

// A diagSocket is one by which the kernel is asked, one question at a time.
type diagSocket struct {
	fd  int
	seq uint32         // of the question last asked
	buf [32 << 10]byte // the kernel fills no more at a time
}

// diagSockets are kept for the next questions: to make one costs as much as an answer.
var diagSockets = make(chan *diagSocket, 4)

func takeDiagSocket() (*diagSocket, error) {
	select {
	case s := <-diagSockets:
		return s, nil
	default:
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	tv := unix.NsecToTimeval(int64(diagTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &diagSocket{fd: fd}, nil
}

// put keeps s, or closes it if more of an answer might come, or there are enough.
func (s *diagSocket) put(whole bool) {
	if whole {
		select {
		case diagSockets <- s:
			return
		default:
		}
	}
	unix.Close(s.fd)
}

// askKernel sends one request and gives take each datagram of the answer until done says that it is whole. An error of
// take ends the answer to a request that is not for a dump.
func askKernel(kind, flags uint16, req []byte, take func([]byte) error, done func() bool) error {
	s, err := takeDiagSocket()
	if err != nil {
		return err
	}
	whole := false
	defer func() { s.put(whole) }()
	s.seq++
	msg := append(make([]byte, unix.NLMSG_HDRLEN, 128), req...)
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], kind)
	binary.NativeEndian.PutUint16(msg[6:], flags)
	binary.NativeEndian.PutUint32(msg[8:], s.seq)
	if err := unix.Sendto(s.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, from, err := unix.Recvfrom(s.fd, s.buf[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			return errors.New("an answer that is not the kernel's")
		}
		if n < unix.NLMSG_HDRLEN || binary.NativeEndian.Uint32(s.buf[8:]) != s.seq {
			return errors.New("an answer of sock_diag's to something else")
		}
		if err := take(s.buf[:n]); err != nil {
			whole = flags&unix.NLM_F_DUMP == 0
			return err
		}
		if done() {
			whole = true
			return nil
		}
	}
}

// parseAnswer returns the body of a netlink answer to a request.
func parseAnswer(b []byte) ([]byte, error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return nil, errors.New("short answer from sock_diag")
	}
	size, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
	if size < unix.NLMSG_HDRLEN || int64(size) > int64(len(b)) {
		return nil, errors.New("short answer from sock_diag")
	}
	body := b[unix.NLMSG_HDRLEN:size]
	switch kind {
	case diagByFamily, diagTCP:
		return body, nil
	case unix.NLMSG_ERROR:
		if len(body) >= 4 {
			if errno := -int32(binary.NativeEndian.Uint32(body)); errno > 0 {
				return nil, syscall.Errno(errno)
			}
		}
	}
	return nil, fmt.Errorf("answer of type %d from sock_diag", kind)
}
