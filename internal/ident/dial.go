package ident

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
)

// maxUser is RFC 1413's bound.
const maxUser = 512

// A connection is one of Dial's.
type connection struct {
	target netip.AddrPort
	user   string
	tried  chan struct{} // closed when conn is set, or the port given back
	conn   *net.TCPConn
	// refused says that the server has never had the connection.
	refused bool
	asked   bool // under Ident.mu: the server has its answer
}

// Dial connects to the server, at a loopback address of IPv4, from a port that nobody else can have. Whoever asks about the
// connection, once, while both its ends are open, learns that it is user's. The caller releases it in the end, which
// closes it as well.
func (i *Ident) Dial(ctx context.Context, target netip.AddrPort, user string) (_ *net.TCPConn, release func(), _ error) {
	target = netip.AddrPortFrom(target.Addr().Unmap(), target.Port())
	if !target.Addr().Is4() || !target.Addr().IsLoopback() {
		return nil, nil, fmt.Errorf("ident is for a server at a loopback address of IPv4, not at %v", target)
	}
	if err := checkUser(user); err != nil {
		return nil, nil, err
	}
	const tries = 8
	for n := 1; ; n++ {
		port, err := i.ports.take(ctx, user)
		if err != nil {
			return nil, nil, err
		}
		e := &connection{target: target, user: user, tried: make(chan struct{})}
		i.mu.Lock()
		i.open[port] = e // before the server sees it, which may ask at once
		i.mu.Unlock()
		conn, err := connect(ctx, netip.AddrPortFrom(i.c.Addr, port), target)
		if err == nil {
			e.conn = conn
			close(e.tried)
			return conn, sync.OnceFunc(func() { i.release(port, e) }), nil
		}
		close(e.tried)
		e.refused = errors.Is(err, unix.ECONNREFUSED)
		i.release(port, e)
		// What is left of an earlier connection of the same pair.
		if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) || n == tries {
			return nil, nil, err
		}
	}
}

// release closes a connection, takes it out of what is answered for, and has its port rest.
func (i *Ident) release(port uint16, e *connection) {
	if e.conn != nil {
		e.conn.Close() // of the caller's, mostly closed already
	}
	i.mu.Lock()
	delete(i.open, port)
	d := restUnasked
	switch {
	case e.refused:
		d = 0
	case e.asked:
		d = restAsked
	}
	i.mu.Unlock()
	i.ports.rest(port, e.user, d)
}

func connect(ctx context.Context, from, to netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	c, err := d.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// checkUser fails for a name that could be taken for more than one field of an answer, or more than one answer.
func checkUser(user string) error {
	if user == "" || len(user) > maxUser || !ascii.Visible(user) || strings.ContainsAny(user, ":,") {
		return fmt.Errorf("%.80q is not a name that ident can give: 1 to %d characters of ASCII, without blanks, colons and commas",
			user, maxUser)
	}
	return nil
}

// whose returns the user of the connection from our port to the target, once, if both its ends are open and the other is
// the server's. A target is the address that asks with the port that it asks about.
func (i *Ident) whose(port uint16, target netip.AddrPort, patience <-chan time.Time) (user string, found bool) {
	i.mu.Lock()
	e := i.open[port]
	i.mu.Unlock()
	if e == nil || e.target != target {
		return "", false
	}
	select {
	case <-e.tried:
	case <-patience:
		return "", false
	}
	if e.conn == nil {
		return "", false
	}
	o, err := sockowner.LookupEstablished(e.conn)
	if err != nil || !i.servers(o.UID) {
		return "", false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.open[port] != e || e.asked {
		return "", false
	}
	e.asked = true
	return e.user, true
}
