package localsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A Listener is a listening UNIX socket at a path, which may be bound again (Watch).
type Listener struct {
	// Path is where the socket is, its directory's symlinks resolved if Listen bound it.
	Path string
	// Warnings say what is not as safe as it could be about that place.
	Warnings []string

	mode fs.FileMode
	gid  int
	own  bool // nobody else can put a file there
	now  atomic.Pointer[net.UnixListener]

	mu     sync.Mutex
	closed bool
	lock   *os.File    // nil if the service manager bound the socket
	made   os.FileInfo // what we put at Path, or the service manager; nil if that is not to be seen from here
	other  another     // what stands at Path in its place
}

// Inherited returns the Listener of a socket that the service manager bound at path. It may not be visible from here, but
// must not be where somebody else could replace it.
func Inherited(l *net.UnixListener, path string) (*Listener, error) {
	_, warnings, err := safepath.Dir(filepath.Dir(path), subject)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the socket of the service manager: %w", err)
	}
	s := InheritedAnywhere(l, path)
	s.Warnings = warnings
	return s, nil
}

// InheritedAnywhere is Inherited for a socket that somebody else may replace without harm.
func InheritedAnywhere(l *net.UnixListener, path string) *Listener {
	s := &Listener{Path: path}
	s.now.Store(l)
	s.made, _ = os.Lstat(path)
	return s
}

// subject is what errors call the socket.
const subject = "the socket"

// Unix returns the listener of now.
func (s *Listener) Unix() *net.UnixListener { return s.now.Load() }

// Accept accepts the next connection, wherever the socket is bound by then.
func (s *Listener) Accept() (net.Conn, error) {
	for {
		l := s.now.Load()
		if c, err := l.Accept(); err == nil || l == s.now.Load() {
			return c, err
		}
	}
}

// Addr returns the socket's address.
func (s *Listener) Addr() net.Addr { return s.now.Load().Addr() }

// Close closes the listener, removes the socket if it is still the one that we put there, and lets go of the lock. The
// lock file stays: it says whose place this is. In an account's own directory, which may be anything, it goes as well:
// who has opened it meanwhile sees that it is not at its path any more.
func (s *Listener) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	err := s.now.Load().Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the service closed it
	}
	if s.lock == nil {
		return err
	}
	if now, lerr := os.Lstat(s.Path); lerr == nil && os.SameFile(now, s.made) {
		err = errors.Join(err, os.Remove(s.Path))
	}
	if s.own && isAt(s.lock, s.Path+lockSuffix) {
		err = errors.Join(err, os.Remove(s.Path+lockSuffix))
	}
	return errors.Join(err, s.lock.Close())
}

// Listen binds path by rule 23 of the security rules: every directory on the way is root's or ours, a lock file
// decides who is live, and nobody can connect before owner and mode are right. gid is -1 for our own.
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
	s := &Listener{Path: path, Warnings: warnings, mode: mode, gid: gid}
	if s.lock, err = lockFile(path + lockSuffix); err != nil {
		return nil, err
	}
	if err = replaceable(path); err == nil {
		err = s.bind()
	}
	if err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// ListenOwn is Listen for a socket that is this account's alone to serve: its directory is this account's as well, and nobody
// else may put anything there.
func ListenOwn(path string, mode fs.FileMode) (*Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	dir, _, err := safepath.Dir(filepath.Dir(path), subject)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	switch uid := uint32(os.Geteuid()); {
	case safepath.Owner(info) != uid:
		return nil, fmt.Errorf("the directory %s belongs to uid %d, not to this account (uid %d): use one of its own ('mkdir -m 0700')",
			dir, safepath.Owner(info), uid)
	case info.Mode()&0o022 != 0:
		return nil, fmt.Errorf("others may put files into the directory %s (mode %04o): take the right away with 'chmod go-w %s' "+
			"or use another directory", dir, info.Mode().Perm(), dir)
	}
	s, err := Listen(filepath.Join(dir, filepath.Base(path)), mode, -1)
	if err == nil {
		s.own = true
		s.Warnings = nil // they are of directories above, in which nobody else can replace this one
	}
	return s, err
}

// bind binds the socket, in the place of one that is replaceable. The lock is held.
//
// It is bound under its own name, because that is where systemd-tmpfiles looks (/proc/net/unix) before it removes what is
// old, and renaming does not change what is there. It is made with no permission for anybody: the kernel refuses whoever
// connects before listen(2), but who has looked the path up before owner and mode are right may get in after it.
func (s *Listener) bind() (err error) {
	if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what an earlier daemon left: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), s.Path)
	defer f.Close()
	// What the descriptor's mode lacks, the file lacks as well, whatever the umask.
	if err := unix.Fchmod(fd, 0); err != nil {
		return fmt.Errorf("a socket without permissions: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: s.Path}); err != nil {
		return fmt.Errorf("binding %s: %w", s.Path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(s.Path)
		}
	}()
	if err := os.Lchown(s.Path, -1, s.gid); err != nil {
		return fmt.Errorf("giving the socket to its group: the daemon must be root or a member of it: %w", err)
	}
	if err := os.Chmod(s.Path, s.mode); err != nil {
		return err
	}
	made, err := os.Lstat(s.Path)
	if err != nil {
		return err
	}
	const backlog = 1<<16 - 1 // the kernel takes net.core.somaxconn if that is less
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listening on %s: %w", s.Path, err)
	}
	l, err := net.FileListener(f) // has a copy of the descriptor
	if err != nil {
		return err
	}
	s.made = made
	if old := s.now.Swap(l.(*net.UnixListener)); old != nil {
		old.Close() // after the swap, which tells who accepts there that there is another
	}
	return nil
}

// lockSuffix is what the lock file's name has behind the socket's.
const lockSuffix = ".lock"

// lockFile takes the lock that says who is live; the kernel lets go of it when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	for {
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
					strings.TrimSuffix(path, lockSuffix))
			}
		}
		if err == nil && isAt(f, path) {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		// It was removed between the opening and the locking: whoever comes next would lock another.
	}
}

// isAt reports whether a file is the one at path.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, mine)
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
