// Package safepath checks who could put another file where a path leads.
package safepath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Dir resolves the symlinks of an absolute directory, one component at a time, and refuses one on which somebody else
// than root and the daemon could put another file in place of the one that is meant. what names that file in errors, as
// in "the socket". Sticky directories are taken with a warning.
func Dir(dir, what string) (real string, warnings []string, err error) {
	w := walk{path: dir, what: what, rest: components(dir)}
	if err := w.directories(0); err != nil {
		return "", nil, err
	}
	for _, dir := range w.sticky {
		warnings = append(warnings, fmt.Sprintf("others may create files in %s: while the daemon is down, somebody could serve "+
			"in its place", dir))
	}
	return w.real, warnings, nil
}

// File resolves the symlinks of a file's path in the same way, the last one included, so that what is at the path
// returned is what is meant, now and later. In a sticky directory the file has to be root's or the daemon's. What is
// there in the end is not looked at otherwise; it may not be there.
func File(path string) (real string, err error) {
	w := walk{path: path, what: path, rest: components(path)}
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return "", fmt.Errorf("the directory of %s: %w", path, err)
		}
		w.rest = append(components(wd), w.rest...)
	}
	for {
		if err := w.directories(1); err != nil {
			return "", err
		}
		if len(w.rest) == 0 || w.rest[0] == ".." {
			return "", fmt.Errorf("%s is a directory", path)
		}
		real := filepath.Join(w.real, w.rest[0])
		w.rest = nil
		info, err := os.Lstat(real)
		switch {
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if err := w.follow(real, info); err != nil {
				return "", err
			}
			continue
		case slices.Contains(w.sticky, w.real) && !Ours(info):
			return "", fmt.Errorf("%s belongs to uid %d, in a directory where everybody may put files (%s): only root's and "+
				"the daemon's are taken there", real, Owner(info), w.real)
		}
		return real, nil
	}
}

// A walk is on its way along a path.
type walk struct {
	path, what string
	real       string   // where it is, without symlinks
	rest       []string // the components still to come
	links      int
	sticky     []string // the sticky directories on the way
}

// components splits a path. It keeps "..", which behind a symlink leads elsewhere than in the text.
func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(c string) bool { return c == "" || c == "." })
}

// directories goes on, from the root at first, until only the last so many components are left; all others have
// to be directories.
func (w *walk) directories(last int) error {
	if w.real == "" {
		if err := w.enter("/"); err != nil {
			return err
		}
	}
	for len(w.rest) > last {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if name == ".." {
			w.real = filepath.Dir(w.real)
			continue
		}
		next := filepath.Join(w.real, name)
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: make it, owned by root or by the daemon", err)
		}
		if err != nil {
			return fmt.Errorf("the directory of %s: %w", w.what, err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			err = w.follow(next, info)
		} else {
			err = w.enter(next)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// follow puts the target of a symlink in the place of its name, which was taken from w.rest.
func (w *walk) follow(link string, info fs.FileInfo) error {
	const maxLinks = 40
	if !Ours(info) {
		return fmt.Errorf("the symlink %s belongs to uid %d, who could turn it elsewhere: only root's and the "+
			"daemon's are followed", link, Owner(info))
	}
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("%s: more than %d symlinks on the way", w.path, maxLinks)
	}
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if filepath.IsAbs(target) {
		w.real = "/"
	}
	w.rest = append(components(target), w.rest...)
	return nil
}

// enter checks one directory on the way, and is in it then.
func (w *walk) enter(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("the directory of %s: %w", w.what, err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case !Ours(info):
		return fmt.Errorf("the directory %s belongs to uid %d, who could replace %s: use one whose "+
			"ancestors all belong to root or to this account (uid %d)", dir, Owner(info), w.what, os.Geteuid())
	case info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("the directory %s may be written by others (mode %04o), who could replace %s: "+
			"take the right away with 'chmod go-w %s' or use another directory", dir, info.Mode().Perm(), w.what, dir)
	case info.Mode()&0o022 != 0:
		w.sticky = append(w.sticky, dir)
	}
	w.real = dir
	return nil
}

// Owner returns the uid of a file.
func Owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// Ours reports whether a file belongs to root or to this process's own account.
func Ours(info fs.FileInfo) bool {
	return Owner(info) == 0 || Owner(info) == uint32(os.Geteuid())
}
