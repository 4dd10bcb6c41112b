package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// groupID gives the gid of a group's name or number.
func groupID(name string) (int, error) {
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("no group %q in the system's database: create it with groupadd, or give a number", name)
	}
	return strconv.Atoi(g.Gid)
}

// An inherited socket is one that the service manager bound and handed over (sd_listen_fds(3)).
type inherited struct {
	*net.UnixListener
	name string // FileDescriptorName= of the socket unit
	path string
}

// metricsName is the FileDescriptorName= of a socket unit for metrics.
const metricsName = "metrics"

// inheritedSockets takes over the sockets that the service manager passed, checks that each is a listening UNIX stream
// socket with a path, and clears the variables so that no child takes them for its own. One may be for metrics.
func inheritedSockets() (list []inherited, metrics net.Listener, err error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, nil, nil
	}
	const first, most = 3, 64
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > most {
		return nil, nil, fmt.Errorf("LISTEN_FDS=%q of the environment is not a number from 0 to %d", fds, most)
	}
	fdNames := strings.Split(names, ":")
	for i := range n {
		s := inherited{}
		if i < len(fdNames) {
			s.name = fdNames[i]
		}
		if s.name == metricsName && metrics == nil {
			if metrics, err = inheritMetrics(first + i); err != nil {
				return nil, nil, fmt.Errorf("socket %d of the service manager (%q): %w", i+1, s.name, err)
			}
			continue
		}
		if s.UnixListener, s.path, err = inherit(first + i); err != nil {
			return nil, nil, fmt.Errorf("socket %d of the service manager (%q): %w", i+1, s.name, err)
		}
		list = append(list, s)
	}
	return list, metrics, nil
}

func inherit(fd int) (*net.UnixListener, string, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "LISTEN_FDS")
	defer f.Close() // FileListener makes a copy
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return nil, "", errors.New("not a stream socket: use ListenStream= in the socket unit")
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, "", errors.New("not a listening socket: use Accept=no in the socket unit")
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return nil, "", err
	}
	unixAddr, ok := addr.(*unix.SockaddrUnix)
	if !ok {
		return nil, "", errors.New("not a UNIX socket: give a path in ListenStream=, because only there the kernel vouches " +
			"for the caller")
	}
	if err := localsock.CheckPath(unixAddr.Name); err != nil {
		return nil, "", err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, "", err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	return ul, unixAddr.Name, nil
}
