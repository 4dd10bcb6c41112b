// Package daemon is the running daemon: it reads the files, binds the sockets, reloads, and says what it is doing.
//
// It is the program's own, so that its errors and cures name the flags of serve.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/dane"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

// A Daemon is the service of one machine, with all that it has open.
type Daemon struct {
	config    Config
	log       *slog.Logger
	notify    *systemd.Notifier
	metrics   *metrics.Set
	machine   *certbind.Machine
	announcer *announcer
	dns       *dane.Resolver // nil where DNS vouches for no machine
	policy    *standard
	denied    *deniedStore
	reloader  *reloader
	server    *service.Server
	admin     *admin
	sockets   *sockets
}

// timerSlack is how late timers of the daemon may be: less than anybody sees, and more than Go's scheduler sleeps.
const timerSlack = 5 * time.Millisecond

// Serve runs a daemon until a signal ends it. It changes what belongs to the whole process: core dumps, umask, signals,
// the slack of timers, and the variables by which systemd speaks to it.
func Serve(c Config) error {
	inexact := timerslack.Set(timerSlack) // may execute the program again
	if err := harden(); err != nil {
		return err
	}
	log := newLogger(os.Stderr, c.LogLevel, c.LogJSON)
	defer systemd.Flush(log.Handler())
	if inexact != nil {
		log.Warn("timers stay exact, which costs a few percent of processor time", "error", inexact)
	}
	notify, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	// From here on a SIGHUP that comes early must not end the daemon.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	d, err := New(c, log, notify)
	if err != nil {
		return err
	}
	return d.Run(signals)
}

// New loads the files and binds the sockets, in this order, so that a daemon that cannot work touches no socket.
func New(c Config, log *slog.Logger, notify *systemd.Notifier) (_ *Daemon, err error) {
	settings, err := newSettings(&c, log)
	if err != nil {
		return nil, err
	}
	c.Files.findListDirs()
	d := &Daemon{config: c, log: log, notify: notify}
	state, listsState := c.Files.state(), c.Files.listDirsState(nil)
	l, err := c.Files.load("")
	if err != nil {
		return nil, err
	}
	memory, err := openListMemory(c.Files.stateDir(), log)
	if err != nil {
		return nil, err
	}
	var passed []certbind.PassedOver
	if l.trust, passed, err = c.Files.offer(l.trust, l.credential.Chain, memory.marks, nil); err != nil {
		return nil, err
	}
	l.trust = c.Files.demand(l.trust, memory.marks)
	d.machine, err = certbind.NewMachine(certbind.MachineConfig{
		Credential: l.credential, Name: l.name, Trust: l.trust, Window: c.StatementLifetime, Cached: c.VerifiedPeers,
		Logger: log,
	})
	if err != nil {
		return nil, err
	}
	d.metrics = metrics.New(version.Number(), l.name)
	d.metrics.SetCAs(countedCAs(l.trust))
	accounts := service.NewAccounts(c.Files.accounts(c.PublishGroups))
	d.dns = newDNS(&c.Files, d.machine, log)
	d.server, err = service.New(service.Config{
		Machine:             d.machine,
		Resolver:            asResolver(d.dns),
		Accounts:            accounts,
		PublishGroups:       c.PublishGroups,
		AllowDomainAccounts: c.Files.domainAccounts(),
		SecureNaming:        c.SecureNaming,
		ServerAccounts:      c.ServerAccounts,
		MinVersion:          byte(c.MinVersion),
		KeepRevoked:         c.KeepRevoked,
		HandshakeTimeout:    c.HandshakeTimeout,
		Limits:              c.Limits,
		Logger:              log,
		OnFinish:            countIn(d.metrics),
	})
	if err != nil {
		return nil, withFlag(err)
	}
	d.policy = &standard{rules: l.rules, apply: d.server.SetPolicy, forget: d.server.ForgetWould}
	if d.denied, err = openDenied(c.Denied, d.policy, log); err != nil {
		return nil, err
	}
	d.policy.start()
	d.announcer = newAnnouncer(d.machine, log)
	d.reloader = newReloader(c.Files, state, d.machine, d.policy, memory, log, func(err error, refused *refusal) {
		var since time.Time
		if refused != nil {
			since = refused.since
		}
		d.metrics.Reload(err, since)
		d.metrics.SetCAs(countedCAs(d.machine.Trust()))
		d.announcer.announce()
	})
	d.reloader.settings = settings
	d.reloader.beginLists(listsState, passed)
	d.admin = addAdmin(d.server, d.machine, d.dns, d.reloader, d.policy, d.denied, d.metrics, d.state)
	adminpb.RegisterRulesServer(d.server, &rulesTest{policy: d.policy, server: d.server, accounts: c.Files.accounts(nil)})
	if d.sockets, err = listen(&c, log); err != nil {
		return nil, err
	}
	d.reloader.remember()
	d.logStart(l)
	return d, nil
}

