package denylist

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A File is denied.policy while it is edited: nobody else does so at the same time.
type File struct {
	dir   string
	lock  *os.File
	files *daemon.DeniedFiles
	info  fs.FileInfo // nil if the file is not there yet
}

const (
	lockName  = ".denied.policy.lock" // apart from the file, which is replaced, and for root alone to open
	newName   = ".denied.policy.new"
	lockWait  = 10 * time.Second
	lockRetry = 20 * time.Millisecond
)

// Open locks and reads the file denied.policy of a directory. It may not be there yet; a symlink is refused.
func Open(dir string) (_ *File, err error) {
	f := new(File)
	if f.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if _, _, err := safepath.Dir(f.dir, daemon.DeniedFile); err != nil {
		return nil, err
	}
	path := filepath.Join(f.dir, lockName)
	if f.lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: only root may deny; use sudo", err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	for began := time.Now(); ; time.Sleep(lockRetry) {
		if err = unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(began) > lockWait {
			return nil, fmt.Errorf("somebody else edits %s: %w; try again", filepath.Join(f.dir, daemon.DeniedFile), err)
		}
	}
	info, err := os.Lstat(f.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a plain file, and a symlink is not edited: put the file itself there", f.path())
	default:
		f.info = info
	}
	if f.files, err = daemon.ReadDenied(f.dir); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) path() string { return filepath.Join(f.dir, daemon.DeniedFile) }

// Close lets others edit.
func (f *File) Close() { f.lock.Close() }

// There reports whether there is a file already.
func (f *File) There() bool { return f.files.Own }

// Data returns what is in the file, nothing if it is not there.
func (f *File) Data() []byte {
	if !f.files.Own {
		return nil
	}
	return f.files.Files[0].Data
}

// Write puts a text in the place of the file, whole or not at all, if the daemon would take it, and returns what takes it
// back. What somebody else writes meanwhile, with an editor, is not overwritten by either.
func (f *File) Write(data []byte) (back func() error, err error) {
	all := []policy.File{{Name: daemon.DeniedFile, Data: data}}
	if more := f.files.Files; f.files.Own {
		all = append(all, more[1:]...)
	} else {
		all = append(all, more...)
	}
	if _, err := policy.ParseDenied(all); err != nil {
		return nil, fmt.Errorf("the daemon would refuse it: %w", err)
	}
	old, had := bytes.Clone(f.Data()), f.info != nil
	if err := f.replace(data); err != nil {
		return nil, err
	}
	return func() error {
		if had {
			return f.replace(old)
		}
		if err := f.unchanged(); err != nil {
			return err
		}
		return errors.Join(os.Remove(f.path()), syncDir(f.dir))
	}, nil
}

// unchanged returns an error if the file is another than when it was read or written here.
func (f *File) unchanged() error {
	now, err := os.Lstat(f.path())
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.info == nil:
		return nil
	case err == nil && f.info != nil && os.SameFile(now, f.info) && now.Size() == f.info.Size() && now.ModTime().Equal(f.info.ModTime()):
		return nil
	}
	return fmt.Errorf("somebody else has changed %s in this moment: see what it says now, and try again", f.path())
}

// replace writes a new file beside the old one, with its owner and mode, and renames it into place.
func (f *File) replace(data []byte) (err error) {
	path := filepath.Join(f.dir, newName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // of one who did not get to the end
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	mode := fs.FileMode(0o644)
	if f.info != nil {
		mode = f.info.Mode().Perm()
		st := f.info.Sys().(*syscall.Stat_t)
		err = w.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = w.Chmod(mode)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	if err = f.unchanged(); err == nil {
		err = os.Rename(path, f.path())
	}
	if err != nil {
		return err
	}
	if f.info, err = os.Lstat(f.path()); err != nil {
		return err
	}
	return syncDir(f.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
