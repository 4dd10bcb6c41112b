package localsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A Listener is a listening UNIX socket at a path.
type Listener struct {
	*net.UnixListener
	// Path is where the socket is, its directory's symlinks resolved if Listen bound it.
	Path string
	// Warnings say what is not as safe as it could be about that place.
	Warnings []string
	lock     *os.File    // nil if the service manager bound the socket
	made     os.FileInfo // what we put at Path
}

// Inherited returns the Listener of a socket that the service manager bound at path. It may not be visible from here, but
// must not be where somebody else could replace it.
func Inherited(l *net.UnixListener, path string) (*Listener, error) {
	_, warnings, err := safepath.Dir(filepath.Dir(path), subject)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the socket of the service manager: %w", err)
	}
	return &Listener{UnixListener: l, Path: path, Warnings: warnings}, nil
}

// subject is what errors call the socket.
const subject = "the socket"

// Close closes the listener, removes the socket if it is still the one that we put there, and lets go of the lock. The
// lock file stays: removing it would let two daemons lock two files of the same name.
func (s *Listener) Close() error {
	err := s.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the service closed it
	}
	if s.lock == nil {
		return err
	}
	if now, lerr := os.Lstat(s.Path); lerr == nil && os.SameFile(now, s.made) {
		err = errors.Join(err, os.Remove(s.Path))
	}
	return errors.Join(err, s.lock.Close())
}

// Listen binds path by rule 23 of the security rules: every directory on the way is root's or ours, a lock file
// decides who is live, and the socket is renamed into place only when owner and mode are right. gid is -1 for our own.
func Listen(path string, mode fs.FileMode, gid int) (_ *Listener, err error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	dir, warnings, err := safepath.Dir(filepath.Dir(path), subject)
	if err != nil {
		return nil, err
	}
	// From here on the resolved directory is used, so that a symlink changed later moves nothing.
	path = filepath.Join(dir, filepath.Base(path))
	if len(path) > maxPath {
		return nil, fmt.Errorf("%s: the path with its symlinks resolved has %d bytes: use one of at most %d", path, len(path),
			maxPath)
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
		return nil, fmt.Errorf("giving the socket to its group: the daemon must be root or a member of it: %w", err)
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
	return &Listener{UnixListener: l, Path: path, Warnings: warnings, lock: lock, made: made}, nil
}

// lockFile takes the lock that says who is live; the kernel lets go of it when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock file of the socket: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !safepath.Ours(info)) {
		err = fmt.Errorf("the lock file %s is not a plain file of root's or of the daemon's: remove it", path)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another shared-altsd serves %s: stop it first, or give this one another socket",
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
		return fmt.Errorf("%s is there and is not a socket: remove it, or give another socket", path)
	}
	// Not Dial, which waits while the queue of a live server is full.
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
