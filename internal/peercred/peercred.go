// Package peercred asks the kernel who is at the other end of a UNIX socket.
package peercred

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A Cred is what the kernel recorded of the peer when it connected: its effective uid and gid, and its process.
type Cred struct {
	// UID and GID are the effective ids at connect, as this process's user namespace sees them: an id that has no
	// mapping there shows as the overflow id.
	UID, GID uint32
	// PID is the process that connected. It may have ended since, and the number be used again: for logs only.
	PID int32
}

// FromConn reads SO_PEERCRED of the connection. What it gives never changes during the life of the connection, even if
// the peer changes its ids or passes the socket on.
func FromConn(c *net.UnixConn) (Cred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("peer credentials of the socket: %w", err)
	}
	var u *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) { u, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = optErr
	}
	if err != nil {
		return Cred{}, fmt.Errorf("peer credentials of the socket (SO_PEERCRED): %w", err)
	}
	return Cred{UID: u.Uid, GID: u.Gid, PID: u.Pid}, nil
}

// FromFD is FromConn for a descriptor.
func FromFD(fd int) (Cred, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Cred{}, fmt.Errorf("peer credentials of the socket (SO_PEERCRED): %w", err)
	}
	return Cred{UID: u.Uid, GID: u.Gid, PID: u.Pid}, nil
}