// Run serves until one of signals or a failure ends it. All that happens from time to time happens in its loop, so that
// the watchdog of the service manager sees it when that loop hangs, but for what signs, which a slow key makes long.
func (d *Daemon) Run(signals <-chan os.Signal) error {
	defer d.sockets.close(d.log)
	failed := make(chan error, len(d.sockets.local)+1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if d.sockets.metrics != nil {
		go func() {
			if err := d.metrics.Serve(ctx, d.sockets.metrics, d.state); err != nil {
				failed <- err
			}
		}()
	}
	serve := func(s *servedSocket) error {
		accept, err := s.service.Take(s.Unix())
		if err != nil {
			return err
		}
		go func() {
			if err := accept(); err != nil {
				failed <- err
			}
		}()
		return nil
	}
	for _, s := range d.sockets.local {
		var err error
		if s.service, err = d.server.NewSocket(s.use); err != nil {
			return err
		}
		if err := serve(s); err != nil {
			return err
		}
		go s.announceFault(ctx, d.log)
	}
	go d.denied.watch(ctx.Done())
	if d.dns != nil {
		go d.dns.Watch(ctx.Done())
	}
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	announce := time.NewTicker(announceInterval)
	defer announce.Stop()
	rotate := time.NewTicker(d.config.StatementLifetime)
	defer rotate.Stop()
	polls, hangups := newSideline(ctx.Done(), d.reloader.poll), newSideline(ctx.Done(), d.hangup)
	key := &signerWatch{machine: d.machine, log: d.log}
	keys := newSideline(ctx.Done(), func() { key.look(time.Now()) })
	keys.ask()
	rotations := newSideline(ctx.Done(), func() { d.rotateStatic(ctx.Done()) })
	var watchdog <-chan time.Time
	if interval := systemd.WatchdogInterval(); interval > 0 {
		t := time.NewTicker(interval)
		defer t.Stop()
		watchdog = t.C
	}
	d.announcer.announce()
	d.notify.Ready("serving as " + d.machine.Name())
	for {
		select {
		case <-poll.C:
			polls.ask()
		case <-watch.C:
			if err := d.sockets.watch(d.log, serve); err != nil {
				return err
			}
		case <-announce.C:
			d.announcer.announce()
			d.reloader.remember()
			keys.ask()
		case <-rotate.C:
			rotations.ask()
		case <-watchdog:
			if !d.reloader.hangs() {
				d.notify.Watchdog()
			}
		case err := <-failed:
			return fmt.Errorf("serving a socket: %w", err)
		case s := <-signals:
			if s == syscall.SIGHUP {
				hangups.ask()
				continue
			}
			d.drain(s, signals)
			return nil
		}
	}
}

// rotateStatic replaces the static key. Where the machine's key does not sign it is tried again, so that no static key
// lives for long once it does.
func (d *Daemon) rotateStatic(done <-chan struct{}) {
	for {
		err := d.machine.RotateStatic()
		if err == nil {
			return
		}
		d.log.Error("the static key could not be replaced, the old one stays in use", "error", err,
			"retry", retryInterval.String())
		select {
		case <-done:
			return
		case <-time.After(retryInterval):
		}
	}
}

// hangup is what SIGHUP does, with word to the service manager before and after.
func (d *Daemon) hangup() {
	d.notify.Reloading()
	_, err := d.reloader.Reload(reloadRequest{})
	switch {
	case d.admin.draining.Load(): // the service manager has been told that it stops
	case err != nil:
		d.notify.Ready("reload refused: " + cli.OneLine(err.Error()))
	default:
		d.notify.Ready("serving as " + d.machine.Name())
	}
}

// drain takes no new handshakes and lets those in flight finish, until DrainTimeout is over or a second signal comes.
func (d *Daemon) drain(s os.Signal, signals <-chan os.Signal) {
	d.notify.Stopping()
	d.admin.drain()
	d.log.Info("stopping", "signal", s.String(), "drain", d.config.DrainTimeout.String())
	ctx, cancel := context.WithTimeout(context.Background(), d.config.DrainTimeout)
	defer cancel()
	go func() {
		for s := range signals {
			if s != syscall.SIGHUP {
				cancel()
				return
			}
		}
	}()
	if err := d.server.Shutdown(ctx); err != nil {
		d.log.Warn("stopped with handshakes in flight, which were cut", "cause", err)
		return
	}
	d.log.Info("stopped")
}
