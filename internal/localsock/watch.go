package localsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// Watch looks whether the socket is still at its path, and if it is not, binds it again, unless somebody else has the place
// now: then there is another listener (Unix), and the one before is closed. done says what it did, "" for nothing; err, why
// nobody can connect at the path, nil if it is right there. It is to be called again and again.
func (s *Listener) Watch() (done string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return "", nil
	case s.lock == nil:
		return "", s.watchInherited()
	}
	held := isAt(s.lock, s.Path+lockSuffix)
	now, err := os.Lstat(s.Path)
	if held && err == nil && os.SameFile(now, s.made) {
		return "", nil
	}
	// The directory may be another one than it was.
	if _, _, err := safepath.Dir(filepath.Dir(s.Path), subject); err != nil {
		return "", err
	}
	if !held {
		lock, err := lockFile(s.Path + lockSuffix)
		if err != nil {
			return "", fmt.Errorf("the lock file of it was removed: %w", err)
		}
		s.lock.Close()
		s.lock, done = lock, "the socket's lock file had been removed, and was made again"
	}
	switch {
	case err == nil && os.SameFile(now, s.made):
		return done, nil
	case err == nil:
		if err := s.other.replaceable(s.Path, now); err != nil {
			return "", err
		}
		done = "a file that nobody serves was in the socket's place"
	case errors.Is(err, fs.ErrNotExist):
		done = "the socket's file had been removed"
	default:
		return "", err
	}
	if err := s.bind(); err != nil {
		return "", err
	}
	return done + ", and it was bound again", nil
}

// watchInherited is for a socket that cannot be bound again from here.
func (s *Listener) watchInherited() error {
	const cure = "restart its socket unit ('systemctl restart shared-altsd.socket'), which restarts the daemon as well; " +
		"connections that stand go on until then"
	now, err := os.Lstat(s.Path)
	switch {
	case err == nil && (s.made == nil || os.SameFile(now, s.made)):
		s.made = now // it may have come into sight
		return nil
	case err == nil:
		return fmt.Errorf("another file is in its place: remove that, if nobody needs it, and %s", cure)
	case s.made != nil && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its file was removed, and only the service manager could bind it again: %s", cure)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(filepath.Dir(s.Path)); err == nil {
			return fmt.Errorf("its file is not there (unless this service sees a directory of its own there, as by PrivateTmp=): %s",
				cure)
		}
	}
	return nil // not to be seen from here
}

// another is what stands in the place of a socket.
type another struct {
	info  os.FileInfo
	asked time.Time
	err   error // why it may not be replaced
}

// askAgain is how often what stands in the socket's place is asked whether somebody serves it, since that is a connection
// for whoever does.
const askAgain = 10 * time.Second

// replaceable returns why the file at path may not be replaced.
func (a *another) replaceable(path string, now os.FileInfo) error {
	if a.info != nil && os.SameFile(a.info, now) && time.Since(a.asked) < askAgain {
		return a.err
	}
	a.info, a.asked, a.err = now, time.Now(), nil
	if !safepath.Ours(now) {
		a.err = fmt.Errorf("a file of uid %d is in the socket's place: remove it", safepath.Owner(now))
	} else if err := replaceable(path); err != nil {
		a.err = fmt.Errorf("another file is in the socket's place: %w", err)
	}
	return a.err
}
