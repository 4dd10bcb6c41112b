// Package connect lends this account's identity to local programs: what connects here from a socket of the account is
// carried, once the kernel has said whose it is, to one named account on another machine, proved by the daemons of both.
package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/httpfwd"
	"github.com/shared-altsd/shared-altsd/internal/reach"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// Config is what connect has to know.
type Config struct {
	Target  Target
	Dial    string // HOST:PORT, if it is not the target's
	Service string // "": the target's port
	Listen  []Place
	For     []uint32 // accounts that are served besides this one
	Setenv  []Setting
	Hold    bool // a UNIX socket whose peer's end was not clean stays open
	GRPC    bool
	HTTP    bool // requests that come by TCP are looked at

	Limits   forward.Limits // but Drain
	Metrics  string         // as metrics.ParseAddr reads it, "" for none
	LogLevel slog.Level

	Socket    string // the daemon's
	DaemonUID uint32

	protocol string
}

// drain is how long connections may go on whose programs have ended or are to: what these have sent is still on its way.
const drain = 5 * time.Second

// prepare sets what follows from the rest.
func (c *Config) prepare() (err error) {
	if c.Service == "" {
		c.Service = c.Target.Port
	}
	if c.Limits.Drain = drain; c.GRPC {
		c.protocol = "grpc"
		return nil
	}
	c.protocol, err = altscreds.ServiceProtocol(c.Service)
	return err
}

// Join joins standard input and output with the target, and returns nil only after the peer has said his end.
func (c *Config) Join() error {
	if err := c.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { cancel(fmt.Errorf("ended by a signal: %v", <-signals)) }()
	return c.join(ctx, os.Stdin, os.Stdout)
}

// join is Join until ctx ends, which does not wait for who has the other end of either file.
func (c *Config) join(ctx context.Context, in, out *os.File) error {
	s, err := newTerminus(in, out)
	if err != nil {
		return err
	}
	peer, err := c.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	defer peer.Close()
	ended := make(chan error, 3)
	s.afterSilence(func() { ended <- nil })
	s.watchOutput(func(err error) { ended <- err })
	go func() { ended <- c.explainCut(forward.Carry(ctx, s, peer, forward.Ends{})) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return &explained{fmt.Sprintf("the connection with %v was not ended cleanly: %v", c.Target, err), err}
	}
	return nil
}

// A server serves local programs.
type server struct {
	config  *Config
	log     *slog.Logger
	callers *callers
	forward *forward.Server
	metrics net.Listener   // nil for none
	http    *httpfwd.Local // nil for none
	places  *places
}

// newServer returns one that listens. dir is where private sockets are.
func (c *Config) newServer(dir string) (_ *server, err error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	s := &server{config: c, log: forward.NewLogger(c.LogLevel)}
	if s.callers, err = newCallers(c.For, func(err error) { s.log.Warn("connection refused", "reason", err.Error()) }); err != nil {
		return nil, err
	}
	s.forward = &forward.Server{New: s.newLink, Log: s.log,
		Metrics: forward.NewMetrics("connect", c.Service, c.Socket, c.DaemonUID)}
	s.forward.SetLimits(c.Limits)
	if s.metrics, err = forward.ListenMetrics(c.Metrics); err != nil {
		return nil, err
	}
	if s.places, err = listenAll(c.Listen, dir, len(c.For) > 0); err != nil {
		s.close()
		return nil, err
	}
	if c.HTTP {
		s.http = httpfwd.NewLocal(httpfwd.LocalConfig{Hosts: s.places.hosts(), Log: s.log})
	}
	return s, nil
}

// run serves until a signal comes; another one ends what it then waits for.
func (s *server) run(signals <-chan os.Signal, notify *systemd.Notifier) {
	defer s.close()
	defer systemd.Flush(s.log.Handler())
	s.log.Info("shared-altsd connect starts", "version", version.Number(), "peer", s.config.Target.Account,
		"address", s.config.address(), "protocol", s.config.protocol, "listens", s.places.String())
	p := &forward.Process{Server: s.forward, Signals: signals, Notify: notify, MetricsOn: s.metrics,
		Status: func() string { return "connects programs here to " + s.config.Target.String() }}
	watched, stop := context.WithCancel(context.Background())
	defer stop()
	go s.places.watch(watched, s.log)
	if s.http != nil {
		p.Stopping = func() { s.http.Shutdown(context.Background()) }
	}
	p.Run(context.Background(), s.places.listeners...)
}

func (s *server) close() {
	s.places.close()
	if s.metrics != nil {
		s.metrics.Close()
	}
	if s.http != nil {
		s.http.Close()
	}
}

// Serve serves local programs until SIGTERM or SIGINT. It changes what belongs to the whole process: the slack of timers,
// signals, and the variables by which systemd speaks to it.
func (c *Config) Serve() error {
	inexact := timerslack.Set(forward.TimerSlack) // may execute the program again
	signals := forward.Signals()
	notify, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	s, err := c.newServer("")
	if err != nil {
		return err
	}
	if inexact != nil {
		s.log.Warn("timers stay exact, which costs a few percent of processor time", "error", inexact)
	}
	s.run(signals, notify)
	return nil
}

// Check returns what of the configuration does not go together.
func (c *Config) Check(command []string) error {
	private := slices.ContainsFunc(c.Listen, Place.private)
	switch {
	case len(command) > 0 && len(c.Listen) == 0:
		return errors.New("COMMAND has nothing to connect to: give --listen unix:NAME, a socket in its private directory")
	case len(command) == 0 && private:
		return errors.New("--listen with a path that does not begin with / is in the private directory of a COMMAND, and there is none: " +
			"give an absolute path")
	case len(command) == 0 && len(c.Setenv) > 0:
		return errors.New("--setenv is for a COMMAND, and there is none: give one behind --")
	case private && len(c.For) > 0:
		return errors.New("--for, but others cannot come near a socket in a private directory: give an absolute path")
	case c.GRPC && c.HTTP:
		return errors.New("--grpc and --http: the first carries gRPC as it is, to any server of it; the second looks at HTTP's requests")
	case c.HTTP && !c.has("tcp"):
		return errors.New("--http looks at requests that come by TCP, and there is no such listener: give --listen 127.0.0.1:PORT, or leave " +
			"it out: what comes otherwise is carried as it is")
	case c.Hold && !c.has("unix"):
		return errors.New("--unclean hold is for UNIX sockets, and there is none: give --listen unix:PATH, or leave it out: at TCP such an " +
			"end is a reset, and without a listener exit status 1")
	case len(c.Listen) == 0 && len(c.For) > 0:
		return errors.New("--for is for listeners, and there is none: give --listen")
	case len(c.Listen) == 0 && c.Metrics != "":
		return errors.New("--metrics is for listeners, and there is none: give --listen")
	}
	return nil
}

// has reports whether there is a listener of that kind; one of the service manager's may be of either.
func (c *Config) has(kind string) bool {
	return slices.ContainsFunc(c.Listen, func(p Place) bool { return p.kind == kind || p.kind == "systemd" })
}

// probe returns why the daemon does not answer, before a command is started for nothing.
func (c *Config) probe() error { return reach.Daemon(context.Background(), c.Socket, c.DaemonUID) }

func (p *places) String() string {
	var list []string
	for _, l := range p.listeners {
		list = append(list, l.Addr().String())
	}
	return strings.Join(list, ", ")
}
