package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A directory of --crl belongs to whoever fetches lists, an account that is trusted in nothing: what it puts there is read
// within bounds, counts only if a CA has signed it, and else is passed over, whatever it is.

const (
	// listEnding ends the names of lists in a directory; others are not read.
	listEnding = ".crl"
	// maxListFiles bounds those that are read, and maxListNames the names that are looked at to find them.
	maxListFiles, maxListNames = 256, 4096
	// maxListBytes bounds what is read of one directory.
	maxListBytes = 4 * certbind.MaxListSize
)

// findListDirs notes which of --crl are directories, for as long as the daemon runs: one that is gone is no file.
func (f *Files) findListDirs() {
	f.CRLs = slices.Clone(f.CRLs)
	for i := range f.CRLs {
		if info, err := os.Stat(f.CRLs[i].File); err == nil && info.IsDir() {
			f.CRLs[i].Dir = true
		}
	}
}

// listDirs returns the directories of lists.
func (f *Files) listDirs() (dirs []CRLFile) {
	for _, list := range f.CRLs {
		if list.Dir {
			dirs = append(dirs, list)
		}
	}
	return dirs
}

// isListDir reports whether a path is one of the directories of lists.
func (f *Files) isListDir(path string) bool {
	return slices.ContainsFunc(f.listDirs(), func(d CRLFile) bool { return d.File == path })
}

// inListDir reports whether a file is of one of the directories of lists.
func (f *Files) inListDir(file string) bool {
	return slices.ContainsFunc(f.listDirs(), func(d CRLFile) bool { return sameFile(filepath.Dir(file), d.File) })
}

// openListDir opens a directory of lists. Whose it is does not matter, but on the way to it nobody else may put another.
// The error is certain, which the directory's owner cannot bring about, or the second one, which he can.
func openListDir(path string) (dir *os.File, err, his error) {
	real, err := safepath.File(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
		return nil, nil, err
	case err != nil:
		return nil, err, nil
	}
	dir, his = os.OpenFile(real, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	return dir, nil, his
}

// A listFile is a file that may be a list.
type listFile struct {
	name string
	stat unix.Stat_t
	err  error // of stat
}

// listsIn returns the files of a directory, by its path in messages, that may be lists, and what is wrong with others: of more than are read, those
// of known, which are in force, before others, and the small before the large, so that no CA's lists, which whoever fetches
// them may bring in good faith, leave none for another's.
func listsIn(dir *os.File, path string, known map[string]bool) (files []listFile, wrong []certbind.PassedOver, err error) {
	all, err := dir.Readdirnames(maxListNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if len(all) > maxListNames {
		all = all[:maxListNames]
		wrong = append(wrong, certbind.PassedOver{Source: path,
			Why: fmt.Sprintf("it has more than %d files, and those beyond are not looked at: remove what is no list", maxListNames)})
	}
	for _, name := range all {
		switch {
		case !strings.HasSuffix(name, listEnding) || name[0] == '.':
		case !plainName(name):
			wrong = append(wrong, certbind.PassedOver{Source: fmt.Sprintf("%s/%+.80q", path, name),
				Why: "its name has other characters than letters, digits and ._-+=%@:, or more than 128"})
		default:
			f := listFile{name: name}
			f.err = unix.Fstatat(int(dir.Fd()), name, &f.stat, unix.AT_SYMLINK_NOFOLLOW)
			files = append(files, f)
		}
	}
	rank := func(f listFile) int {
		if known[filepath.Join(path, f.name)] {
			return 0
		}
		return 1
	}
	slices.SortFunc(files, func(a, b listFile) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.stat.Size, b.stat.Size), cmp.Compare(a.name, b.name))
	})
	if len(files) > maxListFiles {
		files = files[:maxListFiles]
		wrong = append(wrong, certbind.PassedOver{Source: path, Why: fmt.Sprintf("it has more than %d files *%s, and "+
			"those beyond are not read: remove what is no list", maxListFiles, listEnding)})
	}
	slices.SortFunc(wrong, func(a, b certbind.PassedOver) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Why, b.Why))
	})
	return files, wrong, nil
}

// plainName reports whether a name can stand in logs, metrics and messages as it is.
func plainName(name string) bool {
	return len(name) <= 128 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("._-+=%@:", r)
	})
}

