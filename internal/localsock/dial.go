package localsock

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// An UntrustedError says that the socket's other end runs as somebody who may not be believed: rule 28 of the security
// rules.
type UntrustedError struct{ UID uint32 }

// Error names the uid; the cure, which depends on who asked, is the caller's to add, but for the overflow uid there is
// one only.
func (e *UntrustedError) Error() string {
	if e.Overflow() {
		return fmt.Sprintf("it is served by uid %d, which stands for every account that is unknown in this user namespace, "+
			"so nobody can tell here whether it is the daemon: run the program by shared-altsd exec, started outside, and let "+
			"it use the socket that %s names there", e.UID, Variable)
	}
	return fmt.Sprintf("it is served by uid %d, which is neither root, nor this account, nor the one that was named as "+
		"the daemon's", e.UID)
}

// Overflow reports whether the uid is no account's, but what the kernel shows for every account that has no place in
// this user namespace: nothing makes it believable.
func (e *UntrustedError) Overflow() bool { return overflow(e.UID) }

// overflow reports whether uid is the kernel's overflow uid: 65534, wherever it has not been changed. The initial
// namespace may have another than the machine's programs think, so both count.
func overflow(uid uint32) bool {
	if uid == 65534 {
		return true
	}
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	return err == nil && strings.TrimSpace(string(text)) == strconv.FormatUint(uint64(uid), 10)
}

// Dial connects to the daemon at path and asks the kernel who serves it: root, this process's own account, or daemonUID
// (0 names nobody else). Of anybody else it returns an *UntrustedError, and of the overflow uid, whatever daemonUID is.
func Dial(ctx context.Context, path string, daemonUID uint32) (*net.UnixConn, error) {
	dialed, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	conn := dialed.(*net.UnixConn)
	cred, err := peercred.FromConn(conn)
	believed := cred.UID == 0 || (cred.UID == uint32(os.Geteuid()) || cred.UID == daemonUID) && !overflow(cred.UID)
	if err == nil && !believed {
		err = &UntrustedError{cred.UID}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
