package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// adminTimeout bounds a question to the daemon; it may have to look up the caller's account.
const adminTimeout = 20 * time.Second

var statusCommand = &cli.Command{
	Name:    "status",
	Summary: "say what the daemon of this machine is doing",
	About: `
Asks the daemon: is it up, as whom does it speak, what does it know of its certificate, CAs and revocation lists, how
many handshakes came out how. Root and the daemon's own account are told the last failures as well. Exit status 1 if
there is no daemon, or if peers would refuse this machine.

  shared-altsd status
  sudo shared-altsd status --json`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, asJSON := new(daemonFlags), false
		return append(d.options(), jsonOption(&asJSON)), func([]string) error { return printStatus(d, asJSON, os.Stdout) }
	},
}

// daemonFlags are the flags of commands that talk to the daemon.
type daemonFlags struct {
	socket string
	uid    int
}

func (d *daemonFlags) options() []cli.Option {
	const group = "The daemon:"
	return []cli.Option{
		{Name: "socket", Group: group,
			Value: cli.Func("PATH", func(v string) error { d.socket = v; return localsock.CheckPath(v) }).CompleteFiles(),
			Help: "Socket of the daemon. Without it the variable " + altscreds.SocketVariable + ", then " +
				altscreds.DefaultSocket + "."},
		{Name: "daemon-uid", Group: group, Value: cli.Int(&d.uid, "UID", 0, 1<<31-1),
			Help: "Uid that the daemon may run as, besides root and the caller. Under systemd it is not needed: there the " +
				"socket is root's."},
	}
}

func jsonOption(p *bool) cli.Option {
	return cli.Option{Name: "json", Group: "Output:", Value: cli.Switch(p), Help: "Print JSON, for scripts."}
}

func (d *daemonFlags) path() string { return localsock.Path(d.socket) }

// connect gives a connection to the daemon's admin service, which is made at the first call. Only a daemon of root's,
// of the caller's own or of --daemon-uid is believed (rule 28).
func (d *daemonFlags) connect() (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := localsock.Dial(ctx, d.path(), uint32(d.uid))
		if untrusted, ok := errors.AsType[*localsock.UntrustedError](err); ok {
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
func (d *daemonFlags) ask(call func(context.Context, adminpb.AdminClient) error) error {
	// Asked for first, because grpc's own words for a socket that is not there are long.
	if err := unix.Access(d.path(), unix.W_OK); err != nil {
		return noDaemon(d.path(), err)
	}
	conn, err := d.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
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

func printStatus(d *daemonFlags, asJSON bool, w io.Writer) error {
	var s *adminpb.StatusResponse
	err := d.ask(func(ctx context.Context, c adminpb.AdminClient) (err error) {
		s, err = c.Status(ctx, &adminpb.StatusRequest{})
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		if err := writeJSON(w, plain(s.ProtoReflect())); err != nil {
			return err
		}
	} else {
		writeStatus(w, s)
	}
	for _, f := range s.Faults {
		if !f.Warning {
			return cli.ExitStatus(1)
		}
	}
	return nil
}

// plain gives a message as maps, lists and numbers with every field in it, which protojson would not: it makes strings
// of 64-bit numbers.
func plain(m protoreflect.Message) map[string]any {
	out := make(map[string]any)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func(v protoreflect.Value) any {
			if f.Message() != nil {
				return plain(v.Message())
			}
			return v.Interface()
		}
		if !f.IsList() {
			out[string(f.Name())] = value(m.Get(f))
			continue
		}
		list := []any{}
		for j := range m.Get(f).List().Len() {
			list = append(list, value(m.Get(f).List().Get(j)))
		}
		out[string(f.Name())] = list
	}
	return out
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeStatus(w io.Writer, s *adminpb.StatusResponse) {
	now := time.Unix(s.NowUnix, 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("daemon", "%s since %s, version %s", s.State, stamp(s.StartedUnix), s.Version)
	line("machine", "%s", s.Machine)
	if s.CallerAccount != "" {
		line("you", "%s@%s", s.CallerAccount, s.Machine)
	} else {
		line("you", "refused: %s", s.CallerRefused)
	}
	line("accounts", "from %s", s.AccountSource)
	c := s.Certificate
	line("certificate", "%s key, serial %s, issued by %q", c.Key, c.Serial, c.Issuer)
	line("", "SHA-256 %s", c.Fingerprint)
	for _, e := range s.Expiries {
		what := map[string]string{"leaf": "this machine's certificate", "chain": "intermediate CA " + e.Name, "ca": "trusted CA " + e.Name,
			"crl": "revocation list " + e.Name}[e.Kind]
		line("valid until", "%s%s: %s", stamp(e.NotAfterUnix), remaining(time.Unix(e.NotAfterUnix, 0).Sub(now)), what)
	}
	counters := func(what string, c *adminpb.Counters) {
		line(what, "%d accepted, %d failed, %d under way, %d waiting", c.GetAccepted(), c.GetRefused(),
			c.GetInFlight(), c.GetWaiting())
	}
	counters("as client", s.Initiator)
	counters("as server", s.Responder)
	line("connections", "%d of local applications", s.Connections)
	r := s.Reloads
	line("reloads", "%d done, %d refused; in force since %s", r.GetSucceeded(), r.GetFailed(),
		stamp(r.GetLastSuccessUnix()))
	if !r.GetLastOk() {
		text := "the last one was refused; its reason is in the log"
		if r.GetLastError() != "" {
			text = "the last one was refused: " + cli.OneLine(r.GetLastError())
		}
		line("", "%s", text)
	}
	for _, f := range s.Faults {
		kind := "fault"
		if f.Warning {
			kind = "warning"
		}
		line(kind, "%s", cli.OneLine(f.What))
		line("", "cure: %s", cli.OneLine(f.Cure))
	}
	if s.Privileged {
		for _, f := range s.LastFailures {
			side := "server"
			if f.Initiator {
				side = "client"
			}
			line("failed", "%s %s %s, %s with %s, handshake %s", stamp(f.Unix), f.Reason, or(f.Account, "(no account)"), side,
				or(f.Peer, "an unverified peer"), or(f.HandshakeId, "-"))
			line("", "%s", cli.OneLine(f.Text))
		}
	} else {
		line("failures", "are shown to root")
	}
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02 15:04:05Z") }
