package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// ConfDir is the directory beside a config file of the daemon whose files, *.conf, are read after it.
const ConfDir = "conf.d"

// confDir is what such a directory is.
var confDir = ownDir{ending: ".conf", what: "config files", max: 256, bytes: 1 << 20, harm: "could name other CAs"}

// besideConfig returns the directory beside a config file.
func besideConfig(path string) string { return filepath.Join(filepath.Dir(path), ConfDir) }

// ReadConfDir returns the files of the directory beside a config file, of at most max bytes together; none if it is not there.
// Nobody else than root and the daemon may write there, and none of the files is passed over: each may be what limits a CA.
func ReadConfDir(path string, max int64) ([]cli.Part, error) {
	dir := besideConfig(path)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	parts, err := confDir.read(dir)
	size := 0
	for _, p := range parts {
		size += len(p.Data)
	}
	if err == nil && int64(size) > max {
		err = fmt.Errorf("the files of %s have more than %d bytes: these are not the files that were meant", dir, max)
	}
	return parts, err
}
