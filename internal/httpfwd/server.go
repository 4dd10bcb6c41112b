package httpfwd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// Bounds of what one connection makes the forward hold. Bodies have none: they are passed on as they come.
const (
	maxHeaderBytes = 64 << 10
	maxStreams     = 100
	streamBuffer   = 512 << 10
	connBuffer     = 4<<20 - 1 // HTTP2Config takes less than 4 MiB
)

// Times are how long a peer or the backend may keep the forward waiting.
type Times struct {
	Header time.Duration // for the first bytes of a connection, and for the headers of a request once it has begun
	Idle   time.Duration // between two requests
	Write  time.Duration // until something of what is written has been taken
	Linger time.Duration // after our end of a connection, for the other side's
	Ping   time.Duration // of HTTP/2, how long nothing may come before the other side is asked whether it is there
}

// DefaultTimes are those of both commands. connect gives up an idle connection before listen does, so that no request is
// sent into a connection that is about to end.
var DefaultTimes = Times{Header: 10 * time.Second, Idle: 2 * time.Minute, Write: time.Minute, Linger: 5 * time.Second,
	Ping: 30 * time.Second}

// Config is of the side that has the backend, `listen --http`.
type Config struct {
	// Service is what the backend is told, as the connections' application protocol names it.
	Service string
	// Dial connects to the backend and returns once it is proved to be that.
	Dial func(ctx context.Context) (net.Conn, error)
	// Log has what is wrong with the backend, at most once a minute. Requests are not logged.
	Log *slog.Logger
	// Times is DefaultTimes if it is zero.
	Times Times
}

// A Server forwards the requests of proved peers to a backend.
type Server struct {
	config Config
	// grpc is for connections of the protocol "grpc", whose end nothing authenticates: HTTP/2 alone, which tells its own.
	grpc, any       *http.Server
	grpcQ, anyQueue *queue
	underWay        underWay
}

// New returns a server that has to be shut down.
func New(c Config) *Server {
	if c.Times == (Times{}) {
		c.Times = DefaultTimes
	}
	s := &Server{config: c, grpcQ: newQueue(), anyQueue: newQueue()}
	handler := s.handler()
	s.grpc, s.any = newHTTP(handler, c.Times, false), newHTTP(handler, c.Times, true)
	go s.grpc.Serve(s.grpcQ)
	go s.any.Serve(s.anyQueue)
	return s
}

// newHTTP returns a server for connections that are a *conn, of HTTP/2 by prior knowledge and, maybe, HTTP/1.1.
func newHTTP(h http.Handler, t Times, http1 bool) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP1(http1)
	return &http.Server{Handler: h, Protocols: protocols, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: t.Header, IdleTimeout: t.Idle,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: connBuffer,
			MaxReceiveBufferPerStream: streamBuffer, SendPingTimeout: t.Ping, WriteByteTimeout: t.Write},
		ErrorLog: log.New(io.Discard, "", 0), // what it says holds bytes of the peer's
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			c.(*conn).idle.Store(state == http.StateIdle)
		},
	}
}

// ServeConn serves one connection until it ends, or ctx does. It closes the connection.
func (s *Server) ServeConn(ctx context.Context, raw net.Conn, caller Caller) Result {
	q := s.anyQueue
	switch {
	case caller.Protocol == "grpc":
		q = s.grpcQ
	case !altscreds.IsServiceProtocol(caller.Protocol):
		raw.Close()
		return Result{Err: fmt.Errorf("the application protocol is %.70q: --http takes grpc and altsd-tcp/1", caller.Protocol)}
	}
	headers, err := caller.identity(s.config.Service)
	if err != nil {
		raw.Close()
		return Result{Err: err}
	}
	c := newConn(raw, s.config.Times, new(atomic.Int32))
	// One connection a request of HTTP/1.1, so that none is sent into one that the program is about to close, and each is
	// to whom has just been looked at.
	c.caller, c.backend = headers, newBackend(s.config.Dial, s.config.Times)
	c.backend.http1.DisableKeepAlives = true
	defer c.backend.close()
	return q.serve(ctx, c)
}

// Shutdown lets requests under way end, takes no others, and returns when there are none, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.grpcQ.Close()
	s.anyQueue.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.grpc.Shutdown(ctx) }()
	return errors.Join(s.any.Shutdown(ctx), <-ended)
}

// Close ends all connections.
func (s *Server) Close() error { return errors.Join(s.grpc.Close(), s.any.Close()) }
