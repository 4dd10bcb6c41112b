package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// Bounds on the files, bytes. Revocation lists of a large CA have millions of entries.
const (
	maxCredentialsSize = 1 << 20
	maxCASize          = 16 << 20
	maxCRLSize         = 64 << 20
)

// ReadConfigFile returns the content of a config file of at most max bytes: it names the files below, so that only root
// and the daemon may write it.
func ReadConfigFile(path string, max int64) ([]byte, error) {
	return readOwnFile(path, max, "could name other CAs")
}

// readTrustFile reads a file that decides whom this machine trusts.
func readTrustFile(path string, max int64) ([]byte, error) {
	return readOwnFile(path, max, "could add CAs or remove revocations")
}

// readOwnFile reads a file that only root and the daemon may write; harm is what others could do.
func readOwnFile(path string, max int64, harm string) ([]byte, error) {
	data, info, err := readPlain(path, max)
	if err != nil {
		return nil, err
	}
	if info.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("%s may be written by its group or everybody (mode %04o), who %s: 'chmod go-w %s'", path,
			info.Mode().Perm(), harm, path)
	}
	if !safepath.Ours(info) {
		return nil, fmt.Errorf("%s belongs to uid %d, who %s: 'chown root %s', or to the daemon's user", path,
			safepath.Owner(info), harm, path)
	}
	return data, nil
}

// ReadKeyFile returns the content of a file with certificates, a private key or both. A file with a key is refused if
// everybody may read it, others may write it, or somebody else than root and the daemon owns it. Group read is how a
// key is lent to the daemon's own group; for any other group there is a warning.
func ReadKeyFile(path string) (data []byte, warning string, err error) {
	data, info, err := readPlain(path, maxCredentialsSize)
	if err != nil {
		return nil, "", err
	}
	mode, gid := info.Mode().Perm(), int(info.Sys().(*syscall.Stat_t).Gid)
	switch {
	case mode&0o002 != 0:
		err = fmt.Errorf("%s may be written by everybody (mode %04o): 'chmod go-w %s'", path, mode, path)
	case !bytes.Contains(data, []byte("PRIVATE KEY-----")): // as in every kind of PEM key
	case mode&0o004 != 0:
		err = fmt.Errorf("%s holds a private key and may be read by everybody (mode %04o), who could then speak for every "+
			"account of this machine: 'chmod 0600 %s', and think of a new key", path, mode, path)
	case mode&0o020 != 0:
		err = fmt.Errorf("%s holds a private key and may be written by its group (mode %04o): 'chmod g-w %s'", path, mode,
			path)
	case !safepath.Ours(info):
		err = fmt.Errorf("%s holds a private key and belongs to uid %d: 'chown root %s', or to the daemon's user", path,
			safepath.Owner(info), path)
	case mode&0o040 != 0 && gid != 0 && gid != os.Getegid():
		warning = fmt.Sprintf("%s holds a private key and may be read by group %d, which is not the daemon's own", path, gid)
	}
	if err != nil {
		clear(data)
		return nil, "", err
	}
	return data, warning, nil
}

// readPlain reads a plain file of at most max bytes, and returns what it was when it was open. Nobody else than root and
// the daemon may be able to put another file in its place.
func readPlain(path string, max int64) ([]byte, os.FileInfo, error) {
	real, err := safepath.File(path)
	if err != nil {
		return nil, nil, fileError(err)
	}
	// O_NONBLOCK, so that a FIFO does not hold the daemon up; O_NOFOLLOW, since there was no symlink left.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, fileError(err)
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

// fileError adds the cure to the two errors that everybody meets.
func fileError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: give the right path, or make the file", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: let the daemon (uid %d) read it", err, os.Geteuid())
	}
	return err
}
