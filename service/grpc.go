package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localgrpc"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// The gRPC server of the local sockets (package localgrpc): what it serves, and to whom its connections and what they
// hold are counted.

func (s *Server) newGRPCServer() *localgrpc.Server {
	server := localgrpc.New()
	server.Idle = s.makeKeys
	server.Age, server.Grace, server.Linger = connectionAge, connectionGrace, lingerTime
	server.Handle(altspb.FullMethod, func(st *localgrpc.Stream) localgrpc.Call {
		caller, _ := st.PeerContext().Value(callerKey{}).(Caller)
		return s.newCall(caller, st)
	})
	server.Handle(altspb.WatchMethod, func(st *localgrpc.Stream) localgrpc.Call {
		caller, _ := st.PeerContext().Value(callerKey{}).(Caller)
		return s.newWatch(caller, st)
	})
	return server
}

// RegisterService adds a service of the daemon's own beside the handshaker, on the same sockets (CallerFromContext). It
// must be called before Serve.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// serveGRPC answers calls on a connection until it ends.
func (s *Server) serveGRPC(c *conn, caller Caller) {
	ctx := context.WithValue(c.ctx, callerKey{}, caller)
	err := s.grpc.ServeConn(c, localgrpc.Peer{Context: ctx, Account: account{s, caller.share},
		Meter: s.budget.Of(caller.share)})
	if err != nil {
		s.log.Debug("a connection to the daemon ended", "uid", caller.UID, "pid", caller.PID, "error", err)
	}
}

type callerKey struct{}

// CallerFromContext returns who called a method of a service that RegisterService added. A caller whom the socket refuses
// is not let through: the error is a gRPC status.
func CallerFromContext(ctx context.Context) (Caller, error) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	switch {
	case !ok:
		return c, status.Error(codes.Unauthenticated, "shared-altsd: the connection has no peer credentials")
	case c.refusal != nil:
		f := asFailure(c.refusal)
		return c, withRefusal(status.New(f.rpc, f.message("")), f.refusal(""))
	}
	return c, nil
}

// An account is to whom the server counts streams, whatever service or state they are in, and the memory of all: a call
// of which nothing but the header has come, and a health check that watches, cost as much as a handshake.
type account struct {
	srv   *Server
	share share
}

// Enter counts a stream, or returns the status that refuses it.
func (a account) Enter() error {
	if a.srv.allStreams.enter(a.share) {
		return nil
	}
	st := status.Newf(codes.ResourceExhausted, "shared-altsd: %s has %d streams open; close some, or raise "+
		"the limit (overloaded)", a.share, a.srv.allStreams.perAccount)
	return withRefusal(st, &altspb.Refusal{Reason: reason.Overloaded.String()})
}

// Leave takes back one Enter.
func (a account) Leave() { a.srv.allStreams.leave(a.share) }

// Hold counts n bytes more, or fewer.
func (a account) Hold(n int) bool { return a.srv.heldBytes.add(a.share, n) }
