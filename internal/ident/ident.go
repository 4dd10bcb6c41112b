// Package ident tells a server on this machine who is at the far end of a forwarded connection, by the identification
// protocol (RFC 1413), and holds the source ports without which such an answer would be worth nothing.
//
// PostgreSQL and others ask port 113 of the address that a connection comes from. So a forward has an IPv4 loopback address
// of its own: its connections to the server come from there, and it alone answers there. Every account of the machine may
// connect from that address as well; what keeps them out is that an answer names somebody only for a connection that Dial
// has open, from a port at which nobody else could have been since the forward began.
package ident

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// Port is where ident is asked.
const Port = 113

// Config says for which server an Ident is.
type Config struct {
	// Addr belongs to this forward alone: any of 127.0.0.0/8 but 127.0.0.1.
	Addr netip.Addr
	// Account is the uid of the server: only its queries, and root's, are read, and its sockets are what is at the far end.
	Account uint32
	// Ports is how many connections there may be at once, at most MaxPorts.
	Ports int
	// Listener is the socket at port 113 of Addr, if the service manager bound it.
	Listener net.Listener
	// Log is told, once a minute, of queries that nobody should make.
	Log *slog.Logger
}

// An Ident is one address that answers, with the connections that come from it.
type Ident struct {
	c        Config
	listener *net.TCPListener
	ports    *ports
	ctx      context.Context
	stop     context.CancelFunc
	serving  sync.WaitGroup
	places   chan struct{} // of queries that are read

	mu   sync.Mutex
	open map[uint16]*connection // by source port
	said map[string]time.Time   // when something was logged last
}

// Open takes the address and the ports, and answers from then on.
func Open(c Config) (*Ident, error) {
	if err := usable(c.Addr); err != nil {
		return nil, err
	}
	if c.Ports < 1 || c.Ports > MaxPorts {
		return nil, fmt.Errorf("%d connections at once with ident: give a number from 1 to %d", c.Ports, MaxPorts)
	}
	if localsock.Overflow(c.Account) {
		return nil, fmt.Errorf("uid %d stands for every account that this user namespace does not map: its queries cannot be told "+
			"from others': run the server and the forward in the same user namespace", c.Account)
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	l, err := listen(c)
	if err != nil {
		return nil, err
	}
	held, err := hold(c.Addr, c.Ports)
	if err != nil {
		l.Close()
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	i := &Ident{c: c, listener: l, ports: held, places: make(chan struct{}, maxQueries), open: map[uint16]*connection{},
		said: map[string]time.Time{}}
	i.ctx, i.stop = context.WithCancel(context.Background())
	i.drain()
	i.serving.Go(i.serve)
	return i, nil
}

// Close ends the answers and lets go of the ports. Connections that are open stay open, and nobody is named for them.
func (i *Ident) Close() error {
	i.stop()
	err := i.listener.Close()
	i.serving.Wait()
	i.ports.close()
	return err
}

// usable fails for an address that others come from, or that every machine could come from.
func usable(a netip.Addr) error {
	switch {
	case a.Is6() && !a.Is4In6():
		return fmt.Errorf("ident at %v: IPv6 has one loopback address, ::1, which every program comes from: give one of IPv4, as "+
			"127.77.0.1, and a target at 127.0.0.1", a)
	case !a.Is4() || !a.IsLoopback():
		return fmt.Errorf("ident at %v: not a loopback address: give one that nothing else uses, as 127.77.0.1", a)
	case a == netip.AddrFrom4([4]byte{127, 0, 0, 1}):
		return fmt.Errorf("ident at %v: every program comes from there: give an address that nothing else uses, as 127.77.0.1", a)
	case a == netip.AddrFrom4([4]byte{127, 255, 255, 255}):
		return fmt.Errorf("ident at %v: a broadcast address: give one that nothing else uses, as 127.77.0.1", a)
	}
	return nil
}

// firstUnprivileged is the kernel's file with the first port that every account may listen at.
const firstUnprivileged = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// privileged fails where any account may answer at port 113.
func privileged() error {
	b, err := os.ReadFile(firstUnprivileged)
	if err != nil {
		return fmt.Errorf("which ports need privileges: %w", err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("which ports need privileges: %s: %w", firstUnprivileged, err)
	}
	return checkFirst(first)
}

func checkFirst(first int) error {
	if first > Port {
		return nil
	}
	return fmt.Errorf("every account of this machine may listen at ports from %d on, so that an answer from port %d proves nothing: "+
		"set the sysctl net.ipv4.ip_unprivileged_port_start to %d or more (1024 is the kernel's own)", first, Port, Port+1)
}

// listen binds port 113 of the address, or looks at what the service manager bound.
func listen(c Config) (*net.TCPListener, error) {
	at := netip.AddrPortFrom(c.Addr, Port)
	if c.Listener != nil {
		l, ok := c.Listener.(*net.TCPListener)
		if !ok || l.Addr().(*net.TCPAddr).AddrPort() != at {
			return nil, fmt.Errorf("the service manager's socket for ident is at %v, not at %v: correct ListenStream= of its unit",
				c.Listener.Addr(), at)
		}
		return l, nil
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("ident at %v: the address is taken, by another forward or by an identd for all addresses (ss -ltnp 'sport "+
			"= :113' names it): give another address, or have the identd listen at one address: %w", at, err)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("ident at %v: port %d needs CAP_NET_BIND_SERVICE: give it to the unit by AmbientCapabilities=, or have a "+
			"socket unit hold it (ListenStream=%v, FileDescriptorName=ident): %w", at, Port, at, err)
	case err != nil:
		return nil, fmt.Errorf("ident at %v: %w", at, err)
	}
	return l, nil
}
