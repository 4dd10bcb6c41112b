// Package localsock is where the daemon's UNIX socket is, how it is bound safely, and who may serve it.
package localsock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// DefaultPath is where an installed daemon listens.
	DefaultPath = "/run/shared-altsd/socket"
	// Variable names the environment variable that overrides DefaultPath for all who look for the daemon.
	Variable = "SHARED_ALTS_SOCKET"

	// maxPath is the longest path of a socket, bytes: sun_path of unix(7) holds 108 with the final NUL.
	maxPath = 107
)

// Path returns where to look for the daemon: the path given, if any; else what Variable says, unless the kernel started
// this program with privileges that its caller does not have (setuid, setgid, file capabilities: AT_SECURE); else
// DefaultPath.
func Path(given string) string { return resolve(given, secureExec(), os.Getenv) }

func resolve(given string, secure bool, getenv func(string) string) string {
	if given != "" {
		return given
	}
	if path := getenv(Variable); path != "" && !secure {
		return path
	}
	return DefaultPath
}

// secureExec reports whether the kernel started this program with privileges that its caller does not have, so that the
// caller's environment may not be believed.
func secureExec() bool {
	const atSecure = 23
	vector, err := unix.Auxv()
	if err != nil {
		return true
	}
	for _, entry := range vector {
		if entry[0] == atSecure {
			return entry[1] != 0
		}
	}
	return true
}

// CheckPath returns why path cannot be that of a socket of the daemon's, which is absolute, plain and at most 107 bytes
// long.
func CheckPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty: give one, such as /run/shared-altsd/socket")
	case path[0] == '@' || path[0] == 0:
		return fmt.Errorf("%q is an abstract name, which any user could take first: give a path in a directory of root's or "+
			"the daemon's", path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path: begin it with /", path)
	case strings.HasSuffix(path, "/") || filepath.Clean(path) != path:
		return fmt.Errorf("%q is not a plain path: write %s", path, filepath.Clean(path))
	case len(path) > maxPath:
		return fmt.Errorf("the path has %d bytes: a UNIX socket takes at most %d", len(path), maxPath)
	}
	return nil
}
