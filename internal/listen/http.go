package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/httpfwd"
)

// grpcProtocol is what gRPC's libraries speak, which know no other.
const grpcProtocol = "grpc"

// prepareHTTP has requests go to the target, each connection of which is looked at as those of other backends are.
func (l *listener) prepareHTTP(s *settings, tcp *tcpTarget, unix *unixTarget, uid uint32) error {
	s.backend = httpBackend{l}
	if unix.path == "" {
		s.dialHTTP = func(ctx context.Context) (net.Conn, error) {
			conn, _, err := tcp.connect(ctx, "")
			if err != nil {
				return nil, err
			}
			conn.SetLinger(-1) // HTTP tells its own ends
			return conn, nil
		}
		return nil
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := unix.connect(ctx)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	if s.dialHTTP = dial; s.config.UnsafeHeader {
		return nil
	}
	private := httpfwd.Private{Path: unix.path, Account: uid}
	s.dialHTTP = private.Dial(dial)
	err := private.Check()
	if errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("the backend is not there yet", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("--target unix:%s with --http: %w", unix.path, err)
	}
	return nil
}

// dialHTTP connects to the backend that is in force.
func (l *listener) dialHTTP(ctx context.Context) (net.Conn, error) {
	return l.settings.Load().dialHTTP(ctx)
}

// An httpBackend is connected to for each request, and not before the first.
type httpBackend struct{ l *listener }

func (b httpBackend) open(context.Context, *altscreds.Conn) (carrier, error) { return b, nil }

func (b httpBackend) carry(ctx context.Context, peer *altscreds.Conn) forward.Result {
	r := b.l.http.ServeConn(ctx, peer, httpfwd.Caller{Peer: peer.Peer(), Protocol: peer.ApplicationProtocol(),
		Handshake: peer.HandshakeID()})
	return forward.Result{FromPeer: r.In, ToPeer: r.Out, Err: r.Err, By: forward.Peer}
}

func (httpBackend) abort() {} // the end of the context does it
