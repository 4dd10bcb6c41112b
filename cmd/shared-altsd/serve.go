package main

import (
	"context"
	"encoding/asn1"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

var serveCommand = &cli.Command{
	Name:    "serve",
	Summary: "run the daemon, in the foreground, until SIGTERM",
	About: `
Runs the daemon of this machine: applications reach it by a UNIX socket, the kernel tells it which account asks, and it
proves account@machine to the daemons of other machines with this machine's certificate.

  shared-altsd serve --credentials /etc/shared-altsd/machine.pem --ca /etc/shared-altsd/ca.pem

SIGHUP, and a change of the files of --credentials, --key, --ca and --crl, bring all of them into force together for
the next handshake, or none, with the reason in the log. SIGTERM and SIGINT let handshakes in flight finish; a second
one does not. Sockets that systemd passes (LISTEN_FDS) are served in the place of --socket.`,
	Config: configFile("Log and configuration:"),
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(serveConfig)
		return c.options(), func([]string) error { return serve(c) }
	},
}

// A socketSpec is one --socket.
type socketSpec struct {
	path string
	uids service.UIDRanges // nil: every uid
}

// serveConfig is what the flags of serve say.
type serveConfig struct {
	sockets        []socketSpec
	socketMode     fs.FileMode
	socketGroup    int // gid, -1 for the daemon's own
	files          certFiles
	publishGroups  []string
	secureNaming   service.SecureNaming
	serverAccounts []string
	minVersion     int
	handshake      time.Duration
	statement      time.Duration
	drain          time.Duration
	limits         service.Limits
	metrics        metricsAddr
	logLevel       string
	logFormat      string
}

// options is the one table of serve's flags, bound to c.
func (c *serveConfig) options() []cli.Option {
	const (
		local  = "Local applications:"
		naming = "Who may talk to whom:"
		limits = "Times and limits:"
		logs   = "Log and configuration:"
	)
	c.socketGroup = -1
	account := func(v string) error { return certbind.ValidAccount(v, true) }
	socket := cli.Option{
		Name: "socket", Group: local, Repeat: true, Value: cli.Func("PATH[,uids=N-M]", c.addSocket).CompleteFiles(),
		Help: "UNIX socket for applications, " + localsock.DefaultPath + " if none is given. With uids, only callers of these uids " +
			"are served (several ranges: uids=N-M+N-M): the only kind of socket to mount into a container.",
	}
	o := append(c.files.options(), socket,
		cli.Option{Name: "socket-mode", Default: "0666", Group: local, Value: cli.Func("MODE", c.setSocketMode),
			Help: "Permission bits of the sockets, octal."},
		cli.Option{Name: "socket-group", Group: local, Value: cli.Func("GROUP", c.setSocketGroup),
			Help: "Group of the sockets, a name or a number."},
		cli.Option{Name: "publish-groups", Group: local,
			Value: cli.List(&c.publishGroups, "GROUPS", account),
			Help:  "Groups, separated by commas, whose membership peers are told of as an attribute of the account."},
		cli.Option{Name: "secure-naming", Default: "strict", Group: naming,
			Value: cli.Func("strict|dns|off", c.setSecureNaming).CompleteChoices("strict", "dns", "off"),
			Help: "Whether the peer's certificate has to be valid for the host that a client dialled, where the client names " +
				"no target accounts. dns lets IP addresses through, off checks nothing."},
		cli.Option{Name: "server-accounts", Group: naming, Value: cli.List(&c.serverAccounts, "ACCOUNTS", account),
			Help: "Accounts, separated by commas, that a client without target accounts accepts as server; 'same' is the " +
				"client's own account name."},
		cli.Option{Name: "allow-domain-accounts", Group: naming, Value: cli.Switch(&c.files.allowDomain),
			Help: "Accept '@' and '\\' in account names, here and in those of peers."},
		cli.Option{Name: "min-version", Default: "1", Group: naming, Value: cli.Int(&c.minVersion, "N", 1, 1),
			Help: "Least version of the inter-daemon protocol that is accepted. This build serves version 1 alone."},
		cli.Option{Name: "handshake-timeout", Default: "10s", Group: limits,
			Value: cli.Duration(&c.handshake, time.Second, 5*time.Minute),
			Help:  "How long a handshake may take, from the first bytes of the peer."},
		cli.Option{Name: "statement-lifetime", Default: "6h", Group: limits,
			Value: cli.Duration(&c.statement, 15*time.Minute, 23*time.Hour),
			Help:  "How long a signed statement is valid, and after which time the static key is replaced."},
		cli.Option{Name: "drain-timeout", Default: "20s", Group: limits,
			Value: cli.Duration(&c.drain, 0, 10*time.Minute),
			Help:  "How long SIGTERM waits for handshakes in flight."},
	)
	o = append(o, c.limitOptions(limits)...)
	return append(o,
		cli.Option{Name: "metrics", Group: logs, Value: cli.Func("ADDR|unix:PATH", c.metrics.set),
			Help: "Serve metrics for Prometheus at http://ADDR/metrics, a loopback address and port such as 127.0.0.1:9464, or " +
				"on a UNIX socket. A socket of systemd's with FileDescriptorName=metrics does the same."},
		cli.Option{Name: "log-level", Default: "info", Group: logs,
			Value: cli.Choice(&c.logLevel, "LEVEL", "debug", "info", "warn", "error"),
			Help:  "Least level that is logged: debug, info, warn or error. The log goes to standard error."},
		cli.Option{Name: "log-format", Default: "text", Group: logs,
			Value: cli.Choice(&c.logFormat, "FORMAT", "text", "json"),
			Help:  "text or json."},
	)
}

