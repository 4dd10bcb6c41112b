package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/service"
)

var serveCommand = newServeCommand()

func newServeCommand() *cli.Command {
	command := &cli.Command{
		Name:    "serve",
		Summary: "run the daemon, in the foreground, until SIGTERM",
		About: `
Runs the daemon of this machine: applications reach it by a UNIX socket, the kernel tells it which account asks, and it
proves account@machine to the daemons of other machines with this machine's certificate.

  shared-altsd serve --credentials /etc/shared-altsd/machine.pem --ca /etc/shared-altsd/ca.pem

SIGHUP, and a change of the files of --credentials, --key, --ca, --crl and --policy, bring all of them into force together
for the next handshake, or none, with the reason in the log; those of --denied are read apart from them. SIGHUP reads the
file of --config again as well, with those beside it: which CAs, lists and rules there are, and the purpose that peers'
certificates need; the log says what else has changed and comes into force at the next start. SIGTERM and
SIGINT let handshakes in flight finish; a second one does not. Sockets that systemd passes (LISTEN_FDS) are served in the
place of --socket.`,
		Config: configFile("Log and configuration:"),
	}
	command.Setup = func() ([]cli.Option, func([]string) error) {
		c := new(serveConfig)
		return c.options(), func([]string) error {
			config := c.config()
			if path := command.ConfigPath(os.Args[2:]); path != "" {
				config.Again = &daemon.Again{Path: path, Read: func() (daemon.Config, map[string][]string, error) {
					again, given := new(serveConfig), make(map[string][]string)
					_, err := command.Parse(cli.Noted(again.options(), func(name, value string) {
						given[name] = append(given[name], value)
					}), os.Args[2:])
					return again.config(), given, err
				}}
			}
			return daemon.Serve(config)
		}
	}
	return command
}

// serveConfig is what the flags of serve say.
type serveConfig struct {
	daemon.Config
	logLevel, logFormat string
}

// config returns c with the words of the log's flags understood: the options admit no others.
func (c *serveConfig) config() daemon.Config {
	c.LogLevel.UnmarshalText([]byte(c.logLevel))
	c.LogJSON = c.logFormat == "json"
	return c.Config
}

// options returns the one table of serve's flags, bound to c.
func (c *serveConfig) options() []cli.Option {
	const (
		local  = "Local applications:"
		naming = "Who may talk to whom:"
		limits = "Times and limits:"
		logs   = "Log and configuration:"
	)
	c.SocketGroup = -1
	account := func(v string) error { return certbind.ValidAccount(ascii.Lower(v), true) }
	publish := func(v string) error { return certbind.ValidGroup(ascii.Lower(v), true) }
	socket := cli.Option{
		Name: "socket", Group: local, Repeat: true, Value: cli.Func("PATH[,uids=N-M[,account=NAME[,label=LABEL]]]",
			c.addSocket).CompleteFiles(),
		Help: "UNIX socket for applications, " + localsock.DefaultPath + " if none is given. With uids, only callers of " +
			"these uids are served (several ranges: uids=N-M+N-M): the only kind of socket to mount into a container. With " +
			"account, they are all NAME, which the user database must not have: best a name with a '+', such as greeter+, " +
			"which useradd does not make. Peers see label as its attribute 'socket'.",
	}
	directory := func(to *string) cli.Value { return cli.String(to, "DIR").CompleteFiles() } // an empty one would be none, and no rules
	names := accountOptions(&c.Files, naming)
	o := append(fileOptions(&c.Files), socket,
		cli.Option{Name: "socket-mode", Default: "0666", Group: local, Value: cli.Func("MODE", c.setSocketMode),
			Help: "Permission bits of the sockets, octal."},
		cli.Option{Name: "socket-group", Group: local, Value: cli.Func("GROUP", c.setSocketGroup),
			Help: "Group of the sockets, a name or a number."},
		cli.Option{Name: "publish-groups", Group: local,
			Value: cli.List(&c.PublishGroups, "GROUPS", publish),
			Help: "Groups, separated by commas, whose membership peers are told of as an attribute of the account. Names may " +
				"hold spaces, and are told in lower case."},
		cli.Option{Name: "policy", Group: naming, Value: directory(&c.Files.Policy),
			Help: "Directory of rules by which accounts may talk to each other, its files *.policy in the order of their names " +
				"(docs/policy.md). Without it all may, whom a CA vouches for."},
		cli.Option{Name: "denied", Group: naming, Value: directory(&c.Denied),
			Help: "Directory of what is denied before all rules: denied.policy, which 'shared-altsd deny' writes, and " +
				"denied.d/*.policy. Without it " + daemon.DefaultDeniedDir + ", if that is there."},
		cli.Option{Name: "on-revoke", Default: "close", Group: naming,
			Value: cli.Func("close|keep", c.setOnRevoke).CompleteChoices("close", "keep"),
			Help: "What becomes of a connection that stands and would be refused now, by a rule, a denial, a revocation list, or the " +
				"end of a certificate or CA: close ends it, where its application can be told (altscreds); keep logs and counts it."},
		cli.Option{Name: "secure-naming", Default: "strict", Group: naming,
			Value: cli.Func("strict|dns|off", c.setSecureNaming).CompleteChoices("strict", "dns", "off"),
			Help: "Whether the peer's certificate has to be valid for the host that a client dialled, where the client names " +
				"no target accounts. dns lets IP addresses through, off checks nothing."},
		cli.Option{Name: "server-accounts", Group: naming, Value: cli.List(&c.ServerAccounts, "ACCOUNTS", account),
			Help: "Accounts, separated by commas, that a client without target accounts accepts as server; 'same' is the " +
				"client's own account name."},
		names[0], names[1],
		cli.Option{Name: "min-version", Default: "1", Group: naming, Value: cli.Int(&c.MinVersion, "N", 1, 1),
			Help: "Least version of the inter-daemon protocol that is accepted. This build serves version 1 alone."},
		cli.Option{Name: "handshake-timeout", Default: "10s", Group: limits,
			Value: cli.Duration(&c.HandshakeTimeout, time.Second, 5*time.Minute),
			Help:  "How long a handshake may take, from the first bytes of the peer."},
		cli.Option{Name: "statement-lifetime", Default: "6h", Group: limits,
			Value: cli.Duration(&c.StatementLifetime, 15*time.Minute, 23*time.Hour),
			Help:  "How long a signed statement is valid, and after which time the static key is replaced."},
		cli.Option{Name: "verified-peers", Default: strconv.Itoa(certbind.DefaultCached), Group: limits,
			Value: cli.Int(&c.VerifiedPeers, "N", 256, 1<<16),
			Help: "How many identities of peers are kept, so that the next handshake with one costs no certificate work: more than the " +
				"accounts on other machines that this one talks with. docs/benchmarks.md says what each costs."},
		cli.Option{Name: "drain-timeout", Default: "20s", Group: limits,
			Value: cli.Duration(&c.DrainTimeout, 0, 10*time.Minute),
			Help:  "How long SIGTERM waits for handshakes in flight."},
	)
	o = append(o, c.limitOptions(limits)...)
	return append(o,
		cli.Option{Name: "metrics", Group: logs, Value: cli.Func("ADDR|unix:PATH", c.setMetrics),
			Help: "Serve metrics for Prometheus at http://ADDR/metrics, a loopback address and port such as 127.0.0.1:9464, " +
				"or on a UNIX socket. A socket of systemd's with FileDescriptorName=metrics does the same."},
		cli.Option{Name: "log-level", Default: "info", Group: logs,
			Value: cli.Choice(&c.logLevel, "LEVEL", "debug", "info", "warn", "error"),
			Help:  "Least level that is logged: debug, info, warn or error. The log goes to standard error."},
		cli.Option{Name: "log-format", Default: "text", Group: logs,
			Value: cli.Choice(&c.logFormat, "FORMAT", "text", "json"),
			Help:  "text or json."},
	)
}

