package main

import (
	"log/slog"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

const forwardLimits = "Limits and log:"

// forwardFlags are flags that connect and listen share.
type forwardFlags struct{ unclean, logLevel string }

// limits returns those about limits, metrics and log. conns and unsaid say more of --max-conns and --log-level.
func (f *forwardFlags) limits(l *forward.Limits, metricsAt *string, conns, unsaid string) []cli.Option {
	setMetrics := func(v string) error {
		*metricsAt = v
		_, _, err := metrics.ParseAddr(v)
		return err
	}
	return []cli.Option{
		{Name: "handshake-timeout", Default: "20s", Group: forwardLimits,
			Value: cli.Duration(&l.Handshake, 100*time.Millisecond, 5*time.Minute),
			Help:  "How long it may take until the other end is proved."},
		{Name: "max-conns", Default: "1000", Group: forwardLimits, Value: cli.Int(&l.Conns, "N", 1, 1<<20),
			Help: "Connections at once" + conns + "."},
		{Name: "max-age", Default: "0s", Group: forwardLimits, Value: cli.Duration(&l.Age, 0, 365*24*time.Hour),
			Help: "How old a connection may get, 0s for any age."},
		{Name: "metrics", Group: forwardLimits, Value: cli.Func("ADDR|unix:PATH", setMetrics),
			Help: "Serve metrics for Prometheus at http://ADDR/metrics, a loopback address and port, or on a UNIX socket."},
		{Name: "log-level", Group: forwardLimits, Value: cli.Choice(&f.logLevel, "LEVEL", "debug", "info", "warn", "error"),
			Help: "Least level that is logged, to standard error. Without it info" + unsaid + "."},
	}
}

// ends returns the flag about ends at a UNIX socket, which is who's.
func (f *forwardFlags) ends(group, who string) cli.Option {
	return cli.Option{Name: "unclean", Default: "close", Group: group, Value: cli.Choice(&f.unclean, "close|hold", "close", "hold"),
		Help: "What " + who + " at a UNIX socket sees where the other end did not say its end: such a socket can only be closed, " +
			"which looks like one, or held open in silence. At TCP it is a reset."}
}

func (f *forwardFlags) hold() bool { return f.unclean == "hold" }

// level returns the least level that is logged, unsaid where no flag says it.
func (f *forwardFlags) level(unsaid slog.Level) slog.Level {
	if level := new(slog.Level); level.UnmarshalText([]byte(f.logLevel)) == nil {
		return *level
	}
	return unsaid
}
