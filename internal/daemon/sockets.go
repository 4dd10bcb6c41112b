package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/service"
)

// sockets are what the daemon listens on.
type sockets struct {
	local   []*servedSocket
	metrics net.Listener // nil for none
	watched []*watched
}

// A servedSocket is a listening socket for applications and whom it serves.
type servedSocket struct {
	*localsock.Listener
	use     service.SocketUse
	service *service.Socket // while it is served
}

// listen takes over the sockets of the service manager and binds those of the configuration that are not among them.
func listen(c *Config, log *slog.Logger) (_ *sockets, err error) {
	given, err := systemd.Sockets()
	if err != nil {
		return nil, err
	}
	inherited, forMetrics, err := sortOut(given)
	if err != nil {
		return nil, err
	}
	s := new(sockets)
	defer func() {
		if err != nil {
			s.close(log)
		}
	}()
	if s.metrics, err = listenMetrics(c.Metrics, forMetrics); err != nil {
		return nil, err
	}
	specs := c.Sockets
	if len(specs) == 0 && len(inherited) == 0 {
		specs = []Socket{{Path: localsock.DefaultPath}}
	}
	uses := map[string]service.SocketUse{}
	for _, spec := range specs {
		if err := spec.Use.Check(c.Files.domainAccounts()); err != nil {
			return nil, fmt.Errorf("--socket %s: %w", spec.Path, withFlag(err))
		}
		uses[spec.Path] = spec.Use
	}
	taken := map[string]bool{}
	for _, in := range inherited {
		use, listed := uses[in.path]
		if strings.Contains(in.name, "=") { // one that is misspelt must not serve everybody
			if listed {
				return nil, fmt.Errorf("the socket %s has uids in its unit (FileDescriptorName=) and is a --socket as well: "+
					"limit it in one place", in.path)
			}
			if use, err = service.ParseSocketUse(in.name); err == nil {
				err = withFlag(use.Check(c.Files.domainAccounts()))
			}
			if err != nil {
				return nil, fmt.Errorf("FileDescriptorName=%s of the socket unit: %w", in.name, err)
			}
		}
		taken[in.path] = true
		l, err := localsock.Inherited(in.UnixListener, in.path)
		if err != nil {
			return nil, err
		}
		use.Path = in.path
		s.local = append(s.local, &servedSocket{Listener: l, use: use})
	}
	for _, spec := range specs {
		if taken[spec.Path] {
			continue
		}
		l, err := localsock.Listen(spec.Path, c.SocketMode, c.SocketGroup)
		if err != nil {
			return nil, fmt.Errorf("--socket: %w", err)
		}
		spec.Use.Path = spec.Path
		s.local = append(s.local, &servedSocket{Listener: l, use: spec.Use})
	}
	s.watchAll()
	return s, nil
}

// announceFault says at the start that nobody can use the socket as it is: the name that it gives out may be somebody's.
func (s *servedSocket) announceFault(ctx context.Context, log *slog.Logger) {
	if err := s.service.Fault(ctx); err != nil && ctx.Err() == nil {
		log.Error("the socket serves nobody as it is", "socket", s.Path, "account", s.use.Account, "error", err)
	}
}

// listenMetrics returns the listener for metrics: given, which is the service manager's, or that of addr; nil for none.
func listenMetrics(addr MetricsAddr, given net.Listener) (net.Listener, error) {
	switch {
	case given != nil && addr.Network != "":
		given.Close()
		return nil, errors.New("--metrics is given, and the service manager passes a socket for metrics as well: use one " +
			"of them")
	case given != nil:
		if l, ok := given.(*net.UnixListener); ok {
			return localsock.InheritedAnywhere(l, l.Addr().String()), nil
		}
		return given, nil
	case addr.Network == "":
		return nil, nil
	case addr.Network == "unix":
		// Its place is made safe like that of the other sockets; who may read is up to the directory.
		l, err := localsock.Listen(addr.Address, 0o666, -1)
		if err != nil {
			return nil, fmt.Errorf("--metrics: %w", err)
		}
		return l, nil
	}
	l, err := net.Listen(addr.Network, addr.Address)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("--metrics: this service may open no TCP port (RestrictAddressFamilies=): enable "+
			"shared-altsd-metrics.socket, through which systemd opens it, in the place of --metrics: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return l, nil
}

// metricsName is the FileDescriptorName= of a socket unit for metrics.
const metricsName = "metrics"

// An inheritedSocket is one of the service manager's for applications.
type inheritedSocket struct {
	*net.UnixListener
	name, path string
}

// sortOut parts the sockets of the service manager into those for applications and one for metrics, nil if there is
// none, and checks that each may be what it is for.
func sortOut(given []systemd.Socket) (local []inheritedSocket, forMetrics net.Listener, err error) {
	for _, s := range given {
		if s.Name == metricsName && forMetrics == nil {
			if err := metrics.CheckListener(s.Listener); err != nil {
				return nil, nil, fmt.Errorf("%v: %w", s, err)
			}
			forMetrics = s.Listener
			continue
		}
		l, path, err := forApplications(s.Listener)
		if err != nil {
			return nil, nil, fmt.Errorf("%v: %w", s, err)
		}
		local = append(local, inheritedSocket{l, s.Name, path})
	}
	return local, forMetrics, nil
}

// forApplications checks that a listener is a UNIX socket with a path.
func forApplications(l net.Listener) (*net.UnixListener, string, error) {
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, "", errors.New("not a UNIX socket: give a path in ListenStream=, because only there the kernel vouches " +
			"for the caller")
	}
	path := ul.Addr().String()
	return ul, path, localsock.CheckPath(path)
}

// close closes all sockets. What goes wrong is logged: there is nobody else to tell.
func (s *sockets) close(log *slog.Logger) {
	for _, l := range s.local {
		if err := l.Close(); err != nil {
			log.Warn("closing a socket", "socket", l.Path, "error", err)
		}
	}
	if s.metrics != nil {
		s.metrics.Close() // an error says that it was closed with its server
	}
}
