package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// All that is of grpc-go's server: its options and bounds, how it is told who calls, and how it carries a stream.

const (
	maxRequest     = 128 << 10 // bytes
	streamsPerConn = 256       // at once, on one connection
)

func (s *Server) newGRPCServer() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(peerCreds{}),
		grpc.ConnectionTimeout(prefaceTimeout),
		// Goroutines that are used again keep the stack that the cryptography needs; when all are busy, others are made.
		grpc.NumStreamWorkers(16),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.InTapHandle(s.enterStream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(16<<10),
		// Buffers that hold any usual message; grpc takes back the one for writing from the many connections that are idle.
		grpc.ReadBufferSize(8<<10),
		grpc.WriteBufferSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute, PermitWithoutStream: true}),
	)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: altspb.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: altspb.MethodName, Handler: s.doHandshake, ServerStreams: true, ClientStreams: true,
		}},
		Metadata: "grpc/gcp/handshaker.proto",
	}, s)
	return server
}

// RegisterService adds a service of the daemon's own beside the handshaker, on the same sockets (CallerFromContext). It
// must be called before Serve.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// peerCreds are the transport credentials of the UNIX socket: the kernel's word, no bytes exchanged.
type peerCreds struct{}

type callerInfo struct {
	credentials.CommonAuthInfo
	Caller
	conn *conn
}

func (callerInfo) AuthType() string { return "so_peercred" }

func (peerCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, fmt.Errorf("a connection of type %T has no peer credentials", raw)
	}
	caller, handsOver, err := c.begin() // the deadline of the preface is set
	if err != nil {
		return nil, nil, err
	}
	if handsOver { // it is served beside gRPC
		c.srv.handovers.Add(1)
		go c.srv.takeOver(c, caller)
		return nil, nil, credentials.ErrConnDispatched
	}
	return c, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, caller, c}, nil
}

func (peerCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's only")
}

func (peerCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "so_peercred"}
}

func (p peerCreds) Clone() credentials.TransportCredentials { return p }

func (peerCreds) OverrideServerName(string) error { return nil }

func callerInfoOf(ctx context.Context) (info callerInfo, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return callerInfo{}, false
	}
	info, ok = p.AuthInfo.(callerInfo)
	return info, ok
}

// CallerFromContext returns who called a method of a service that RegisterService added; ok is false if ctx is not one
// of such a call. A caller whom the socket refuses is not let through.
func CallerFromContext(ctx context.Context) (c Caller, ok bool) {
	info, ok := callerInfoOf(ctx)
	return info.Caller, ok && info.refusal == nil
}

// refusalsKept is how many streams a connection may have refused by enterStream; grpc keeps a little of each until the
// connection ends.
const refusalsKept = 256

// enterStream bounds the streams of an account, whatever service or state they are in, before grpc spends anything on them:
// a call of which nothing but the header has come, and a health check that watches, cost as much as a handshake. When
// the daemon stops, calls of the services beside the handshaker end, which else would hold up the stop for as long as
// their callers like.
func (s *Server) enterStream(ctx context.Context, call *tap.Info) (context.Context, error) {
	info, ok := callerInfoOf(ctx)
	if !ok {
		return ctx, status.Error(codes.Unauthenticated, "shared-altsd: the connection has no peer credentials")
	}
	if !s.allStreams.enter(info.share) {
		if info.conn.refused.Add(1) > refusalsKept {
			info.conn.Close()
		}
		st := status.Newf(codes.ResourceExhausted, "shared-altsd: %s has %d streams open; close some, or raise "+
			"the limit (overloaded)", info.share, s.allStreams.perAccount)
		return ctx, withRefusal(st, &altspb.Refusal{Reason: reason.Overloaded.String()})
	}
	if call.FullMethodName == altspb.FullMethod {
		context.AfterFunc(ctx, func() { s.allStreams.leave(info.share) })
		return ctx, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	keep := context.AfterFunc(s.draining, func() { time.AfterFunc(lingerTime, cancel) })
	context.AfterFunc(ctx, func() {
		keep()
		s.allStreams.leave(info.share)
	})
	return ctx, nil
}

// doHandshake is DoHandshake as grpc-go calls it.
func (s *Server) doHandshake(_ any, st grpc.ServerStream) error {
	ctx := st.Context()
	info, ok := callerInfoOf(ctx)
	if !ok {
		return errors.New("shared-altsd: the connection has no peer credentials")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return s.serveStream(ctx, info.Caller, clientKindOf(strings.Join(md.Get("user-agent"), " ")), grpcStream{st})
}

// A grpcStream is a stream that grpc-go's server carries.
type grpcStream struct{ grpc.ServerStream }

func (s grpcStream) receive(req *altspb.HandshakerReq) error { return s.RecvMsg(req) }

func (s grpcStream) send(resp *altspb.HandshakerResp) error { return s.SendMsg(resp) }
