package adminclient

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// ReadDenied has the daemon read what is denied, and returns what is in force then. who is for whom, for the log. A Refused
// says that it did not take it.
func (c Client) ReadDenied(who string) (resp *adminpb.ReadDeniedResponse, err error) {
	err = c.askOver(timeout, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = adminpb.NewDenialClient(conn).Read(ctx, &adminpb.ReadDeniedRequest{Who: who})
		if status.Code(err) == codes.Unimplemented {
			return status.Error(codes.FailedPrecondition, "the daemon that runs is older than this program, and knows of no "+
				"denials: restart it")
		}
		return err
	})
	return resp, err
}

// NoDaemon reports whether an error says that nobody listens at the socket, so that no daemon runs.
func NoDaemon(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)
}
