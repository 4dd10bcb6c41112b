package altscreds

import (
	"context"
	"net"
)

// Client secures conn as the side that dialled. A mistake in the options shows at the handshake. Without targets in the
// options, ServerName must be set: Dial would set it.
func Client(conn net.Conn, o ClientOptions) *Conn {
	s, err := forConn(o.settings())
	c := newConn(conn, s, o.ServerName)
	c.handshakeErr = err
	return c
}

// Server secures conn as the side that accepted. A mistake in the options shows at the handshake.
func Server(conn net.Conn, o ServerOptions) *Conn {
	s, err := forConn(o.settings())
	c := newConn(conn, s, "")
	c.handshakeErr = err
	return c
}

// Dial connects to addr and does the handshake. The network is "tcp", "tcp4", "tcp6" or "unix".
func Dial(network, addr string, o ClientOptions) (*Conn, error) {
	return (&Dialer{Options: o}).dial(context.Background(), network, addr)
}

// A Dialer makes secured connections for libraries that take a function to dial with.
type Dialer struct {
	// Options are those of each connection; ServerName "" means the name that is dialled.
	Options ClientOptions
	// NetDialer makes the connections underneath; nil: the zero net.Dialer.
	NetDialer *net.Dialer
}

// DialContext connects to addr and does the handshake. ctx limits both and has no bearing afterwards. The connection is
// a *Conn.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, network, addr string) (*Conn, error) {
	s, err := forConn(d.Options.settings())
	if err != nil {
		return nil, err
	}
	nd := d.NetDialer
	if nd == nil {
		nd = new(net.Dialer)
	}
	raw, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	target := addr
	if raw.RemoteAddr().Network() == "unix" {
		target = "localhost" // as gRPC's clients name the other end of a UNIX socket
	}
	c := newConn(raw, s, target)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// Listen listens on addr and secures each connection accepted. Like tls.Listen's, a connection does its handshake at
// its first Read or Write, or when Handshake is called, so that a slow peer does not hold up the others. An error may
// be a mistake in the options.
func Listen(network, addr string, o ServerOptions) (net.Listener, error) {
	s, err := forConn(o.settings())
	if err != nil {
		return nil, err
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return &listener{Listener: l, settings: s}, nil
}

// NewListener secures each connection that inner accepts. See Listen.
func NewListener(inner net.Listener, o ServerOptions) (net.Listener, error) {
	s, err := forConn(o.settings())
	if err != nil {
		return nil, err
	}
	return &listener{Listener: inner, settings: s}, nil
}

type listener struct {
	net.Listener
	settings *settings
}

// Accept returns a *Conn.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(raw, l.settings, ""), nil
}
