package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Socket is a listening stream socket, UNIX or TCP, that the service manager bound and handed over
// (sd_listen_fds(3)).
type Socket struct {
	net.Listener
	Name   string // FileDescriptorName= of its unit
	number int    // from 1
}

// String returns what errors call the socket.
func (s Socket) String() string {
	return fmt.Sprintf("socket %d of the service manager (%q)", s.number, s.Name)
}

// firstFD is the first descriptor that the service manager passes.
const firstFD = 3

// Sockets takes over the sockets that the service manager passed, and clears the variables so that no child takes them
// for its own. What kind a socket must be, and where it may listen, is up to who uses it.
func Sockets() ([]Socket, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, nil
	}
	const maxSockets = 64
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("LISTEN_FDS=%q of the environment is not a number from 0 to %d", fds, maxSockets)
	}
	fdNames := strings.Split(names, ":")
	var list []Socket
	for i := range n {
		s := Socket{number: i + 1}
		if i < len(fdNames) {
			s.Name = fdNames[i]
		}
		if s.Listener, err = inherit(firstFD + i); err != nil {
			return nil, fmt.Errorf("%v: %w", s, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// inherit returns the listener of a descriptor, which it closes.
func inherit(fd int) (net.Listener, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "LISTEN_FDS")
	defer f.Close() // FileListener makes a copy
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return nil, errors.New("not a stream socket: use ListenStream= in the socket unit")
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, errors.New("not a listening socket: use Accept=no in the socket unit")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("neither a UNIX nor a TCP socket: give a path or an address in ListenStream=: %w", err)
	}
	if l, ok := l.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // the manager's
	}
	return l, nil
}
