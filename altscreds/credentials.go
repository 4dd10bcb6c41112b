package altscreds

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// transportCredentials implements credentials.TransportCredentials for one side.
type transportCredentials struct {
	*settings
	authority string // set by OverrideServerName
}

// NewClientCredentials returns the credentials of a gRPC client, for grpc.WithTransportCredentials. An error is a
// mistake in the options; the daemon is not asked before the first connection.
func NewClientCredentials(o ClientOptions) (credentials.TransportCredentials, error) {
	s, err := forGRPC(o.settings())
	if err != nil {
		return nil, err
	}
	return &transportCredentials{settings: s}, nil
}

// NewServerCredentials returns the credentials of a gRPC server, for grpc.Creds. An error is a mistake in the options;
// the daemon is not asked before the first connection.
func NewServerCredentials(o ServerOptions) (credentials.TransportCredentials, error) {
	s, err := forGRPC(o.settings())
	if err != nil {
		return nil, err
	}
	return &transportCredentials{settings: s}, nil
}

// ClientHandshake has the local daemon do the handshake over raw. The end of ctx ends it at once.
func (t *transportCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn,
	credentials.AuthInfo, error) {
	if !t.client {
		return nil, nil, errors.New("altscreds: server credentials were given to a client; use NewClientCredentials")
	}
	return t.handshake(ctx, raw, authority)
}

// ServerHandshake has the local daemon do the handshake over raw, or another if the options say Mixed.
func (t *transportCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if t.client {
		return nil, nil, errors.New("altscreds: client credentials were given to a server; use NewServerCredentials")
	}
	if t.mixed == nil {
		return t.handshake(context.Background(), raw, "")
	}
	return t.mixed.serverHandshake(raw, t.settings)
}

func (t *transportCredentials) handshake(ctx context.Context, raw net.Conn, target string) (net.Conn,
	credentials.AuthInfo,
	error) {
	c := newConn(raw, t.settings, target)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	return c, c.AuthInfo(), nil
}

// Info returns "alts" as the protocol, as grpc's own ALTS does.
func (t *transportCredentials) Info() credentials.ProtocolInfo {
	//lint:ignore SA1019 grpc still takes the authority from ServerName
	return credentials.ProtocolInfo{SecurityProtocol: "alts", ServerName: t.authority}
}

// Clone returns a copy that OverrideServerName can change by itself.
func (t *transportCredentials) Clone() credentials.TransportCredentials {
	c := *t
	return &c
}

// OverrideServerName sets the authority that grpc then dials as. ClientOptions.ServerName is the better way: it says
// what is checked and leaves the authority alone.
func (t *transportCredentials) OverrideServerName(name string) error {
	t.authority = name
	return nil
}
