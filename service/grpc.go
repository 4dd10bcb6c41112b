package service

import (
	"context"

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
	server.Age, server.Grace, server.Linger = connectionAge, connectionGrace, lingerTime
	if s.cfg.Register != nil {
		s.cfg.Register(server)
	}
	server.Handle(altspb.FullMethod, func(st *localgrpc.Stream) localgrpc.Call {
		caller, _ := st.PeerContext().Value(callerKey{}).(Caller)
		return s.newCall(caller, st)
	})
	return server
}

// serveGRPC answers calls on a connection until it ends.
func (s *Server) serveGRPC(c *conn, caller Caller) {
	ctx := context.WithValue(context.Background(), callerKey{}, caller)
	err := s.grpc.ServeConn(c, localgrpc.Peer{Context: ctx, Account: account{s, caller.UID}, Meter: localgrpc.Free{}})
	if err != nil {
		s.log.Debug("a connection to the daemon ended", "uid", caller.UID, "pid", caller.PID, "error", err)
	}
}

type callerKey struct{}

// CallerFromContext returns who called a method of a service that Config.Register added; ok is false if ctx is not one
// of such a call. A caller whom the socket refuses is not let through.
func CallerFromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok && c.refusal == nil
}

// An account is to whom the server counts streams, whatever service or state they are in, and the memory of all: a call
// of which nothing but the header has come, and a health check that watches, cost as much as a handshake.
type account struct {
	srv *Server
	uid uint32
}

// Enter counts a stream, or returns the status that refuses it.
func (a account) Enter() error {
	if a.srv.allStreams.enter(a.uid) {
		return nil
	}
	st := status.Newf(codes.ResourceExhausted, "shared-altsd: uid %d has %d streams open; close some, or raise "+
		"the limit (overloaded)", a.uid, a.srv.allStreams.perAccount)
	return withRefusal(st, &altspb.Refusal{Reason: reason.Overloaded.String()})
}

// Leave takes back one Enter.
func (a account) Leave() { a.srv.allStreams.leave(a.uid) }

// Hold counts n bytes more, or fewer.
func (a account) Hold(n int) bool { return a.srv.heldBytes.add(a.uid, n) }
