// Package safepath checks who could put another file where a path leads.
package safepath

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Dir resolves the symlinks of an absolute directory, one component at a time, and refuses one on which somebody else
// than root and the daemon could put another file in place of the one that is meant. what names that file in errors, as
// in "the socket". Sticky directories are taken with a warning.
func Dir(dir, what string) (real string, warnings []string, err error) {
	const maxLinks = 40
	rest := strings.Split(strings.Trim(filepath.Clean(dir), "/"), "/")
	real = "/"
	links := 0
	for {
		warning, err := component(real, what)
		if err != nil {
			return "", nil, err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		// Go on to the next component that is a directory.
		for {
			if len(rest) == 0 || rest[0] == "" {
				return real, warnings, nil
			}
			if rest[0] == ".." {
				real, rest = filepath.Dir(real), rest[1:]
				continue
			}
			next := filepath.Join(real, rest[0])
			rest = rest[1:]
			info, err := os.Lstat(next)
			if err != nil {
				return "", nil, fmt.Errorf("the directory of %s: %w: make it, owned by root or by the daemon", what, err)
			}
			if info.Mode()&fs.ModeSymlink == 0 {
				real = next
				break
			}
			if !Ours(info) {
				return "", nil, fmt.Errorf("the symlink %s belongs to uid %d, who could turn it elsewhere: only root's and the "+
					"daemon's are followed", next, Owner(info))
			}
			if links++; links > maxLinks {
				return "", nil, fmt.Errorf("%s: more than %d symlinks on the way", dir, maxLinks)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", nil, err
			}
			if filepath.IsAbs(target) {
				real = "/"
			}
			if target = strings.Trim(filepath.Clean(target), "/"); target != "" && target != "." {
				rest = append(strings.Split(target, "/"), rest...)
			}
		}
	}
}

// component checks one directory on the way.
func component(dir, what string) (warning string, err error) {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return "", fmt.Errorf("the directory of %s: %w", what, err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory", dir)
	case !Ours(info):
		return "", fmt.Errorf("the directory %s belongs to uid %d, who could replace %s: use one whose "+
			"ancestors all belong to root or to the daemon (uid %d)", dir, Owner(info), what, os.Geteuid())
	case info.Mode()&0o022 == 0:
		return "", nil
	case info.Mode()&fs.ModeSticky == 0:
		return "", fmt.Errorf("the directory %s may be written by others (mode %04o), who could replace %s: "+
			"take the right away with 'chmod go-w %s' or use another directory", dir, info.Mode().Perm(), what, dir)
	}
	return fmt.Sprintf("others may create files in %s: while the daemon is down, somebody could serve in its place",
		dir), nil
}

// Owner returns the uid of a file.
func Owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// Ours reports whether a file belongs to root or to this process's own account.
func Ours(info fs.FileInfo) bool {
	return Owner(info) == 0 || Owner(info) == uint32(os.Geteuid())
}
