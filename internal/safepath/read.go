package safepath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Read reads a plain file of at most max bytes, and returns what it was when it was open. Nobody else than root and this
// account may be able to put another file in its place.
func Read(path string, max int64) ([]byte, fs.FileInfo, error) {
	real, err := File(path)
	if err != nil {
		return nil, nil, cured(err)
	}
	// O_NONBLOCK, so that a FIFO does not hold the program up; O_NOFOLLOW, since there was no symlink left.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, cured(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a plain file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(data)) > max {
		clear(data)
		return nil, nil, fmt.Errorf("%s has more than %d bytes: this is not the file that was meant", path, max)
	}
	return data, info, nil
}

// ReadOwn is Read of a file that only root and this account may write; harm is what others could do.
func ReadOwn(path string, max int64, harm string) ([]byte, fs.FileInfo, error) {
	data, info, err := Read(path, max)
	switch {
	case err != nil:
	case info.Mode()&0o022 != 0:
		err = fmt.Errorf("%s may be written by its group or everybody (mode %04o), who %s: 'chmod go-w %s'", path,
			info.Mode().Perm(), harm, path)
	case !Ours(info):
		err = fmt.Errorf("%s belongs to uid %d, who %s: 'chown root %s', or to this program's account", path, Owner(info), harm, path)
	}
	if err != nil {
		clear(data)
		return nil, nil, err
	}
	return data, info, nil
}

// cured adds the cure to the two errors that everybody meets.
func cured(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: give the right path, or make the file", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: let this account (uid %d) read it", err, os.Geteuid())
	}
	return err
}
