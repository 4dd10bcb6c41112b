package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/service"
)

// sockets are what the daemon listens on.
type sockets struct {
	local   []servedSocket
	metrics net.Listener // nil for none
}

// A servedSocket is a listening socket for applications and whom it serves.
type servedSocket struct {
	*localsock.Listener
	uids service.UIDRanges
}

// listen takes over the sockets of the service manager and binds those of --socket that are not among them.
func listen(c *serveConfig, log *slog.Logger) (_ *sockets, err error) {
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
	if s.metrics, err = c.metrics.listen(forMetrics); err != nil {
		return nil, err
	}
	specs := c.sockets
	if len(specs) == 0 && len(inherited) == 0 {
		specs = []socketSpec{{path: localsock.DefaultPath}}
	}
	limits := map[string]service.UIDRanges{}
	for _, spec := range specs {
		limits[spec.path] = spec.uids
	}
	taken := map[string]bool{}
	for _, in := range inherited {
		uids, listed := limits[in.path]
		if ranges, ok := strings.CutPrefix(in.name, "uids="); ok {
			if listed {
				return nil, fmt.Errorf("the socket %s has uids in its unit (FileDescriptorName=) and is a --socket as well: "+
					"limit it in one place", in.path)
			}
			if uids, err = service.ParseUIDRanges(ranges); err != nil {
				return nil, fmt.Errorf("FileDescriptorName=%s of the socket unit: %w", in.name, err)
			}
		}
		taken[in.path] = true
		l, err := localsock.Inherited(in.UnixListener, in.path)
		if err != nil {
			return nil, err
		}
		s.local = append(s.local, servedSocket{l, uids})
	}
	for _, spec := range specs {
		if taken[spec.path] {
			continue
		}
		l, err := localsock.Listen(spec.path, c.socketMode, c.socketGroup)
		if err != nil {
			return nil, fmt.Errorf("--socket: %w", err)
		}
		s.local = append(s.local, servedSocket{l, spec.uids})
	}
	return s, nil
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
