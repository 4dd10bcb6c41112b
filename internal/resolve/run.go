package resolve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// inFlight bounds the questions at a time: three quarters of it are what a daemon has in flight (internal/dane), with some room.
const inFlight = 96

// Config is what `shared-altsd resolve` is told.
type Config struct {
	Resolver   netip.AddrPort // the zero one to take that of ResolvConf
	ResolvConf string
	Socket     string   // "" for the service manager's
	Clients    []string // accounts that may ask
	LogLevel   slog.Level
}

func (c *Config) log(w *os.File) *slog.Logger {
	return slog.New(systemd.NewHandler(w, func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: c.LogLevel})
	}))
}

// Run answers daemons until a signal ends it.
func Run(c *Config) error {
	addr, err := Choose(c.Resolver, c.ResolvConf)
	if err != nil {
		return err
	}
	clients, err := companion.Accounts(c.Clients)
	if err != nil {
		return err
	}
	notify, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	l, end, err := companion.Listen(c.Socket)
	if err != nil {
		return err
	}
	defer end()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := c.log(os.Stderr)
	defer systemd.Flush(log.Handler())
	log.Info("shared-altsd resolve starts", "version", version.Number(), "resolver", addr.String(), "socket", l.Addr().String())
	r := New(addr, log)
	go r.Watch(ctx)
	context.AfterFunc(ctx, notify.Stopping)
	notify.Ready("asks " + addr.String())
	s := &companion.Server{Protocol: Protocol, Clients: clients, InFlight: inFlight, Handle: r.Handle, Log: log}
	return s.Serve(ctx, l)
}

// Ask asks once what DNS says of a machine, and writes it as a daemon would hear it. It reports whether that can vouch for
// anybody.
func Ask(c *Config, machine string, w io.Writer) (bool, error) {
	addr, err := Choose(c.Resolver, c.ResolvConf)
	if err != nil {
		return false, err
	}
	if err := certbind.ValidMachineName(machine); err != nil {
		return false, err
	}
	a := New(addr, c.log(os.Stderr)).Lookup(context.Background(), machine)
	fmt.Fprintf(w, "%s by %v: %v", certbind.TLSAOwner(machine), addr, a.Outcome)
	if a.Outcome == Secure || a.Outcome == Absent {
		fmt.Fprintf(w, " for %v", a.TTL)
	}
	if a.Detail != "" {
		fmt.Fprintf(w, " (%s)", plain(a.Detail))
	}
	fmt.Fprintln(w)
	for _, rdata := range a.Records {
		fmt.Fprintf(w, "  TLSA %s\n", presentation(rdata))
	}
	return a.Outcome == Secure, nil
}

// presentation is a record as a zone file has it.
func presentation(rdata []byte) string {
	r, err := certbind.ParseTLSA(rdata)
	if err != nil {
		return fmt.Sprintf("\\# %d %x", len(rdata), rdata) // RFC 3597
	}
	return r.String()
}
