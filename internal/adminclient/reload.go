package adminclient

import (
	"context"
	"fmt"
	"io"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// A Reload is what a reload is to do beyond reading the files.
type Reload struct {
	Credentials []byte // in the place of the daemon's own file, if there are any
	// AcceptOlder are files of revocation lists that may be older than before, Forget the CAs, by name or file, whose
	// lists may be gone.
	AcceptOlder, Forget []string
}

// Reload has the daemon read its files again and prints what is then in force.
func (c Client) Reload(w io.Writer, r Reload) error {
	var resp *adminpb.ReloadResponse
	err := c.ask(func(ctx context.Context, admin adminpb.AdminClient) (err error) {
		resp, err = admin.Reload(ctx, &adminpb.ReloadRequest{Credentials: r.Credentials,
			AcceptOlderLists: r.AcceptOlder, ForgetLists: r.Forget})
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "in force: certificate %s of %s, valid until %s\n", resp.Serial, resp.Machine,
		stamp(resp.NotAfterUnix))
	return err
}
