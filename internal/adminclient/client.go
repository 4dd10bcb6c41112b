// Package adminclient asks the daemon's admin service over its socket, and prints the answers.
package adminclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// timeout bounds a question to the daemon; it may have to look up the caller's account.
const timeout = 20 * time.Second

// A Client asks the daemon at Socket. Only one of root's, of the caller's own or of DaemonUID is believed (rule 28).
type Client struct {
	Socket    string
	DaemonUID uint32
}

// connect returns a connection to the admin service, which is made at the first call.
func (c Client) connect() (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := localsock.Dial(ctx, c.Socket, c.DaemonUID)
		if untrusted, ok := errors.AsType[*localsock.UntrustedError](err); ok && !untrusted.Overflow() {
			err = fmt.Errorf("%w: if that is the daemon, give --daemon-uid %d", err, untrusted.UID)
		}
		if err != nil {
			return nil, err // not a nil *net.UnixConn in an interface
		}
		return conn, nil
	}
	return grpc.NewClient("passthrough:///shared-altsd", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial), grpc.WithDisableServiceConfig())
}

// ask calls the admin service once.
func (c Client) ask(call func(context.Context, adminpb.AdminClient) error) error {
	// Asked for first, because grpc's own words for a socket that is not there are long.
	if err := unix.Access(c.Socket, unix.W_OK); err != nil {
		return noDaemon(c.Socket, err)
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err = call(ctx, adminpb.NewAdminClient(conn))
	if st, ok := status.FromError(err); ok && err != nil {
		return errors.New(strings.TrimPrefix(st.Message(), "connection error: desc = "))
	}
	return err
}

func noDaemon(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("no daemon: there is no socket %s: start it ('systemctl start shared-altsd'), or give --socket",
			path)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("this account may not use the socket %s: ask for membership of its group", path)
	}
	return fmt.Errorf("the socket %s: %w", path, err)
}
