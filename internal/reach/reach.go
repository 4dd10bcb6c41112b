// Package reach asks whether a daemon answers at a socket, and says of one that does not why, and which command is next.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// Variables for tests.
var (
	// answerWait is how long a daemon may take for its first bytes. One that lives has at most to find out, within a
	// second, whether the caller's uid has a name.
	answerWait = 5 * time.Second
	// bindWait is how long a socket may be away, or closed, whose directory is there: the daemon binds it again within that
	// time if its file was removed.
	bindWait = time.Second
)

const bindRetry = 20 * time.Millisecond

// Daemon returns nil if a gRPC server of root's, the caller's own or daemonUID answers at the socket, else why not, and
// what to do.
func Daemon(ctx context.Context, socket string, daemonUID uint32) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	began := time.Now()
	for {
		conn, err := localsock.Dial(ctx, socket, daemonUID)
		if err == nil {
			defer conn.Close()
			return answers(ctx, conn, socket)
		}
		away := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)
		if _, derr := os.Lstat(filepath.Dir(socket)); !away || derr != nil || time.Since(began) > bindWait {
			return Explain(socket, err)
		}
		select {
		case <-time.After(bindRetry):
		case <-ctx.Done():
			return Explain(socket, err)
		}
	}
}

// An Error is why no daemon answers, and what to do.
type Error struct {
	What, Next string
	Err        error // the cause, if there is one beyond What
}

// Error returns both.
func (e *Error) Error() string { return e.What + ": " + e.Next }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// The commands that come next.
const (
	unitStatus = "'systemctl status shared-altsd'"
	unitStart  = "start it ('systemctl start shared-altsd')"
	journal    = "'journalctl -u shared-altsd -e'"
)

// answers returns why no gRPC server is at the other end.
func answers(ctx context.Context, conn *net.UnixConn, socket string) error {
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	wait := time.Until(deadline).Round(100 * time.Millisecond)
	_, err := io.WriteString(conn, http2.ClientPreface)
	if err == nil {
		err = http2.NewFramer(conn, nil).WriteSettings()
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1)) // of its settings
	}
	if err == nil {
		return nil
	}
	e := &Error{Err: err}
	holder, managed := whoListens(conn)
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		e.What = fmt.Sprintf("the daemon at %s hangs up before it says anything", socket)
		e.Next = "it is about to end, or has too many connections of this account; try again, and see " + journal
	case managed:
		e.What = fmt.Sprintf("the service manager holds the socket %s, but no daemon answers behind it within %v", socket, wait)
		e.Next = "it does not start, ends again and again, or hangs: " + unitStatus + " says which, and " + journal +
			" why; 'shared-altsd check --config FILE' tries its files"
	default:
		e.What = fmt.Sprintf("the daemon at %s (%s) does not answer within %v", socket, holder, wait)
		e.Next = "it hangs, or has no time for this account; see " + journal + ", and restart it if it stays so " +
			"('systemctl restart shared-altsd')"
	}
	return e
}

// whoListens returns who made the socket a listening one, and whether that is the service manager.
func whoListens(conn *net.UnixConn) (who string, managed bool) {
	cred, err := peercred.FromConn(conn)
	if err != nil || cred.PID == 0 { // of another PID namespace
		return "of a process that is not to be seen from here", false
	}
	name, _ := os.ReadFile("/proc/" + strconv.Itoa(int(cred.PID)) + "/comm")
	return "process " + strconv.Itoa(int(cred.PID)), strings.TrimSpace(string(name)) == "systemd"
}

// Explain returns why an attempt to connect to the socket failed.
func Explain(socket string, err error) *Error {
	e := &Error{Err: err}
	untrusted, isUntrusted := errors.AsType[*localsock.UntrustedError](err)
	info, lerr := os.Lstat(socket)
	switch {
	case isUntrusted:
		e.What = fmt.Sprintf("the socket %s: %v", socket, untrusted)
		if e.Next = fmt.Sprintf("if that is the daemon, give --daemon-uid %d", untrusted.UID); untrusted.Overflow() {
			e.Next = "nothing else makes it believable"
		}
	case errors.Is(err, unix.ENOENT):
		e.What = fmt.Sprintf("no daemon: there is no socket %s", socket)
		e.Next = unitStart + ", or give --socket; " + unitStatus + " says what it lacks, or, if it runs, that the file was removed: " +
			"'systemctl restart shared-altsd.socket'"
	case errors.Is(err, unix.ECONNREFUSED) && lerr == nil && info.Mode()&fs.ModeSocket == 0:
		e.What = fmt.Sprintf("no daemon: %s is not a socket", socket)
		e.Next = "remove it, or give --socket"
	case errors.Is(err, unix.ECONNREFUSED):
		e.What = fmt.Sprintf("no daemon: nobody listens at the socket %s any more, so it is stopping or was killed", socket)
		e.Next = unitStart + ", and see " + unitStatus + " and " + journal
	case errors.Is(err, fs.ErrPermission):
		e.What = fmt.Sprintf("this account may not use the socket %s", socket)
		e.Next = permission(info)
	case errors.Is(err, unix.EAGAIN):
		e.What = fmt.Sprintf("the queue of the socket %s is full, so that nobody takes connections there", socket)
		e.Next = unitStatus + " says whether the daemon runs, and " + journal + " why not"
	default:
		e.What = fmt.Sprintf("the socket %s cannot be used", socket)
		e.Next = err.Error()
	}
	return e
}

// permission returns what an account lacks to connect to a socket, of which info is nil if the account may not see it.
func permission(info fs.FileInfo) string {
	if info == nil {
		return "it may not enter the socket's directory; ask the administrator"
	}
	group := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("its mode is %04o and its group %s; ask for membership of that", info.Mode().Perm(), group)
}
