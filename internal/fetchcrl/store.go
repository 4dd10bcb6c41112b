package fetchcrl

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/wholefile"
)

// Files of the directory that are no lists; what is being written has a name that does not end as a list's.
const (
	lockName  = ".lock"
	stateName = "fetch-crl.json"
	listEnd   = ".crl"
)

// A store is the directory of lists. One run at a time has it.
type store struct {
	dir  string
	lock *os.File
}

func openStore(dir string) (*store, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--into: %w: make the directory, this account's own, and let it write there", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("--into: another run has %s under way (%w): let it end", dir, err)
	}
	s := &store{dir, f}
	entries, err := os.ReadDir(dir)
	for _, e := range entries { // of a run that did not get to the end
		if strings.HasPrefix(e.Name(), wholefile.TempStart) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("--into: %w: make the directory this account's own", err)
	}
	return s, nil
}

func (s *store) close() { s.lock.Close() }

// fileName returns the name of a list's file: the same for all lists of its CA's key for the same certificates.
func fileName(l *certbind.List) string {
	id := l.Mark.ID()
	return hex.EncodeToString(id[:16]) + listEnd
}

// isListName reports whether name is one that fileName returns.
func isListName(name string) bool {
	digits, ok := strings.CutSuffix(name, listEnd)
	_, err := hex.DecodeString(digits)
	return ok && len(digits) == 32 && err == nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// names returns the lists that are there.
func (s *store) names() (names []string, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), listEnd) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// An unreadError says that something is there, and not what.
type unreadError struct{ error }

func (e unreadError) Unwrap() error { return e.error }

// read reads a list that is there, and verifies it.
func (s *store) read(name string, issuers []*x509.Certificate) (*certbind.List, error) {
	data, err := readFile(filepath.Join(s.dir, name), certbind.MaxListSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = unreadError{err}
	}
	if err != nil {
		return nil, err
	}
	return certbind.ReadList(data, issuers)
}

func (s *store) write(name string, data []byte) error {
	return wholefile.Replace(filepath.Join(s.dir, name), data)
}

// readFile reads a plain file of at most max bytes. Of the way to it nothing is asked, as safepath.Read does: the directory is this
// account's own, and each list in it is verified again.
func readFile(path string, max int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err == nil && len(data) > max {
		err = fmt.Errorf("%s has more than %d bytes", path, max)
	}
	return data, err
}

// encode returns certificates in PEM.
func encode(certs []*x509.Certificate) (text []byte) {
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}
