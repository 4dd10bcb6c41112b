package sockowner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxListeners bounds the sockets that may listen at one port: a server has one for each of its processes.
	maxListeners = 1024
	diagV6Only   = 11 // INET_DIAG_SKV6ONLY, which the kernel tells of each IPv6 socket that listens
)

// Listeners returns every socket to which the kernel might give a connection to addr: those that listen at this very
// address or at all of them, IPv6 ones that take IPv4 as well, and all of a group of SO_REUSEPORT. They are sorted, so that
// two answers are equal if nothing has changed.
func Listeners(addr netip.AddrPort) ([]Owner, error) {
	to := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	id := sockID{cookie: [2]uint32{^uint32(0), ^uint32(0)}}
	binary.BigEndian.PutUint16(id.sport[:], to.Port())
	var list []Owner
	var err error
	if to.Addr().Is4() {
		// The kernel goes through all its places for sockets that listen, at which it is asked once for both families.
		req := tcpDiagRequest{family: unix.AF_INET, id: id, states: 1 << tcpListen}
		list, err = listenersOf(diagTCP, bytesOf(&req), to)
	} else {
		req := diagRequest{family: unix.AF_INET6, protocol: unix.IPPROTO_TCP, id: id, states: 1 << tcpListen}
		list, err = listenersOf(diagByFamily, bytesOf(&req), to)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the kernel who listens at %v: %w", to, err)
	}
	slices.SortFunc(list, func(a, b Owner) int { return slices.Compare(a.cookie[:], b.cookie[:]) })
	return list, nil
}

func listenersOf(kind uint16, req []byte, to netip.AddrPort) (list []Owner, err error) {
	done := false
	err = askKernel(kind, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, req, func(answer []byte) error {
		last, err := eachAnswer(answer, func(body []byte) error {
			o, takes, err := checkListener(body, to)
			if takes {
				list = append(list, o)
			}
			if len(list) > maxListeners {
				return fmt.Errorf("more than %d sockets", maxListeners)
			}
			return err
		})
		done = last
		return err
	}, func() bool { return done })
	return list, err
}

// checkListener reads one inet_diag_msg and says whether its socket might take a connection to to.
func checkListener(body []byte, to netip.AddrPort) (o Owner, takes bool, err error) {
	m, err := readDiag(body)
	if err != nil || m.state != tcpListen || binary.BigEndian.Uint16(m.id.sport[:]) != to.Port() {
		return Owner{}, false, err
	}
	var at netip.Addr
	switch m.family {
	case unix.AF_INET:
		at = netip.AddrFrom4([4]byte(m.id.src[:4]))
	case unix.AF_INET6:
		at = netip.AddrFrom16(m.id.src).Unmap()
	default:
		return Owner{}, false, fmt.Errorf("sock_diag answered for address family %d", m.family)
	}
	switch {
	case at == to.Addr():
	case !at.IsUnspecified() || at.Is4() && to.Addr().Is6():
		return Owner{}, false, nil
	case at.Is6() && to.Addr().Is4() && v6Only(body[unsafe.Sizeof(m):]):
		return Owner{}, false, nil
	}
	return Owner{UID: m.uid, inode: m.inode, cookie: m.id.cookie}, true, nil
}

// v6Only reports whether the attributes say that an IPv6 socket takes no IPv4; where they say nothing it may.
func v6Only(attrs []byte) bool {
	for len(attrs) >= 4 {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if size < 4 || size > len(attrs) {
			return false
		}
		if kind == diagV6Only && size > 4 {
			return attrs[4] == 1
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return false
}

// eachAnswer gives take the bodies of the messages in a datagram of a netlink dump, and reports whether it is the last.
func eachAnswer(b []byte, take func(body []byte) error) (last bool, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return true, errors.New("short answer from sock_diag")
		}
		size, kind, flags := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if size < unix.NLMSG_HDRLEN || int64(size) > int64(len(b)) {
			return true, errors.New("short answer from sock_diag")
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			return true, fmt.Errorf("the sockets changed meanwhile: %w", syscall.EAGAIN)
		}
		if kind == unix.NLMSG_DONE {
			if size >= unix.NLMSG_HDRLEN+4 {
				if errno := -int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); errno > 0 {
					return true, syscall.Errno(errno)
				}
			}
			return true, nil
		}
		body, err := parseAnswer(b[:size])
		if err != nil {
			return true, err
		}
		if err := take(body); err != nil {
			return true, err
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}
