package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
)

// A backend is where the connections of peers go.
type backend interface {
	// open connects to it for a peer that is let in. It has been sent nothing when it returns.
	open(ctx context.Context, peer *altscreds.Conn) (carrier, error)
}

// A carrier is one connection to a backend.
type carrier interface {
	// carry is forward.Carry.
	carry(ctx context.Context, peer *altscreds.Conn) forward.Result
	abort()
}

const (
	// backendWait is how long a backend may take to accept a connection.
	backendWait = 10 * time.Second
	// backendTries is how often it may be another one at the end than it was at the beginning.
	backendTries = 3
)

// A tcpTarget is a backend at an address of loopback, which whoever comes first may take.
type tcpTarget struct {
	addr    netip.AddrPort
	account string // as it was named
	uid     uint32
	// dial connects; release is called when the connection is closed.
	dial func(ctx context.Context, to netip.AddrPort, peer string) (conn *net.TCPConn, release func(), err error)
}

// plainDial connects from whatever address the kernel chooses. Dialer.DialTCP would bind first, also to no address: then a port that a
// connection to anywhere has, or had in the last minute, serves no other.
func plainDial(ctx context.Context, to netip.AddrPort, _ string) (*net.TCPConn, func(), error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, nil, err
	}
	return conn.(*net.TCPConn), func() {}, nil
}

func (t *tcpTarget) open(ctx context.Context, peer *altscreds.Conn) (carrier, error) {
	conn, release, err := t.connect(ctx, peer.Peer().Account)
	if err != nil {
		return nil, err
	}
	return &carried{conn: conn, release: release}, nil
}

// connect returns a connection to the account's backend, and to nobody else's: a connection that it gives up has carried no
// byte.
func (t *tcpTarget) connect(ctx context.Context, peer string) (conn *net.TCPConn, release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, backendWait)
	defer cancel()
	for try := 1; ; try++ {
		before, err := t.listeners()
		if err != nil {
			return nil, nil, err
		}
		conn, release, err := t.dial(ctx, t.addr, peer)
		if err != nil {
			return nil, nil, forward.Refuse(forward.Backend, fmt.Errorf("connecting to %v: %w", t.addr, err))
		}
		conn.SetLinger(0)
		// It waits at one of these by now. Who has accepted it is seen last, since that takes a moment, and is the proof.
		if err = t.same(before); err == nil {
			err = t.accepted(ctx, conn)
		}
		if err == nil {
			return conn, release, nil
		}
		conn.Close()
		release()
		if try == backendTries || !errors.Is(err, errChanged) {
			return nil, nil, err
		}
	}
}

// listeners returns who might take a connection now, if all of them are right.
func (t *tcpTarget) listeners() ([]sockowner.Owner, error) {
	list, err := sockowner.Listeners(t.addr)
	if err != nil {
		return nil, forward.Refuse(forward.Backend, err)
	}
	if len(list) == 0 {
		return nil, forward.Refuse(forward.Backend, fmt.Errorf("nothing listens at %v: start the backend", t.addr))
	}
	for _, o := range list {
		if !t.right(o.UID) {
			return nil, t.impostor(o.UID)
		}
	}
	return list, nil
}

var errChanged = errors.New("the sockets that listen there changed meanwhile")

// same fails if others might take a connection now than at first: one of them may have taken ours.
func (t *tcpTarget) same(before []sockowner.Owner) error {
	after, err := t.listeners()
	if err == nil && !slices.Equal(before, after) {
		err = forward.Refuse(forward.Backend, fmt.Errorf("connecting to %v: %w", t.addr, errChanged))
	}
	return err
}

// right reports whether a socket may be the backend's: its account's, or root's, who makes the sockets of many services.
func (t *tcpTarget) right(uid uint32) bool { return uid == t.uid || uid == 0 }

func (t *tcpTarget) impostor(uid uint32) error {
	return forward.Refuse(forward.Impostor, fmt.Errorf("uid %d has the port %v, and not %s (uid %d): nothing was sent there. If that is "+
		"the backend, name its account by --target-account; else end that program, and start the backend", uid, t.addr, t.account, t.uid))
}

// accepted waits until the backend has accepted conn, and fails if that is not the account.
func (t *tcpTarget) accepted(ctx context.Context, conn *net.TCPConn) error {
	for wait := 40 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		owner, err := sockowner.Lookup(conn)
		switch {
		case err == nil && t.right(owner.UID):
			return nil
		case err == nil:
			return t.impostor(owner.UID)
		case !errors.Is(err, sockowner.ErrNotAccepted):
			return forward.Refuse(forward.Backend, fmt.Errorf("the backend at %v closed the connection before it could be seen whose "+
				"it is: %w", t.addr, err))
		}
		if wait < time.Millisecond {
			timerslack.Sleep(wait) // most backends need tens of microseconds
			continue
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return forward.Refuse(forward.Backend, fmt.Errorf("the backend at %v has not accepted the connection within %v: it hangs, has "+
				"too many, or waits for a first byte (TCP_DEFER_ACCEPT: nginx's 'deferred', Apache's AcceptFilter), which is to be "+
				"turned off, since nothing is sent before it is known whose the socket is", t.addr, backendWait))
		}
	}
}

// A unixTarget is a backend at a UNIX socket. Who may serve there is asked of the connection, not of the path.
type unixTarget struct {
	path string
	uids []uint32
	hold bool
}

func (t *unixTarget) open(ctx context.Context, _ *altscreds.Conn) (carrier, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &carried{conn: conn, release: func() {}, ends: forward.Ends{Hold: t.hold}}, nil
}

func (t *unixTarget) connect(ctx context.Context) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, backendWait)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialUnix(ctx, "unix", nil, &net.UnixAddr{Name: t.path, Net: "unix"})
		switch {
		case errors.Is(err, syscall.EAGAIN): // its queue is full
			select {
			case <-time.After(10 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
			return nil, forward.Refuse(forward.Backend, fmt.Errorf("the backend at %s has not accepted connections for %v: it hangs, or "+
				"has too many", t.path, backendWait))
		case err != nil:
			return nil, forward.Refuse(forward.Backend, fmt.Errorf("%w: start the backend, or correct --target", err))
		}
		cred, err := peercred.FromConn(conn)
		if err == nil && !slices.Contains(t.uids, cred.UID) {
			err = forward.Refuse(forward.Impostor, fmt.Errorf("uid %d serves %s, and none of the uids %v: nothing was sent there. If that "+
				"is the backend, name its account by --target-account", cred.UID, t.path, t.uids))
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// uidsOf returns who may serve a UNIX socket for an account: root and we ourselves as well.
func uidsOf(account ...uint32) []uint32 {
	uids := append(account, 0, uint32(os.Geteuid()))
	slices.Sort(uids)
	return slices.Compact(uids)
}

// carried is a connection to a backend's socket.
type carried struct {
	conn    net.Conn
	release func()
	ends    forward.Ends
}

func (c *carried) carry(ctx context.Context, peer *altscreds.Conn) forward.Result {
	defer c.release()
	return forward.Carry(ctx, c.conn, peer, c.ends)
}

func (c *carried) abort() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.conn.Close()
	c.release()
}
