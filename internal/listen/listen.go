package listen

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/httpfwd"
	"github.com/shared-altsd/shared-altsd/internal/ident"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// lookupWait bounds a question to the user database.
const lookupWait = 10 * time.Second

// settings are what a reload replaces as a whole.
type settings struct {
	config    *Config
	service   string
	protocols []string // the application protocols that are served
	allow     []policy.PeerPattern
	backend   backend
	dialHTTP  func(context.Context) (net.Conn, error) // with --http
}

// A listener is a running listen.
type listener struct {
	settings atomic.Pointer[settings]
	sockets  *sockets
	server   *forward.Server
	log      *slog.Logger
	spawner  *spawner
	ident    *ident.Ident    // nil for none
	http     *httpfwd.Server // nil for none
}

// Check says what is wrong with a configuration, as far as can be told without listening.
func Check(c *Config) error {
	if err := c.check(); err != nil {
		return err
	}
	_, err := c.targetUID()
	return err
}

// Run serves c until a signal ends it. At SIGHUP it takes what read returns, if nothing is wrong with that. It changes what
// belongs to the whole process: the slack of timers, umask, signals, and the variables by which systemd speaks to it.
func Run(c *Config, read func() (*Config, error)) error {
	inexact := timerslack.Set(forward.TimerSlack) // may execute the program again
	if err := c.check(); err != nil {
		return err
	}
	signals := forward.Signals()
	unix.Umask(0o077)
	l := &listener{log: forward.NewLogger(c.LogLevel), spawner: newSpawner()}
	defer systemd.Flush(l.log.Handler())
	if inexact != nil {
		l.log.Warn("timers stay exact, which costs a few percent of processor time", "error", inexact)
	}
	var err error
	if l.sockets, err = c.bind(); err != nil {
		return err
	}
	if err := l.sockets.shed(); err != nil {
		return err
	}
	if l.sockets.metrics == nil {
		if l.sockets.metrics, err = forward.ListenMetrics(c.Metrics); err != nil {
			return err
		}
	}
	notify, err := systemd.NewNotifier()
	if err != nil {
		return err
	}
	if err := l.openIdent(c); err != nil {
		return err
	}
	if l.ident != nil {
		defer l.ident.Close()
	}
	s, err := l.prepare(c)
	if err != nil {
		return err
	}
	l.settings.Store(s)
	if c.HTTP {
		l.http = httpfwd.New(httpfwd.Config{Service: s.service, Dial: l.dialHTTP, Log: l.log})
		defer l.http.Close()
	}
	l.server = &forward.Server{New: l.accept, Log: l.log,
		Metrics: forward.NewMetrics("listen", s.service, c.Socket, c.DaemonUID)}
	l.server.SetLimits(c.Limits)
	l.log.Info("shared-altsd listen starts", "version", version.Number(), "listen", l.sockets.addresses(), "service", s.service,
		"allow", patterns(s.allow), "backend", c.backendName())
	p := &forward.Process{Server: l.server, Signals: signals, Notify: notify, Status: l.status, MetricsOn: l.sockets.metrics,
		Reload: func() error {
			fresh, err := read()
			if err == nil {
				err = l.reload(fresh)
			}
			return err
		}}
	if l.http != nil {
		p.Stopping = func() { l.http.Shutdown(context.Background()) }
	}
	p.Run(context.Background(), l.sockets.peers...)
	return nil
}

func patterns(list []policy.PeerPattern) (words []string) {
	for _, p := range list {
		words = append(words, p.String())
	}
	return words
}

func (c *Config) backendName() string {
	if len(c.Command) > 0 {
		return c.Command[0]
	}
	return c.Target.String()
}

func (l *listener) status() string {
	s := l.settings.Load()
	return fmt.Sprintf("service %s for %v to %s", s.service, patterns(s.allow), s.config.backendName())
}

// targetUID returns the uid of the backend's account, our own if none is named.
func (c *Config) targetUID() (uint32, error) {
	if c.TargetAccount == "" {
		return uint32(unix.Geteuid()), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupWait)
	defer cancel()
	return c.accountUID(ctx)
}

// openIdent takes the address that answers, for as long as the process lives.
func (l *listener) openIdent(c *Config) error {
	if !c.Ident.IsValid() {
		return nil
	}
	uid, err := c.targetUID()
	if err != nil {
		return err
	}
	l.ident, err = ident.Open(ident.Config{Addr: c.Ident, Account: uid, Ports: c.Limits.Conns, Listener: l.sockets.ident, Log: l.log})
	if err != nil {
		return fmt.Errorf("--ident: %w", err)
	}
	return nil
}

// prepare makes the settings of a configuration.
func (l *listener) prepare(c *Config) (*settings, error) {
	service, err := c.service(l.sockets.peers)
	if err != nil {
		return nil, err
	}
	protocol, err := altscreds.ServiceProtocol(service)
	if err != nil {
		return nil, fmt.Errorf("--service: %w", err)
	}
	s := &settings{config: c, service: service, protocols: []string{protocol}, allow: c.Allow}
	if c.HTTP {
		s.protocols = append(s.protocols, grpcProtocol)
	}
	uid, err := c.targetUID()
	if err != nil {
		return nil, err
	}
	tcp := &tcpTarget{addr: c.Target.addr, account: c.TargetAccount, uid: uid, dial: plainDial}
	if l.ident != nil {
		tcp.dial = l.ident.Dial
	}
	unix := &unixTarget{path: c.Target.path, uids: uidsOf(uid), hold: c.Hold}
	switch {
	case c.HTTP:
		return s, l.prepareHTTP(s, tcp, unix, uid)
	case len(c.Command) > 0:
		s.backend = &command{args: c.Command, service: service, spawner: l.spawner}
	case c.Target.path != "":
		s.backend = unix
	default:
		s.backend = tcp
	}
	return s, nil
}

// reload has c in force for connections to come, and ends those that it does not let in.
func (l *listener) reload(c *Config) error {
	if err := c.check(); err != nil {
		return err
	}
	if name := l.settings.Load().config.restart(c); name != "" {
		return fmt.Errorf("%s has changed, which a reload cannot bring about: restart the service", name)
	}
	s, err := l.prepare(c)
	if err != nil {
		return err
	}
	l.settings.Store(s)
	l.server.SetLimits(c.Limits)
	return nil
}

// accept makes a link of a connection.
func (l *listener) accept(raw net.Conn) forward.Link {
	s := l.settings.Load()
	k := &link{l: l, by: s}
	k.facts = forward.Facts{Service: s.service, From: raw.RemoteAddr().String()}
	k.conn = altscreds.Server(raw, altscreds.ServerOptions{Socket: s.config.Socket, DaemonUID: s.config.DaemonUID,
		Timeout: s.config.Limits.Handshake, ApplicationProtocols: s.protocols})
	return k
}
