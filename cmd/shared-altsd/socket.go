package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path of a socket, bytes: sun_path of unix(7) holds 108 with the final NUL, and the
// private name that the socket is bound under has one byte more.
const maxSocketPath = 106

// A localSocket is a listening UNIX socket at a path.
type localSocket struct {
	*net.UnixListener
	path     string
	warnings []string
	lock     *os.File    // nil if the service manager gave us the socket
	made     os.FileInfo // what we put at path
}

// Close closes the listener, removes the socket if it is still the one that we put there, and lets go of the lock. The
// lock file stays: removing it would let two daemons lock two files of the same name.
func (s *localSocket) Close() error {
	err := s.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the service closed it
	}
	if s.lock == nil {
		return err
	}
	if now, lerr := os.Lstat(s.path); lerr == nil && os.SameFile(now, s.made) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return errors.Join(err, s.lock.Close())
}

// listenLocal binds path by rule 23 of the security rules: every directory on the way is root's or ours, a lock file
// decides who is live, and the socket is renamed into place only when owner and mode are right. gid is -1 for our own.
func listenLocal(path string, mode fs.FileMode, gid int) (_ *localSocket, err error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	dir, warnings, err := safeDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	// From here on the resolved directory is used, so that a symlink changed later moves nothing.
	path = filepath.Join(dir, filepath.Base(path))
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: the path with its symlinks resolved has %d bytes: use one of at most %d", path, len(path),
			maxSocketPath)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := replaceable(path); err != nil {
		return nil, err
	}
	// The lock makes the private name ours alone; a daemon that was killed may have left one.
	private := path + "~"
	if err := os.Remove(private); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing what an earlier daemon left: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("binding %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			l.Close()
			os.Remove(private)
		}
	}()
	if err := os.Lchown(private, -1, gid); err != nil {
		return nil, fmt.Errorf("--socket-group: the daemon must be root or a member of the group: %w", err)
	}
	if err := os.Chmod(private, mode); err != nil {
		return nil, err
	}
	made, err := os.Lstat(private)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(private, path); err != nil {
		return nil, err
	}
	return &localSocket{UnixListener: l, path: path, warnings: warnings, lock: lock, made: made}, nil
}

func checkSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty: give one, such as /run/shared-altsd/socket")
	case path[0] == '@' || path[0] == 0:
		return fmt.Errorf("%q is an abstract name, which any user could take first: give a path in a directory of root's or "+
			"the daemon's", path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path: begin it with /", path)
	case strings.HasSuffix(path, "/") || filepath.Clean(path) != path:
		return fmt.Errorf("%q is not a plain path: write %s", path, filepath.Clean(path))
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path has %d bytes: a UNIX socket takes at most %d", len(path), maxSocketPath)
	}
	return nil
}

// safeDir resolves the symlinks of an absolute directory, one component at a time, and refuses one on which somebody
// else than root and the daemon could put another socket in place of ours. Sticky directories are taken with a
// warning.
func safeDir(dir string) (real string, warnings []string, err error) {
	const maxLinks = 40
	rest := strings.Split(strings.Trim(filepath.Clean(dir), "/"), "/")
	real = "/"
	links := 0
	for {
		warning, err := safeComponent(real)
		if err != nil {
			return "", nil, err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		// Go on to the next component that is a directory.
		for {
			if len(rest) == 0 || rest[0] == "" {
				return real, warnings, nil
			}
			if rest[0] == ".." {
				real, rest = filepath.Dir(real), rest[1:]
				continue
			}
			next := filepath.Join(real, rest[0])
			rest = rest[1:]
			info, err := os.Lstat(next)
			if err != nil {
				return "", nil, fmt.Errorf("the directory of the socket: %w: make it, owned by root or by the daemon", err)
			}
			if info.Mode()&fs.ModeSymlink == 0 {
				real = next
				break
			}
			if !ours(info) {
				return "", nil, fmt.Errorf("the symlink %s belongs to uid %d, who could turn it elsewhere: only root's and the "+
					"daemon's are followed", next, owner(info))
			}
			if links++; links > maxLinks {
				return "", nil, fmt.Errorf("%s: more than %d symlinks on the way", dir, maxLinks)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", nil, err
			}
			if filepath.IsAbs(target) {
				real = "/"
			}
			if target = strings.Trim(filepath.Clean(target), "/"); target != "" && target != "." {
				rest = append(strings.Split(target, "/"), rest...)
			}
		}
	}
}

// safeComponent checks one directory on the way to a socket.
func safeComponent(dir string) (warning string, err error) {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return "", fmt.Errorf("the directory of the socket: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory", dir)
	case !ours(info):
		return "", fmt.Errorf("the directory %s belongs to uid %d, who could replace the socket: use one whose "+
			"ancestors all belong to root or to the daemon (uid %d)", dir, owner(info), os.Geteuid())
	case info.Mode()&0o022 == 0:
		return "", nil
	case info.Mode()&fs.ModeSticky == 0:
		return "", fmt.Errorf("the directory %s may be written by others (mode %04o), who could replace the socket: "+
			"take the right away with 'chmod go-w %s' or use another directory", dir, info.Mode().Perm(), dir)
	}
	return fmt.Sprintf("others may create files in %s: while the daemon is down, somebody could serve in its place",
		dir), nil
}

// owner gives the uid of a file.
func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// ours reports whether a file belongs to root or to the daemon.
func ours(info fs.FileInfo) bool {
	return owner(info) == 0 || owner(info) == uint32(os.Geteuid())
}

// lockFile takes the lock that says who is live; the kernel lets go of it when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock file of the socket: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !ours(info)) {
		err = fmt.Errorf("the lock file %s is not a plain file of root's or of the daemon's: remove it", path)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another shared-altsd serves %s: stop it first, or give this one another --socket",
				strings.TrimSuffix(path, ".lock"))
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// replaceable reports whether what is at path may be replaced: nothing, or a socket that nobody serves.
func replaceable(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is not a socket: remove it, or give another --socket", path)
	}
	// Not Go's Dial, which waits while the backlog of a live server is full.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%s is served by another program (a daemon, or a socket unit of systemd): stop it first", path)
}

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
	if err := checkSocketPath(unixAddr.Name); err != nil {
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
