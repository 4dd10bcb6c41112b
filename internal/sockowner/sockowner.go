// Package sockowner asks the kernel whose socket is at the other end of a loopback TCP connection.
package sockowner

import (
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

// Lookup returns the owner of the socket at the other end of c. Our own end must still be connected afterwards: then
// the other end has been c's peer all the time, and not a socket that took its address since.
func Lookup(c *net.TCPConn) (Owner, error) {
	o, err := lookup(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()))
	if err != nil {
		return Owner{}, err
	}
	if err := connected(c); err != nil {
		return Owner{}, err
	}
	return o, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// connected fails if c is in any TCP state but ESTABLISHED.
func connected(c *net.TCPConn) error {
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
	if info.State != tcpEstablished {
		return fmt.Errorf("the connection is ending (TCP state %d)", info.State)
	}
	return nil
}
