package adminclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/wholefile"
)

// WriteTextfile writes the daemon's metrics to a file of node_exporter's textfile collector. Of a daemon that does not answer it
// writes that it is down, and returns why. One that answers and has no metrics to give, of version 0.1.0, leaves the file as it is.
func (c Client) WriteTextfile(path string) error {
	var text []byte
	older := false
	err := c.ask(func(ctx context.Context, admin adminpb.AdminClient) error {
		m, err := admin.Metrics(ctx, &adminpb.MetricsRequest{})
		text, older = []byte(m.GetText()), status.Code(err) == codes.Unimplemented
		return err
	})
	if older {
		return errors.New("the daemon that runs is of an earlier version, which writes no metrics for a file: restart it")
	}
	if err != nil {
		var down bytes.Buffer
		if err := metrics.WriteDown(&down, machineOf(path)); err != nil {
			return err
		}
		text = down.Bytes()
	}
	if fault := wholefile.Replace(path, text); fault != nil {
		err = errors.Join(err, fmt.Errorf("--textfile: %w: let this account write in that directory", fault))
	}
	return err
}

// maxTextfile bounds what is read of a file of metrics, bytes.
const maxTextfile = 1 << 20

// machineLabel is the machine's name in what the daemon writes.
var machineLabel = regexp.MustCompile(`(?m)^shared_altsd_up\{machine="([a-z0-9._-]{1,255})"\} `)

// machineOf returns under which name a daemon that does not answer is told of: that of the last time when it did, so that it
// stays one series, else the host's.
func machineOf(path string) string {
	if f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
		defer f.Close()
		text, _ := io.ReadAll(io.LimitReader(f, maxTextfile)) // what there is of it will do
		if m := machineLabel.FindSubmatch(text); m != nil {
			return string(m[1])
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return ascii.Lower(host)
}
