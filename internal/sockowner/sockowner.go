// Package sockowner asks the kernel whose socket is at the other end of a loopback TCP connection, and whose sockets listen
// at a loopback address.
package sockowner

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// An Owner is what the kernel knows of the socket at the other end. Two equal values mean the same socket: the cookie
// is never used twice while the machine runs.
type Owner struct {
	// UID is the account that made the socket, as this process's user namespace sees it: 65534, the overflow uid, stands
	// for every account that has no place in it.
	UID    uint32
	inode  uint32
	cookie [2]uint32
}

// ErrNotAccepted is that the program at the other end has not taken the connection yet: nobody owns that end so far.
var ErrNotAccepted = errors.New("the connection waits to be accepted")

// ends are the TCP states in which a connection's two ends may be.
type ends struct{ ours, theirs uint32 }

var (
	connectedEnds = ends{1 << tcpEstablished, 1 << tcpEstablished}
	halfEnds      = ends{1<<tcpEstablished | 1<<tcpCloseWait, 1<<tcpEstablished | 1<<tcpFinWait1 | 1<<tcpFinWait2}
)

// Lookup returns the owner of the socket at the other end of c, who may have sent his last byte already, as long as he
// has the socket open. Our own end must still be connected afterwards: then the other end has been c's peer all the
// time, and not a socket that took its address since.
func Lookup(c *net.TCPConn) (Owner, error) { return lookupEnds(c, halfEnds) }

// LookupEstablished is Lookup for a connection that nobody may have begun to end.
func LookupEstablished(c *net.TCPConn) (Owner, error) { return lookupEnds(c, connectedEnds) }

func lookupEnds(c *net.TCPConn, in ends) (Owner, error) {
	o, err := lookup(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()), in.theirs)
	if err != nil && !errors.Is(err, ErrNotAccepted) {
		return Owner{}, err
	}
	if err := connected(c, in.ours); err != nil {
		return Owner{}, err
	}
	return o, err
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// connected fails if c is in any other TCP state than these.
func connected(c *net.TCPConn, states uint32) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var infoErr error
	if err := raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return err
	}
	if infoErr != nil {
		return fmt.Errorf("TCP_INFO: %w", infoErr)
	}
	if states>>info.State&1 == 0 {
		return fmt.Errorf("the connection is ending (TCP state %d)", info.State)
	}
	return nil
}

// OnLoopback reports whether connections to addr stay on this machine whatever its routes are: it is a loopback address,
// or one of the interface lo.
func OnLoopback(addr netip.Addr) bool {
	addr = addr.Unmap()
	if addr.IsLoopback() || !addr.IsValid() || addr.Zone() != "" {
		return addr.IsLoopback()
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return false
	}
	has, err := lo.Addrs()
	if err != nil {
		return false
	}
	for _, a := range has {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr {
				return true
			}
		}
	}
	return false
}
