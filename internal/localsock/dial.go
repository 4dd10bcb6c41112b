package localsock

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
)

// An UntrustedError says that the socket's other end runs as somebody who may not be believed: rule 28 of the security
// rules.
type UntrustedError struct{ UID uint32 }

// Error names the uid; the cure, which depends on who asked, is the caller's to add.
func (e *UntrustedError) Error() string {
	return fmt.Sprintf("it is served by uid %d, which is neither root, nor this account, nor the one that was named as the "+
		"daemon's", e.UID)
}

// Dial connects to the daemon at path and asks the kernel who serves it: root, this process's own account, or daemonUID
// (0 names nobody else). Of anybody else it returns an *UntrustedError.
func Dial(ctx context.Context, path string, daemonUID uint32) (*net.UnixConn, error) {
	dialed, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	conn := dialed.(*net.UnixConn)
	cred, err := peercred.FromConn(conn)
	if err == nil && cred.UID != 0 && cred.UID != uint32(os.Geteuid()) && cred.UID != daemonUID {
		err = &UntrustedError{cred.UID}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