func (c *serveConfig) addSocket(v string) error {
	path, use, limited := strings.Cut(v, ",uids=")
	s := daemon.Socket{Path: path}
	if err := localsock.CheckPath(path); err != nil {
		return err
	}
	for _, key := range []string{",account=", ",label="} {
		if strings.Contains(path, key) {
			return fmt.Errorf("%s stands behind uids=, as in PATH,uids=40001,account=greeter+,label=blue", key[1:])
		}
	}
	if limited {
		var err error
		if s.Use, err = service.ParseSocketUse("uids=" + use); err != nil {
			return err
		}
	}
	for _, other := range c.Sockets {
		if other.Path == path {
			return fmt.Errorf("%s is given twice: give it once", path)
		}
	}
	c.Sockets = append(c.Sockets, s)
	return nil
}

func (c *serveConfig) setSocketMode(v string) (err error) {
	c.SocketMode, err = daemon.ParseMode(v)
	return err
}

func (c *serveConfig) setSocketGroup(v string) (err error) {
	c.SocketGroup, err = daemon.ParseGroup(v)
	return err
}

func (c *serveConfig) setSecureNaming(v string) (err error) {
	c.SecureNaming, err = service.ParseSecureNaming(v)
	return err
}

func (c *serveConfig) setOnRevoke(v string) error {
	if v != "close" && v != "keep" {
		return fmt.Errorf("%q is neither close nor keep", v)
	}
	c.KeepRevoked = v == "keep"
	return nil
}

func (c *serveConfig) setMetrics(v string) (err error) {
	c.Metrics, err = daemon.ParseMetricsAddr(v)
	return err
}

func (c *serveConfig) limitOptions(group string) []cli.Option {
	const maxLimit = 1 << 20
	return []cli.Option{
		{Name: "max-handshakes", Default: "200", Group: group, Value: cli.Int(&c.Limits.Handshakes, "N", 1, maxLimit),
			Help: "Handshakes that one account may have under way as client, and as many as server. More wait in turn until " +
				"their deadline."},
		{Name: "max-handshakes-total", Default: "2000", Group: group, Value: cli.Int(&c.Limits.HandshakesInAll, "N", 1, maxLimit),
			Help: "Handshakes under way in all."},
		{Name: "max-connections", Default: "1024", Group: group, Value: cli.Int(&c.Limits.Connections, "N", 1, maxLimit),
			Help: "Connections that one account may have to the daemon."},
		{Name: "max-streams", Default: "1024", Group: group, Value: cli.Int(&c.Limits.Streams, "N", 1, maxLimit),
			Help: "Streams that one account may have open without a handshake under way: gRPC libraries open them ahead."},
	}
}
