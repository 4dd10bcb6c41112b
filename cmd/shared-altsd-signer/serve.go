package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/nodumps"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// inFlight bounds the signatures under way, of which a device makes one at a time.
const inFlight = 32

var serveCommand = &cli.Command{
	Name:    "serve",
	Summary: "sign the statements of this machine's daemon, in the foreground, until SIGTERM",
	About: `
Serves the daemon by a UNIX socket: systemd's, or that of --socket. Who asks is known from the kernel.

  shared-altsd-signer serve --key tpm:machine-key.pem --certificates machine.pem --client shared-altsd \
      --socket /run/shared-altsd-signer/socket

A key that can never sign as peers demand it ends the start, with the cure. A device that is not there, and a PIN that is
wrong, do not: the daemon is told why, the device is looked for again, and a PIN is tried again when its file changes.`,
	Config: configFile,
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(serveFlags)
		return c.options(), func([]string) error {
			if err := c.check(); err != nil {
				return err
			}
			return c.serve()
		}
	},
}

// configFile lets check read the file of serve.
var configFile = &cli.ConfigFile{
	Group: "Configuration:", Help: "File with these flags, one 'name = value' a line. The command line wins.",
	Options: func() []cli.Option { return new(serveFlags).options() },
	Read:    readOwn,
}

// serveFlags are those of serve and check, which read one file.
type serveFlags struct {
	keyFlags
	clients []string
	socket  string
	rate    int
}

func (c *serveFlags) options() []cli.Option {
	const group = "Who may ask:"
	return append(c.keyFlags.options(),
		cli.Option{Name: "client", Group: group, Repeat: true, Value: cli.Strings(&c.clients, "ACCOUNT"),
			Help: "The daemon's account, by name or uid. Root and the signer's own account may ask besides."},
		cli.Option{Name: "socket", Group: group, Value: cli.File(&c.socket),
			Help: "UNIX socket to serve, where systemd passes none. Every account may connect to it; the kernel says who does."},
		cli.Option{Name: "rate", Default: fmt.Sprint(signer.UsualRate), Group: group, Value: cli.Int(&c.rate, "N", 1, 10000),
			Help: "How many signatures a second are made. A thousand more are made at once after a quiet time."})
}

// errOpening is what is told until the first attempt to open the key is over.
var errOpening = errors.New("the signer is still opening its key: see whether the device hangs")

func (c *serveFlags) serve() error {
	log := slog.New(systemd.NewHandler(os.Stderr, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }))
	defer systemd.Flush(log.Handler())
	if err := nodumps.Set(); err != nil {
		return err
	}
	unix.Umask(0o077)
	notifier, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	clients, err := companion.Accounts(c.clients)
	if err != nil {
		return err
	}
	l, end, err := companion.Listen(c.socket)
	if err != nil {
		return err
	}
	defer end()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	var s current
	s.away.Store(&errOpening)
	ctx, cancel := context.WithCancelCause(ctx) // with what ends it besides a signal
	defer cancel(nil)
	opened, tried := context.WithTimeout(ctx, firstPatience)
	defer tried()
	var open sync.WaitGroup
	server := &companion.Server{Protocol: signer.Protocol, Clients: clients, InFlight: inFlight, Handle: s.handle, Log: log}
	open.Go(func() {
		if err := c.open(ctx, &s, log, tried); err != nil {
			cancel(err)
		}
	})
	<-opened.Done()
	if ctx.Err() == nil {
		notifier.Ready(s.status())
		cancel(server.Serve(ctx, l))
		notifier.Stopping()
	}
	open.Wait()
	if key := s.key.Load(); key != nil {
		(*key).Close() // the end of the process closes what is left
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// A current is the signer once there is one, and before that why there is none.
type current struct {
	signer atomic.Pointer[signer.Signer]
	key    atomic.Pointer[signer.Key]
	away   atomic.Pointer[error]
}

func (s *current) handle(ctx context.Context, req []byte) []byte {
	if signing := s.signer.Load(); signing != nil {
		return signing.Handle(ctx, req)
	}
	return signer.Away(*s.away.Load())
}

func (s *current) status() string {
	if s.signer.Load() == nil {
		return "No key yet: " + (*s.away.Load()).Error()
	}
	return "Signing"
}

const (
	// firstPatience is how long a start waits for the device.
	firstPatience = 10 * time.Second
	longestPause  = 15 * time.Second
)

// open opens the key, as often as it takes, until it is open or ctx ends, or returns why there can never be a signer. tried is
// called after each attempt.
func (c *serveFlags) open(ctx context.Context, s *current, log *slog.Logger, tried func()) error {
	open := c.opener()
	said := ""
	for pause := time.Second; ; pause = min(2*pause, longestPause) {
		key, err := open(ctx)
		if err == nil {
			made, err := signer.New(signer.Config{Key: key, Where: c.where(), Certificates: c.certificates, Rate: c.rate, Log: log})
			if err != nil {
				key.Close()
				return err
			}
			s.key.Store(&key)
			s.signer.Store(made)
			log.Info("the key is open", "key", kind(key.Public()), "in", c.where(), "machine", made.Leaf().DNSNames)
			tried()
			return nil
		}
		var unfit *device.UnfitError
		if errors.As(err, &unfit) {
			return err
		}
		s.away.Store(&err)
		if text := err.Error(); text != said {
			said = text
			log.Warn("the key cannot be opened yet; it is tried again", "error", err)
		}
		tried()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