// listDirsState is pathsState of the directories of lists, of the files that are read there.
func (f *Files) listDirsState(inForce *certbind.Trust) string {
	var b strings.Builder
	known := sources(inForce)
	for _, d := range f.listDirs() {
		dir, err, his := openListDir(d.File)
		if err = errors.Join(err, his); err != nil {
			fmt.Fprintf(&b, "%q %v\n", d.File, err)
			continue
		}
		files, wrong, err := listsIn(dir, d.File, known)
		slices.SortFunc(files, func(a, b listFile) int { return cmp.Compare(a.name, b.name) })
		fmt.Fprintf(&b, "%q %v %d\n", d.File, err, len(wrong))
		for _, l := range files {
			st := l.stat
			fmt.Fprintf(&b, "%q %d %d %d %d %v %v %v\n", l.name, st.Dev, st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim, l.err)
		}
		dir.Close()
	}
	return b.String()
}

// sources returns the files of the lists of a trust, none for nil.
func sources(t *certbind.Trust) map[string]bool {
	known := make(map[string]bool)
	if t != nil {
		for _, l := range t.CRLs() {
			known[l.Source] = true
		}
	}
	return known
}

// readList reads a file of a directory of lists.
func readList(dir *os.File, l listFile, max int64) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	if l.stat.Mode&unix.S_IFMT != unix.S_IFREG { // what is something else is not even opened
		return nil, errors.New("it is not a plain file")
	}
	fd, err := unix.Openat(int(dir.Fd()), l.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), l.name)
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a plain file")
	case info.Size() > certbind.MaxListSize:
		return nil, fmt.Errorf("it has more than %d bytes: if that is the list, have the CA divide it, or give it by --crl FILE",
			certbind.MaxListSize)
	case info.Size() > max:
		return nil, fmt.Errorf("the files of its directory have more than %d bytes together: remove those that are used no more",
			maxListBytes)
	}
	data := make([]byte, info.Size()+1)
	switch n, err := io.ReadFull(file, data); {
	case err == nil:
		return nil, errors.New("it grows while it is read")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return data[:n], nil
	default:
		return nil, err
	}
}

// offer adds the lists of the directories to a trust, and returns what is passed over there. inForce is nil at a start. The
// error is one of the way to a directory, which the administrator alone can have made.
func (f *Files) offer(t *certbind.Trust, chain [][]byte, marks certbind.Marks, inForce *certbind.Trust) (*certbind.Trust,
	[]certbind.PassedOver, error) {
	if len(f.listDirs()) == 0 {
		return t, nil, nil
	}
	var passed []certbind.PassedOver
	var certain error
	known := sources(inForce)
	files := func(yield func(certbind.CRLFile) bool) {
		for _, d := range f.listDirs() {
			if err := readListDir(d, known, yield, &passed); err != nil {
				certain = errors.Join(certain, fmt.Errorf("--crl: %w", err))
			}
		}
	}
	next, wrong := t.WithOffered(certbind.Offer{Files: files, Chain: chain, Marks: marks, InForce: inForce, Now: time.Now()})
	return next, append(passed, wrong...), certain
}

// readListDir yields the files of one directory.
func readListDir(d CRLFile, known map[string]bool, yield func(certbind.CRLFile) bool, passed *[]certbind.PassedOver) error {
	pass := func(source string, err error) {
		*passed = append(*passed, certbind.PassedOver{Source: source, Why: err.Error()})
	}
	dir, err, his := openListDir(d.File)
	if err != nil {
		return err
	}
	if his != nil {
		pass(d.File, fmt.Errorf("there are no lists: %w", his))
		return nil
	}
	defer dir.Close()
	files, wrong, err := listsIn(dir, d.File, known)
	*passed = append(*passed, wrong...)
	if err != nil {
		pass(d.File, err)
	}
	if len(files) == 0 {
		pass(d.File, errors.New("it has no file *"+listEnding+" yet: 'shared-altsd fetch-crl' puts lists there"))
	}
	left := int64(maxListBytes)
	for _, l := range files {
		path := filepath.Join(d.File, l.name)
		data, err := readList(dir, l, min(left, certbind.MaxListSize))
		if err != nil {
			pass(path, err)
			continue
		}
		left -= int64(len(data))
		if !yield(certbind.CRLFile{Data: data, Source: path, Complete: d.Complete}) {
			break
		}
	}
	return nil
}