// options are the flags about certificates, which serve and check share.
func (f *certFiles) options() []cli.Option {
	const group = "Certificates:"
	return []cli.Option{
		{Name: "credentials", Group: group, Value: cli.File(&f.credentials),
			Help: "PEM file with this machine's certificate chain and private key, in any order."},
		{Name: "key", Group: group, Value: cli.File(&f.key),
			Help: "PEM file with the private key, if it is not in --credentials."},
		{Name: "ca", Group: group, Repeat: true, Value: cli.Func("[NAMES=]FILE", f.addCA).CompleteFiles(),
			Help: "PEM file with CA certificates whose machines are trusted. With NAMES, separated by commas, they vouch only " +
				"for machines of these names and below: 'example.com,hpc.example.com=FILE'. The FILE 'system' is the " +
				"system's pool, which can be used only with NAMES."},
		{Name: "crl", Group: group, Repeat: true, Value: cli.Files(&f.crls),
			Help: "Certificate revocation list, PEM or DER."},
		{Name: "crl-stale-ok", Group: group, Value: cli.Switch(&f.crlStaleOK),
			Help: "Go on with a revocation list that is past its next update. Otherwise it fails every chain of its issuer."},
		{Name: "machine-name", Group: group, Value: cli.Func("NAME", f.setMachineName),
			Help: "Name of this machine, one of the DNS names in its certificate. Needed where there are several and none is " +
				"the host's own full name."},
		{Name: "require-eku", Group: group, Value: cli.Func("OID", f.setRequireEKU),
			Help: "Extended key usage that every peer's certificate has to name, such as 1.3.6.1.4.1.32473.1.1. " +
				"Recommended: without it, whoever can read a host's TLS key speaks for every account there."},
	}
}

func (f *certFiles) addCA(v string) error {
	names, file, err := parseCAFlag(v)
	if err != nil {
		return err
	}
	f.cas = append(f.cas, caFile{names, file})
	return nil
}

func (f *certFiles) setMachineName(v string) error {
	f.machineName = ascii.Lower(v)
	return certbind.ValidMachineName(f.machineName)
}

