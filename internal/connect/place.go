package connect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// A Place is where connect listens.
type Place struct {
	kind  string         // unix, tcp or systemd
	path  string         // of a UNIX socket; relative: in the private directory
	addr  netip.AddrPort // of TCP, port 0 for one of the kernel's choice
	name  string         // FileDescriptorName= of a socket of the service manager's
	given string
}

// ParsePlace reads unix:PATH, HOST:PORT or systemd:NAME.
func ParsePlace(v string) (Place, error) {
	p := Place{given: v}
	if path, ok := strings.CutPrefix(v, "unix:"); ok {
		p.kind, p.path = "unix", path
		switch {
		case strings.HasPrefix(path, "%d/"):
			p.path = path[len("%d/"):]
		case strings.Contains(path, "%d"):
			return p, fmt.Errorf("%q: %%d stands at the beginning of the path, or is left out: unix:%%d/NAME or unix:NAME", v)
		case filepath.IsAbs(path):
			return p, localsock.CheckPath(path)
		}
		if p.path == "." || !filepath.IsLocal(p.path) || strings.Contains(p.path, "/") {
			return p, fmt.Errorf("%q: give an absolute path, or with a COMMAND the name of a socket in its private directory, such "+
				"as unix:socket", v)
		}
		return p, nil
	}
	if name, ok := strings.CutPrefix(v, "systemd:"); ok {
		p.kind, p.name = "systemd", name
		if name == "" {
			return p, errors.New("systemd: without a name: write systemd:NAME, the socket unit's FileDescriptorName=")
		}
		return p, nil
	}
	var err error
	if p.addr, err = netip.ParseAddrPort(v); err != nil {
		return p, fmt.Errorf("%q is none of unix:PATH, systemd:NAME, 127.0.0.1:PORT and [::1]:PORT", v)
	}
	if !p.addr.Addr().IsLoopback() || p.addr.Addr().Zone() != "" || p.addr.Addr().Is4In6() {
		return p, fmt.Errorf("%q is not an address of loopback: only there the kernel can tell whose connection it is; write "+
			"127.0.0.1:%d or [::1]:%d", v, p.addr.Port(), p.addr.Port())
	}
	p.kind = "tcp"
	return p, nil
}

// private reports whether the place is in the private directory of a command.
func (p Place) private() bool { return p.kind == "unix" && !filepath.IsAbs(p.path) }

// places are listeners, with what else is to be closed at the end.
type places struct {
	listeners []net.Listener
	bound     []*localsock.Listener // those of them that connect has bound to a path
	port      int                   // of the first TCP listener, 0 for none
}

// listenAll listens at each place. dir is where private ones are. others says that accounts besides this one are served.
func listenAll(at []Place, dir string, others bool) (_ *places, err error) {
	all := &places{}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	var given []systemd.Socket
	for _, p := range at {
		if p.kind == "systemd" && given == nil {
			if given, err = systemd.Sockets(); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range at {
		var ls []net.Listener
		switch p.kind {
		case "unix":
			ls, err = p.listenUnix(dir, others)
		case "tcp":
			ls, err = p.listenTCP()
		default:
			ls, given, err = p.take(given)
		}
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", p.given, err)
		}
		all.listeners = append(all.listeners, ls...)
		if l, ok := ls[0].(*localsock.Listener); ok && p.kind == "unix" {
			all.bound = append(all.bound, l)
		}
	}
	for _, s := range given {
		s.Close()
		return nil, fmt.Errorf("%v is in no --listen: name it by --listen systemd:%s, or take it out of the unit", s, s.Name)
	}
	for _, l := range all.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && all.port == 0 {
			all.port = a.Port
		}
	}
	return all, nil
}

func (p Place) listenUnix(dir string, others bool) ([]net.Listener, error) {
	path, mode := p.path, fs.FileMode(0o600)
	if p.private() {
		if dir == "" {
			return nil, errors.New("a path without / is in the private directory of a COMMAND, and there is none: give an absolute path")
		}
		path = filepath.Join(dir, path)
	}
	if others {
		mode = 0o666 // the kernel names the callers, and the directory says who comes near
	}
	l, err := localsock.ListenOwn(path, mode)
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

func (p Place) listenTCP() ([]net.Listener, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(p.addr))
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("%w: take a port from 1024 on, or a socket unit", err)
		}
		return nil, err
	}
	return []net.Listener{l}, nil
}

// take returns those of the service manager's sockets that have the name, and the rest.
func (p Place) take(given []systemd.Socket) (mine []net.Listener, rest []systemd.Socket, err error) {
	for _, s := range given {
		if s.Name != p.name {
			rest = append(rest, s)
			continue
		}
		if _, isUnix := s.Listener.(*net.UnixListener); !isUnix && !loopback(s.Addr()) {
			return nil, nil, fmt.Errorf("%v listens at %v, which is not loopback: only there the kernel can tell whose connection it is",
				s, s.Addr())
		}
		l := s.Listener
		if u, ok := l.(*net.UnixListener); ok {
			if err := localsock.CheckPath(l.Addr().String()); err != nil {
				return nil, nil, fmt.Errorf("%v: %w", s, err)
			}
			if l, err = localsock.Inherited(u, l.Addr().String()); err != nil {
				return nil, nil, err
			}
		}
		mine = append(mine, l)
	}
	if mine == nil {
		return nil, nil, errors.New("the service manager passes no socket of that name: it is FileDescriptorName= of the socket " +
			"unit, without which the unit's own name")
	}
	return mine, rest, nil
}

// watchEach is how often it is looked whether the sockets are still at their paths.
const watchEach = 2 * time.Second

// watch binds sockets again whose files are removed, until ctx ends.
func (p *places) watch(ctx context.Context, log *slog.Logger) {
	if len(p.bound) == 0 {
		return
	}
	said := map[*localsock.Listener]string{}
	for tick := time.NewTicker(watchEach); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
		for _, l := range p.bound {
			done, err := l.Watch()
			trouble := ""
			if done != "" {
				log.Warn("a socket was mended", "what", done, "socket", l.Path)
			}
			if err != nil {
				trouble = err.Error()
			}
			if trouble != said[l] && trouble != "" {
				log.Error("programs cannot reach the socket", "socket", l.Path, "error", trouble)
			}
			said[l] = trouble
		}
	}
}

// accepted returns once nobody waits to be accepted any more: a command may have sent all that it has to say, and ended,
// before its connection was taken.
func (p *places) accepted() {
	for deadline := time.Now().Add(drain); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		waits := false
		for _, l := range p.listeners {
			if bound, ok := l.(*localsock.Listener); ok {
				l = bound.Unix()
			}
			raw, err := l.(syscall.Conn).SyscallConn()
			if err != nil {
				continue
			}
			raw.Control(func(fd uintptr) {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
				waits = waits || n > 0 && err == nil
			})
		}
		if !waits {
			return
		}
	}
}

// hosts returns the names by which a request to a TCP listener may call it. The peer's machine is none: a page that the
// network has put at that name may have it mean this address a moment later.
func (p *places) hosts() []string {
	hosts := []string{"localhost"}
	for _, l := range p.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			hosts = append(hosts, a.IP.String())
		}
	}
	return hosts
}

func (p *places) close() {
	if p == nil {
		return
	}
	for _, l := range p.listeners {
		l.Close()
	}
}
