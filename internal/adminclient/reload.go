package adminclient

import (
	"context"
	"fmt"
	"io"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// Reload has the daemon read its files again, with credentials in the place of its own file if there are any, and
// prints what is then in force.
func (c Client) Reload(w io.Writer, credentials []byte) error {
	var resp *adminpb.ReloadResponse
	err := c.ask(func(ctx context.Context, admin adminpb.AdminClient) (err error) {
		resp, err = admin.Reload(ctx, &adminpb.ReloadRequest{Credentials: credentials})
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "in force: certificate %s of %s, valid until %s\n", resp.Serial, resp.Machine,
		stamp(resp.NotAfterUnix))
	return err
}
