package localsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// An UntrustedError says that the socket's other end runs as somebody who may not be believed: rule 28 of the security
// rules.
type UntrustedError struct{ UID uint32 }

// Error names the uid; the cure, which depends on who asked, is the caller's to add, but of the overflow uid, for which
// there is one alone.
func (e *UntrustedError) Error() string {
	if e.Overflow() {
		return fmt.Sprintf("it is served by uid %d, which stands for every account that is unknown in this user namespace "+
			"(and is nobody's own): that is never the daemon; map the daemon's uid into the namespace, or run the program by "+
			"'shared-altsd exec' and use the socket that %s names there", e.UID, Variable)
	}
	return fmt.Sprintf("it is served by uid %d, which is neither root, nor this account, nor the one that was named as the "+
		"daemon's", e.UID)
}

// Dial connects to the daemon at path and asks the kernel who serves it: root, this process's own account, or daemonUID
// (0 names nobody else), but never the overflow uid. Of anybody else it returns an *UntrustedError.
func Dial(ctx context.Context, path string, daemonUID uint32) (*net.UnixConn, error) {
	conn, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	cred, err := peercred.FromConn(conn)
	if err == nil && cred.UID != 0 && (cred.UID != uint32(os.Geteuid()) && cred.UID != daemonUID || Overflow(cred.UID)) {
		err = &UntrustedError{cred.UID}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// queueRetry is the pause between two attempts to get into a queue that is full.
const queueRetry = time.Millisecond

// connect connects to the socket at path. The queue of those who wait to be accepted is one for all accounts, and any of
// them may fill it in a moment: while it is full, it is tried again.
func connect(ctx context.Context, path string) (*net.UnixConn, error) {
	var full error
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return conn.(*net.UnixConn), nil
		case errors.Is(err, unix.EAGAIN):
			full = fmt.Errorf("the socket's queue was full all the time: %w", err)
		case full != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
			return nil, full
		default:
			return nil, err
		}
		select {
		case <-time.After(queueRetry):
		case <-ctx.Done():
			return nil, full
		}
	}
}

// Overflow reports whether the uid is no account's, but the one that the kernel shows for every account without a uid in
// this process's user namespace: nothing makes it believable.
func (e *UntrustedError) Overflow() bool { return Overflow(e.UID) }

// Overflow reports whether uid is the kernel's overflow uid, or nobody's, 65534, which it is by default.
func Overflow(uid uint32) bool { return uid == 65534 || uid == overflowUID() }

// OwnAccount returns an error for a uid of a process's own that is not one account's: what it lends or serves to its own
// account would be everybody's who is unknown here.
func OwnAccount(uid uint32) error {
	if Overflow(uid) {
		return fmt.Errorf("uid %d stands for every account unknown here: run this as an account of its own", uid)
	}
	return nil
}

// overflowUID is the kernel's setting, 65534 if it cannot be read.
var overflowUID = sync.OnceValue(func() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err == nil {
		if uid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			return uint32(uid)
		}
	}
	return 65534
})
