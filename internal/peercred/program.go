package peercred

import (
	"bytes"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// maxProgram bounds the name of a program, bytes; the kernel keeps 15.
const maxProgram = 32

// Program returns the name of the process at the other end of c, of which cred was read: the base name of what it
// executed, cut to 15 bytes, or what it calls itself since. It is the peer's word, so whatever is not a plain character
// is a question mark in it. It is empty if it cannot be read, or if it may be that of a later process with the same
// number.
//
// It is /proc/PID/comm, which never waits: the command line and the environment are memory of the peer's, who can make
// whoever reads them wait, and the executable's path is for those who may trace the peer.
func Program(c *net.UnixConn, cred Cred) string {
	raw, err := c.SyscallConn()
	if err != nil || cred.PID <= 0 {
		return ""
	}
	pidfd := -1
	err = raw.Control(func(fd uintptr) {
		if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			pidfd = p
		}
	})
	if err != nil {
		return ""
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	name, owner := comm(cred.PID)
	if pidfd >= 0 && !runs(pidfd) || pidfd < 0 && owner != cred.UID {
		return ""
	}
	return name
}

// runs reports whether a process has not ended, so that its number was nobody else's until now.
func runs(pidfd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return n == 0 && err == nil
}

// comm returns the name of a process and its uid.
func comm(pid int32) (name string, owner uint32) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/comm", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0
	}
	defer unix.Close(fd)
	b := make([]byte, maxProgram)
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", 0
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", 0
	}
	return plain(bytes.TrimSuffix(b[:n], []byte("\n"))), st.Uid
}

// plain returns b with all but visible ASCII that needs no quotes replaced.
func plain(b []byte) string {
	out := bytes.Clone(b)
	for i, c := range out {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '=' {
			out[i] = '?'
		}
	}
	return string(out)
}
