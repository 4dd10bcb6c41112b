package httpfwd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// A Private is a backend's UNIX socket at which nobody else may say who calls: only root, the forward's own account and the
// backend's can reach it. With any other account that could, a header would prove nothing to the backend.
type Private struct {
	Path    string
	Account uint32 // the backend's

	members func(gid uint32) ([]uint32, error) // of a group, nil for those that the user database has
}

// Dial connects by dial, and returns the connection if the socket was such before and after, and such an account serves it.
func (p Private) Dial(dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if err := p.Check(); err != nil {
			return nil, err
		}
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(p.served(c), p.Check()); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// served returns why whoever listens may not be told who calls.
func (p Private) served(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the backend is reached by a %T: only a UNIX socket can be private", c)
	}
	cred, err := peercred.FromConn(u)
	if err == nil && !p.one(cred.UID) {
		err = fmt.Errorf("uid %d serves %s: --target-account has to name the backend's account", cred.UID, p.Path)
	}
	return err
}

// one reports whether an account may reach the backend.
func (p Private) one(uid uint32) bool {
	return uid == 0 || uid == p.Account || uid == uint32(os.Geteuid())
}

// closed reports whether no other account has this permission of a file, given as the bit of others.
func (p Private) closed(path string, st *unix.Stat_t, bit uint32) (bool, error) {
	if !p.one(st.Uid) || st.Mode&bit != 0 {
		return false, nil
	}
	if st.Mode&(bit<<3) == 0 {
		return true, nil
	}
	members := p.members
	if members == nil {
		members = membersOf
	}
	uids, err := members(st.Gid)
	if err != nil {
		return false, fmt.Errorf("who is in group %d of %s: %w", st.Gid, path, err)
	}
	return !slices.ContainsFunc(uids, func(uid uint32) bool { return !p.one(uid) }), nil
}

const (
	read, write, search = 4, 2, 1
	cure                = "; keep it in a directory of mode 0700 of the backend's account or the forward's, or of mode 0750 with a " +
		"group of these two alone, or say --unsafe-header, by which every account of this machine may forge the headers"
)

// Check returns why other accounts may reach the socket, or put another one in its place.
func (p Private) Check() error {
	if !filepath.IsAbs(p.Path) {
		return fmt.Errorf("the backend's socket is %s: name its absolute path", p.Path)
	}
	private, real, links := false, "/", 0
	for rest := strings.Split(p.Path, "/"); ; {
		var st unix.Stat_t
		if err := unix.Lstat(real, &st); err != nil {
			return fmt.Errorf("the backend's socket %s: %w", p.Path, &os.PathError{Op: "lstat", Path: real, Err: err})
		}
		if !p.one(st.Uid) {
			return fmt.Errorf("%s belongs to uid %d, who could let others to the backend%s", real, st.Uid, cure)
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFLNK {
			const maxLinks = 40
			target, err := os.Readlink(real)
			if links++; err != nil || links > maxLinks {
				return errors.Join(fmt.Errorf("the symlink %s leads nowhere", real), err)
			}
			if real = filepath.Dir(real); filepath.IsAbs(target) {
				private, real = false, "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		if err := noACL(real); err != nil {
			return err
		}
		bit := uint32(search)
		if kind == unix.S_IFSOCK {
			bit = write
		}
		closed, err := p.closed(real, &st, bit)
		if err != nil {
			return err
		}
		private = private || closed
		switch kind {
		case unix.S_IFSOCK:
			switch {
			case len(rest) > 0:
				return fmt.Errorf("%s is a socket and no directory", real)
			case st.Nlink != 1:
				return fmt.Errorf("%s has %d names, by another of which it may be reached%s", real, st.Nlink, cure)
			case !private:
				return fmt.Errorf("other accounts of this machine may connect to %s, where they could say to be anybody%s", real, cure)
			}
			return nil
		case unix.S_IFDIR:
			unchanged, err := p.closed(real, &st, write)
			if err != nil {
				return err
			}
			if !unchanged && st.Mode&unix.S_ISVTX == 0 {
				return fmt.Errorf("the directory %s may be written by others (mode %04o), who could put another socket there%s", real,
					st.Mode&0o7777, cure)
			}
		default:
			return fmt.Errorf("%s is neither a socket nor a directory", real)
		}
		for len(rest) > 0 && (rest[0] == "" || rest[0] == ".") {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return fmt.Errorf("%s is a directory, not the backend's socket", p.Path)
		}
		// A way back leaves the directory that kept others out.
		if rest[0] == ".." {
			return fmt.Errorf("the way to %s goes by ..: name it without", p.Path)
		}
		real, rest = filepath.Join(real, rest[0]), rest[1:]
	}
}

// noACL refuses a file whose mode does not tell all: an access list may name any account.
func noACL(path string) error {
	switch _, err := unix.Lgetxattr(path, "system.posix_acl_access", nil); err {
	case nil:
		return fmt.Errorf("%s has an access list, which may let in any account: setfacl -b %s takes it off%s", path, path, cure)
	case unix.ENODATA, unix.ENOTSUP:
		return nil
	default:
		return &os.PathError{Op: "getxattr", Path: path, Err: err}
	}
}