func (f *certFiles) setRequireEKU(v string) error {
	var oid asn1.ObjectIdentifier
	for _, arc := range strings.Split(v, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is not an OID: write numbers joined by dots, such as 1.3.6.1.4.1.32473.1.1", v)
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 3 {
		return fmt.Errorf("%q is too short for an OID of a purpose: write numbers joined by dots, such as "+
			"1.3.6.1.4.1.32473.1.1", v)
	}
	f.requireEKU = oid
	return nil
}

func (c *serveConfig) addSocket(v string) error {
	path, ranges, limited := strings.Cut(v, ",uids=")
	s := socketSpec{path: path}
	if err := localsock.CheckPath(path); err != nil {
		return err
	}
	if limited {
		var err error
		if s.uids, err = service.ParseUIDRanges(ranges); err != nil {
			return err
		}
	}
	for _, other := range c.sockets {
		if other.path == path {
			return fmt.Errorf("%s is given twice: give it once", path)
		}
	}
	c.sockets = append(c.sockets, s)
	return nil
}

func (c *serveConfig) setSocketMode(v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a mode: give permission bits in octal, such as 0666", v)
	}
	c.socketMode = fs.FileMode(n)
	return nil
}

func (c *serveConfig) setSecureNaming(v string) (err error) {
	c.secureNaming, err = service.ParseSecureNaming(v)
	return err
}

// groupID returns the gid of a group's name or number.
func groupID(name string) (int, error) {
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("no group %q in the system's database: create it with groupadd, or give a number", name)
	}
	return strconv.Atoi(g.Gid)
}

func (c *serveConfig) setSocketGroup(v string) (err error) {
	c.socketGroup, err = groupID(v)
	return err
}

func (c *serveConfig) limitOptions(group string) []cli.Option {
	const most = 1 << 20
	return []cli.Option{
		{Name: "max-handshakes", Default: "200", Group: group, Value: cli.Int(&c.limits.Handshakes, "N", 1, most),
			Help: "Handshakes that one account may have under way as client, and as many as server. More wait in turn until " +
				"their deadline."},
		{Name: "max-handshakes-total", Default: "2000", Group: group, Value: cli.Int(&c.limits.TotalHandshakes, "N", 1, most),
			Help: "Handshakes under way in all."},
		{Name: "max-connections", Default: "1024", Group: group, Value: cli.Int(&c.limits.Connections, "N", 1, most),
			Help: "Connections that one account may have to the daemon."},
		{Name: "max-streams", Default: "1024", Group: group, Value: cli.Int(&c.limits.Streams, "N", 1, most),
			Help: "Streams that one account may have open without a handshake under way: gRPC libraries open them ahead."},
	}
}

// A daemon is a running serve.
type daemon struct {
	config    *serveConfig
	log       *slog.Logger
	notify    *systemd.Notifier
	metrics   *metrics.Set
	machine   *certbind.Machine
	announcer *announcer
	reloader  *reloader
	server    *service.Server
	admin     *admin
	sockets   *sockets
}

// serve runs the daemon until a signal ends it.
func serve(c *serveConfig) error {
	if err := harden(); err != nil {
		return err
	}
	log := c.newLogger(os.Stderr)
	notify, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	// From here on a SIGHUP that comes early must not end the daemon.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	d, err := newDaemon(c, log, notify)
	if err != nil {
		return err
	}
	return d.run(signals)
}

// newLogger returns the daemon's log, which goes to f.
func (c *serveConfig) newLogger(f *os.File) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.logLevel)) // the option admits only names that slog knows
	o := &slog.HandlerOptions{Level: level}
	return slog.New(systemd.NewHandler(f, func(w io.Writer) slog.Handler {
		if c.logFormat == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}))
}

