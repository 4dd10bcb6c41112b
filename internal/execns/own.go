package execns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

const (
	ownDirPattern = "shared-altsd-exec-*" // of the directories of COMMAND's sockets
	// maxRights is how many descriptors one message can carry: SCM_MAX_FD of the kernel.
	maxRights = 253
)

// listenOwn makes the UNIX socket that the command has for its own, for programs with altscreds and the commands of
// this program, in a directory of this account's alone. In the command's user namespace nobody can tell whose the
// daemon's socket is, for every account shows as the overflow uid there; this one is the command's own account's. Each
// connection to it becomes one to the daemon, whose account is checked out here.
func listenOwn() (l *net.UnixListener, path string, err error) {
	// RUNTIME_DIRECTORY is a systemd unit's, XDG_RUNTIME_DIR a user session's.
	var refused error
	for _, parent := range []string{os.Getenv("RUNTIME_DIRECTORY"), os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/dev/shm",
		"/var/tmp"} {
		if !filepath.IsAbs(parent) {
			continue
		}
		if l, path, err = listenBelow(parent); err == nil {
			return l, path, nil
		}
		refused = errors.Join(refused, err)
	}
	return nil, "", fmt.Errorf("no place for a socket of the command's own: let XDG_RUNTIME_DIR name a directory of this "+
		"account's: %w", refused)
}

// listenBelow makes the directory and the socket below parent, if nobody else could move them.
func listenBelow(parent string) (l *net.UnixListener, path string, err error) {
	info, err := os.Stat(parent)
	if err != nil {
		return nil, "", err
	}
	if safepath.Owner(info) != uint32(os.Geteuid()) && info.Mode()&fs.ModeSticky == 0 {
		// As after su, which leaves XDG_RUNTIME_DIR in the environment. Rule 28 would find that out, too.
		return nil, "", fmt.Errorf("%s is another account's, which could replace the socket", parent)
	}
	dir, err := os.MkdirTemp(parent, ownDirPattern) // mode 0700
	if err != nil {
		return nil, "", err
	}
	path = filepath.Join(dir, "socket")
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		os.Remove(dir)
		return nil, "", err
	}
	return l, path, nil
}

// viewDir returns the directory beside the command's own socket for the files of a view.
func viewDir(path string) string { return filepath.Join(filepath.Dir(path), "view") }

// removeOwn removes the socket and its directory, if they are still there.
func removeOwn(path string) {
	os.Remove(path)
	os.Remove(viewDir(path))
	os.Remove(filepath.Dir(path))
}

// serveOwn serves the command's own socket, until it is closed.
func (r *relay) serveOwn(l *net.UnixListener) {
	places := make(chan struct{}, maxConns)
	for {
		places <- struct{}{}
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a lack of descriptors or memory: it passes
			r.reports.Say("accept", fmt.Errorf("accepting a connection: %w", err))
			time.Sleep(50 * time.Millisecond)
			<-places
			continue
		}
		go func() {
			defer func() { <-places }()
			r.carryOwn(c)
		}()
	}
}

// carryOwn carries bytes and descriptors between c and the daemon.
func (r *relay) carryOwn(c *net.UnixConn) {
	defer c.Close()
	// The directory lets nobody else in, but descriptors travel.
	cred, err := peercred.FromConn(c)
	if err != nil {
		r.reports.Say("own", err)
		return
	}
	if cred.UID != r.uid {
		r.reports.Refused(cred.UID, fmt.Errorf("a connection of uid %d to the command's own socket was refused: it serves uid %d",
			cred.UID, r.uid))
		return
	}
	d := r.daemon()
	if d == nil {
		return
	}
	defer d.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(c, d)
	}()
	pass(d, c)
	<-done
}

// pass carries bytes and descriptors one way, until that way ends. If more than that has ended, all does.
func pass(from, to *net.UnixConn) {
	buf, oob := make([]byte, 32<<10), make([]byte, unix.CmsgSpace(4*maxRights))
	for {
		n, oobn, flags, _, err := from.ReadMsgUnix(buf, oob)
		switch {
		case errors.Is(err, io.EOF) && !hungUp(from):
			to.CloseWrite()
			return
		case err != nil || flags&unix.MSG_CTRUNC != 0 || send(to, buf[:n], oob[:oobn]) != nil:
			to.Close()
			from.Close()
			return
		}
	}
}

// send writes b with the descriptors that came with it, and closes our copies of those.
func send(to *net.UnixConn, b, oob []byte) error {
	var rights []byte
	if messages, err := unix.ParseSocketControlMessage(oob); err == nil {
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) > 0 {
				rights = unix.UnixRights(fds...)
				defer func() {
					for _, fd := range fds {
						unix.Close(fd)
					}
				}()
			}
		}
	}
	n, _, err := to.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = to.Write(b[n:])
	}
	return err
}

// hungUp reports whether the other end of c is closed, and not only shut down for writing.
func hungUp(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	fds := []unix.PollFd{{}}
	if err := raw.Control(func(fd uintptr) { fds[0].Fd = int32(fd); unix.Poll(fds, 0) }); err != nil {
		return true
	}
	return fds[0].Revents&unix.POLLHUP != 0
}
