// Package adminclient asks the daemon's admin service over its socket, and prints the answers.
package adminclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/reach"
)

// timeout bounds a question to a daemon that answers; it may have to look up the caller's account.
const timeout = 20 * time.Second

// reloadTimeout is the same for a reload, which may first make many signatures with a slow key (certbind.MaxPreparation).
const reloadTimeout = 380 * time.Second

// A Client asks the daemon at Socket. Only one of root's, of the caller's own or of DaemonUID is believed (rule 28).
type Client struct {
	Socket    string
	DaemonUID uint32
}

// connect returns a connection to the admin service, which is made at the first call.
func (c Client) connect() (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := localsock.Dial(ctx, c.Socket, c.DaemonUID)
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
	return c.askOver(timeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		return call(ctx, adminpb.NewAdminClient(conn))
	})
}

// machineTimeout bounds the question for the machine's name, for which somebody waits who wants to know something else.
const machineTimeout = 2 * time.Second

// Machine returns the machine's name, as the daemon has it.
func (c Client) Machine() (name string, err error) {
	err = c.askOver(machineTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		s, err := adminpb.NewAdminClient(conn).Status(ctx, &adminpb.StatusRequest{})
		name = s.GetMachine()
		return err
	})
	return name, err
}

// Refused is what a daemon says that did not do what it was asked.
type Refused struct{ Err error }

// Error returns what the daemon says.
func (r Refused) Error() string { return r.Err.Error() }

// askOver asks the daemon once, by a connection to it.
func (c Client) askOver(limit time.Duration, call func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// Asked for first: grpc's own words for a daemon that is not there say neither why nor what to do.
	if err := reach.Daemon(ctx, c.Socket, c.DaemonUID); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	err = call(ctx, conn)
	st, isStatus := status.FromError(err)
	switch {
	case err == nil || !isStatus:
		return err
	case st.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("the daemon at %s is there, but had no answer within %v: most often its user database hangs; "+
			"'journalctl -u shared-altsd -e' has more", c.Socket, limit)
	case st.Code() == codes.Unavailable: // it has gone in this moment
		if err := reach.Daemon(context.Background(), c.Socket, c.DaemonUID); err != nil {
			return err
		}
	case st.Code() == codes.FailedPrecondition:
		return Refused{errors.New(st.Message())}
	}
	return errors.New(st.Message())
}
