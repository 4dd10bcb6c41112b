package forward

import (
	"context"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// A Process is a Server that signals command: SIGHUP has it reload, SIGTERM and SIGINT stop it, and the second of those
// ends what it then waits for.
type Process struct {
	*Server
	Signals <-chan os.Signal // see Signals
	Notify  *systemd.Notifier
	// Reload reads the configuration again and has it in force, all or nothing; nil if there is none.
	Reload func() error
	// Status is one line for people.
	Status func() string
	// Stopping is called when a stop begins, nil for nothing to do.
	Stopping func()
	// MetricsOn is where metrics are read, nil for nowhere.
	MetricsOn net.Listener
}

// Signals returns what is to be given to a Process. From then on a SIGHUP that comes early ends nothing.
func Signals() <-chan os.Signal {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	return c
}

// Run serves the listeners until a signal or the end of ctx stops it.
func (p *Process) Run(ctx context.Context, listeners ...net.Listener) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	now, end := context.WithCancel(context.Background())
	defer end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Serve(ctx, now, listeners...)
	}()
	if p.MetricsOn != nil {
		scraped, stopMetrics := context.WithCancel(context.Background()) // also while it drains
		defer stopMetrics()
		go func() {
			if err := p.Metrics.Serve(scraped, p.MetricsOn, p.State); err != nil {
				p.Log.Error("metrics are served no longer", "error", err)
			}
		}()
	}
	p.Notify.Ready(p.Status())
	for {
		select {
		case <-done:
			return
		case s := <-p.Signals:
			switch {
			case s == syscall.SIGHUP && ctx.Err() == nil:
				p.reload()
			case s == syscall.SIGHUP:
			case ctx.Err() != nil:
				end()
			default:
				p.Log.Info("stopping: no more connections are taken", "signal", s.String(), "open", p.State().Open,
					"drain", p.limits.Load().Drain.String())
				p.Notify.Stopping()
				if p.Stopping != nil {
					go p.Stopping()
				}
				stop()
			}
		}
	}
}

func (p *Process) reload() {
	if p.Reload == nil {
		return
	}
	p.Notify.Reloading()
	err := p.Reload()
	p.Metrics.Reloaded(err)
	status := p.Status()
	if err != nil {
		p.Log.Error("the reload was refused, and what was in force stays", "error", cli.OneLine(err.Error()))
		status = "reload refused, as before: " + status
	} else {
		p.Log.Info("reloaded", "status", status)
		p.Recheck()
	}
	p.Notify.Ready(status)
}