// newDaemon loads the files and binds the sockets, in this order, so that a daemon that cannot work touches no socket.
func newDaemon(c *serveConfig, log *slog.Logger, notify *systemd.Notifier) (_ *daemon, err error) {
	d := &daemon{config: c, log: log, notify: notify}
	state := c.files.state()
	l, err := c.files.load(c.files.machineName)
	if err != nil {
		return nil, err
	}
	d.machine, err = certbind.NewMachine(certbind.MachineConfig{
		Credential: l.credential, Name: l.name, Trust: l.trust, Window: c.statement, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	d.metrics = metrics.New(version.Number())
	d.announcer = newAnnouncer(d.machine, log)
	d.reloader = newReloader(c.files, state, d.machine, log, func(err error) {
		d.metrics.Reload(err)
		d.announcer.announce()
	})
	accounts := service.NewAccounts(service.AccountOptions{AllowDomainAccounts: c.files.allowDomain,
		Groups: c.publishGroups})
	d.server, err = service.New(service.Config{
		Machine:             d.machine,
		Accounts:            accounts,
		PublishGroups:       c.publishGroups,
		AllowDomainAccounts: c.files.allowDomain,
		SecureNaming:        c.secureNaming,
		ServerAccounts:      c.serverAccounts,
		MinVersion:          byte(c.minVersion),
		HandshakeTimeout:    c.handshake,
		Limits:              c.limits,
		Logger:              log,
		OnFinish:            countIn(d.metrics),
	})
	if err != nil {
		return nil, withFlag(err)
	}
	d.admin = addAdmin(d.server, d.machine, accounts, d.reloader, d.metrics)
	if d.sockets, err = listen(c, log); err != nil {
		return nil, err
	}
	for _, w := range l.warnings {
		log.Warn(w)
	}
	var paths, cas []string
	for _, s := range d.sockets.local {
		paths = append(paths, s.Path)
		for _, w := range s.Warnings {
			log.Warn(w)
		}
	}
	for _, ca := range c.files.cas {
		cas = append(cas, strings.Join(append(ca.names, ca.file), "="))
	}
	log.Info("shared-altsd starts", append([]any{"version", version.Number()}, append(credentialAttrs(l),
		"sockets", strings.Join(paths, " "), "cas", strings.Join(cas, " "), "users", service.AccountSource)...)...)
	logFaults(log, l)
	return d, nil
}

// run serves until a signal or a failure ends it. All that happens from time to time happens in its loop, so that the
// watchdog of the service manager sees it when that loop hangs.
func (d *daemon) run(signals <-chan os.Signal) error {
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
	for _, s := range d.sockets.local {
		go func() { failed <- d.server.Serve(s.UnixListener, s.uids) }()
	}
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	announce := time.NewTicker(announceInterval)
	defer announce.Stop()
	rotate := time.NewTicker(d.config.statement)
	defer rotate.Stop()
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
			d.reloader.poll()
		case <-announce.C:
			d.announcer.announce()
		case <-rotate.C:
			if err := d.machine.RotateStatic(); err != nil {
				d.log.Error("the static key could not be replaced, the old one stays in use", "error", err)
			}
		case <-watchdog:
			d.notify.Watchdog()
		case err := <-failed:
			return fmt.Errorf("serving a socket: %w", err)
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.hangup()
				continue
			}
			d.drain(s, signals)
			return nil
		}
	}
}

// hangup is what SIGHUP does, with word to the service manager before and after.
func (d *daemon) hangup() {
	d.notify.Reloading()
	if err := d.reloader.Reload(nil); err != nil {
		d.notify.Ready("reload refused: " + cli.OneLine(err.Error()))
		return
	}
	d.notify.Ready("serving as " + d.machine.Name())
}

// drain takes no new handshakes and lets those in flight finish, until --drain-timeout or a second signal.
func (d *daemon) drain(s os.Signal, signals <-chan os.Signal) {
	d.notify.Stopping()
	d.admin.drain()
	d.log.Info("stopping", "signal", s.String(), "waits up to", d.config.drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), d.config.drain)
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
