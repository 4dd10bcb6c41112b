package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// An ownDir is a kind of directory whose files are read together, in byte order of their names, and are root's or the
// daemon's.
type ownDir struct {
	ending string // of the names of its files; others, those of editors for instance, are not read
	what   string // the files are, in errors
	max    int    // files
	bytes  int    // of all of them
	harm   string // what others could do who may write there
}

// names returns the names of the files, in byte order.
func (d ownDir) names(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), d.ending) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if err == nil && len(names) > d.max {
		err = fmt.Errorf("%s has %d %s; it may have %d", dir, len(names), d.what, d.max)
	}
	return names, err
}

// read reads all files of a directory, as they are there together. It is nothing more than a directory on a safe way (rule
// 32). Of more bytes than there may be, one file more is returned than fits.
func (d ownDir) read(dir string) (files []cli.Part, err error) {
	const tries = 3
	for range tries {
		if files, err = d.readOnce(dir); !errors.Is(err, errChanging) {
			break
		}
	}
	return files, err
}

// readOnce returns errChanging if a file has come or gone meanwhile: what is there for a moment only is neither a mistake
// nor meant.
func (d ownDir) readOnce(dir string) ([]cli.Part, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := safepath.Dir(abs, "its files"); err != nil {
		return nil, err
	}
	names, err := d.names(abs)
	if err != nil {
		return nil, err
	}
	files := make([]cli.Part, 0, len(names))
	size := 0
	for _, name := range names {
		path := filepath.Join(abs, name)
		data, err := readOwnFile(path, int64(d.bytes), d.harm)
		if err != nil {
			info, _ := os.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) && (info == nil || info.Mode()&fs.ModeSymlink == 0) { // no symlink that leads nowhere
				return nil, errChanging
			}
			return nil, err
		}
		files = append(files, cli.Part{Path: path, Data: data})
		if size += len(data); size > d.bytes {
			break // which the caller refuses
		}
	}
	if now, err := d.names(abs); err != nil || !slices.Equal(now, names) {
		return nil, errors.Join(errChanging, err)
	}
	return files, nil
}

// state is pathsState of the files of a directory, and of which there are.
func (d ownDir) state(dir string) string {
	names, err := d.names(dir)
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	if err != nil {
		return pathsState(append(names, dir)) + err.Error()
	}
	return pathsState(names)
}
