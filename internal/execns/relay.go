package execns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/reach"
	"github.com/shared-altsd/shared-altsd/internal/reports"
	"github.com/shared-altsd/shared-altsd/internal/sockowner"
)

// maxConns bounds the connections served at once, each of which costs two descriptors here. Gathered from what the
// libraries need: C-core opens a connection for nearly every handshake, 80 at once in one process.
const maxConns = 400

// A relay carries bytes between a loopback TCP address and a UNIX socket, for gRPC libraries whose ALTS speaks to TCP
// addresses only. It connects to the UNIX socket as the user that runs it, so it must serve no one else: for every
// connection it asks the kernel (package sockowner) whose socket the other end is. Its methods are safe for concurrent
// use.
type relay struct {
	socket    string
	daemonUID uint32
	uid       uint32
	reports   *reports.Once
	places    chan struct{}
}

// newRelay returns a relay to the daemon at path, which may run as daemonUID, for sockets of the caller's effective uid.
// report is told of each kind of failure once; it may be called from several goroutines, one at a time.
func newRelay(path string, daemonUID uint32, report func(error)) (*relay, error) {
	uid := uint32(os.Geteuid())
	if err := localsock.OwnAccount(uid); err != nil {
		return nil, err
	}
	return &relay{socket: path, daemonUID: daemonUID, uid: uid, reports: reports.New(report),
		places: make(chan struct{}, maxConns)}, nil
}

// probe connects to the UNIX socket once, to tell early that no daemon is there.
func (r *relay) probe() error {
	c, err := r.dial()
	if err != nil {
		return err
	}
	return c.Close()
}

// dialTimeout is for how long a connection may wait to get into the daemon's queue, less than gRPC's for connecting.
const dialTimeout = 10 * time.Second

// dial connects to the daemon. Who else may serve the socket would be the handshaker of the command.
func (r *relay) dial() (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	c, err := localsock.Dial(ctx, r.socket, r.daemonUID)
	if untrusted, ok := errors.AsType[*localsock.UntrustedError](err); ok {
		if err = fmt.Errorf("the socket %s: %w", r.socket, untrusted); !untrusted.Overflow() {
			err = &Error{Untrusted, err}
		}
		return nil, err
	}
	if err != nil {
		return nil, &Error{NoDaemon, fmt.Errorf("no shared-altsd daemon answers at %s: %w; %s", r.socket, err,
			reach.Explain(r.socket, err).Next)}
	}
	return c, nil
}

// serve accepts connections on l, which must listen on an IPv4 loopback address, until l is closed.
func (r *relay) serve(l *net.TCPListener) error {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok || !a.IP.IsLoopback() || a.IP.To4() == nil {
		return fmt.Errorf("the relay listens on IPv4 loopback addresses only, not on %v", l.Addr())
	}
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Nothing but a lack of descriptors or memory, or a connection that is gone: it passes.
			r.reports.Say("accept", fmt.Errorf("accepting a connection: %w", err))
			time.Sleep(50 * time.Millisecond)
			continue
		}
		id, err := r.check(c)
		if err != nil {
			// Refused before it takes a place, so that another account cannot spend them.
			c.Close()
			continue
		}
		r.places <- struct{}{}
		go func() {
			defer func() { <-r.places }()
			r.carry(c, id)
		}()
	}
}

// check returns whose socket is at the other end of c, and fails if it is not the relay's own user's.
func (r *relay) check(c *net.TCPConn) (sockowner.Owner, error) {
	owner, err := sockowner.LookupEstablished(c)
	if err != nil {
		r.reports.Say("owner", fmt.Errorf("a connection was closed: %w", err))
		return sockowner.Owner{}, err
	}
	if owner.UID != r.uid {
		err := fmt.Errorf("a connection of uid %d was refused: this relay serves uid %d; "+
			"run shared-altsd exec as the account that makes the calls", owner.UID, r.uid)
		r.reports.Refused(owner.UID, err)
		return sockowner.Owner{}, err
	}
	return owner, nil
}

// daemon connects to the daemon, or says why it cannot and returns nil.
func (r *relay) daemon() *net.UnixConn {
	d, err := r.dial()
	if err != nil {
		r.reports.Say("daemon", err)
		return nil
	}
	r.reports.Again("daemon")
	return d
}

// carry carries bytes between c, whose other end was found to be id, and the daemon.
func (r *relay) carry(c *net.TCPConn, id sockowner.Owner) {
	defer c.Close()
	d := r.daemon()
	if d == nil {
		return
	}
	defer d.Close()

	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(d, c); err != nil {
			d.Close()
			return
		}
		d.CloseWrite()
	}()
	// Whatever the daemon says may be a handshake's result with its key: it is released to the very socket that was
	// checked at accept, and to no other.
	if err := r.release(c, d, id); err != nil {
		c.Close()
	} else {
		c.CloseWrite()
	}
	<-done
}

// release copies from the daemon to c until the daemon ends the connection, and checks c's other end before each write.
func (r *relay) release(c *net.TCPConn, d *net.UnixConn, id sockowner.Owner) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := d.Read(buf)
		if n > 0 {
			now, err := sockowner.LookupEstablished(c)
			if err != nil {
				return err // the usual end of a client that hung up
			}
			if now != id {
				err := errors.New("a connection was closed: the socket at its other end is no longer the one that was accepted")
				r.reports.Say("changed", err)
				return err
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
