package sockowner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpEstablished = 1
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY
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
	family, protocol, ext, pad uint8
	states                     uint32
	id                         sockID
}

type diagMessage struct {
	family, state, timer, retrans uint8
	id                            sockID
	expires, rqueue, wqueue       uint32
	uid, inode                    uint32
}

// newSockID returns the identity of a TCP/IPv4 socket, seen from the end whose own address is src.
func newSockID(src, dst netip.AddrPort) sockID {
	var id sockID
	binary.BigEndian.PutUint16(id.sport[:], src.Port())
	binary.BigEndian.PutUint16(id.dport[:], dst.Port())
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(id.src[:], s[:])
	copy(id.dst[:], d[:])
	id.cookie = [2]uint32{^uint32(0), ^uint32(0)} // INET_DIAG_NOCOOKIE
	return id
}

// lookup asks the kernel for the socket whose own end is src and whose other end is dst, which is ours.
func lookup(src, dst netip.AddrPort) (Owner, error) {
	if !src.Addr().Is4() || !dst.Addr().Is4() || !src.Addr().IsLoopback() || !dst.Addr().IsLoopback() {
		return Owner{}, fmt.Errorf("%v to %v is not an IPv4 loopback connection", src, dst)
	}
	req := diagRequest{family: unix.AF_INET, protocol: unix.IPPROTO_TCP, states: 1 << tcpEstablished,
		id: newSockID(src, dst)}
	body, err := askKernel(&req)
	if err != nil {
		return Owner{}, fmt.Errorf("asking the kernel for the owner of %v: %w", src, err)
	}
	return checkDiag(body, src, dst)
}

// checkDiag reads one inet_diag_msg. A lookup that finds no connected socket may give a listening one, and a socket in
// TIME_WAIT or already closed reports uid 0: so state, inode and all four parts of the address are checked here.
func checkDiag(body []byte, src, dst netip.AddrPort) (Owner, error) {
	var m diagMessage
	if len(body) < int(unsafe.Sizeof(m)) {
		return Owner{}, errors.New("short answer from sock_diag")
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)), body)
	want := newSockID(src, dst)
	switch m.family {
	case unix.AF_INET:
	case unix.AF_INET6: // a socket of both families, as C-core makes them: the same addresses, mapped
		want.src, want.dst = src.Addr().As16(), dst.Addr().As16()
	default:
		return Owner{}, fmt.Errorf("sock_diag answered for address family %d", m.family)
	}
	switch {
	case m.state != tcpEstablished:
		return Owner{}, fmt.Errorf("the socket at %v is not connected (state %d)", src, m.state)
	case m.id.sport != want.sport || m.id.dport != want.dport || m.id.src != want.src || m.id.dst != want.dst:
		return Owner{}, fmt.Errorf("sock_diag answered for another socket than %v", src)
	case m.inode == 0:
		return Owner{}, fmt.Errorf("the socket at %v is closed", src)
	}
	return Owner{UID: m.uid, inode: m.inode, cookie: m.id.cookie}, nil
}

// askKernel sends one request over a netlink socket of its own and returns the body of the answer.
func askKernel(req *diagRequest) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(diagTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, err
	}
	msg := make([]byte, unix.NLMSG_HDRLEN+int(unsafe.Sizeof(*req)))
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], diagByFamily)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	copy(msg[unix.NLMSG_HDRLEN:], unsafe.Slice((*byte)(unsafe.Pointer(req)), unsafe.Sizeof(*req)))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return nil, errors.New("an answer that is not the kernel's")
	}
	return parseAnswer(buf[:n])
}

// parseAnswer returns the body of a netlink answer to one SOCK_DIAG_BY_FAMILY request.
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
	case diagByFamily:
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
