package adminclient

import (
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"

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
	err := c.askOver(reloadTimeout, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = adminpb.NewAdminClient(conn).Reload(ctx, &adminpb.ReloadRequest{Credentials: r.Credentials,
			AcceptOlderLists: r.AcceptOlder, ForgetLists: r.Forget})
		return err
	})
	if err != nil {
		return err
	}
	changed := "nothing"
	if len(resp.Changed) > 0 {
		changed = strings.Join(resp.Changed, "\n          ")
	}
	_, err = fmt.Fprintf(w, "in force: certificate %s of %s, valid until %s\nchanged:  %s\n", resp.Serial, resp.Machine,
		stamp(resp.NotAfterUnix), changed)
	if err == nil && resp.Note != "" {
		_, err = fmt.Fprintln(w, "note:     "+resp.Note)
	}
	return err
}

// Unread tells the daemon that credentials which were to be handed over could not be read, so that it says so as long as
// none have come into force.
func (c Client) Unread(why error) error {
	return c.ask(func(ctx context.Context, admin adminpb.AdminClient) error {
		_, err := admin.Reload(ctx, &adminpb.ReloadRequest{Unread: strings.ToValidUTF8(why.Error(), "?")})
		return err
	})
}
