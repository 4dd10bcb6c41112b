package localgrpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Calls of generated services: one request, which is whole, and no more to come, before a goroutine is spent on it.

// callUnits is what a call of a generated service costs (see Meter).
const callUnits = 50

var errDeadline = status.New(codes.DeadlineExceeded, "shared-altsd: the client's deadline passed")

func unary(m grpc.MethodDesc, impl any) Method {
	return func(st *Stream) Call {
		return &generated{st: st, run: func(ctx context.Context, decode func(any) error) error {
			resp, err := m.Handler(impl, ctx, decode, nil)
			if err != nil {
				return err
			}
			return sendMessage(st, resp)
		}}
	}
}

func streaming(m grpc.StreamDesc, impl any) Method {
	return func(st *Stream) Call {
		return &generated{st: st, run: func(ctx context.Context, decode func(any) error) error {
			return m.Handler(impl, &serverStream{st: st, ctx: ctx, decode: decode})
		}}
	}
}

// A generated is the Call of a generated service.
type generated struct {
	st      *Stream
	run     func(ctx context.Context, decode func(any) error) error
	request []byte
	began   bool
}

// Message keeps the request; a second one ends the call.
func (g *generated) Message(b []byte) {
	if g.request != nil {
		g.st.Finish(status.Error(codes.Internal, "shared-altsd: the method takes one request"))
		return
	}
	if !g.st.Hold(len(b)) {
		g.st.Finish(errTooMuch.Err())
		return
	}
	g.request = append(make([]byte, 0, len(b)), b...)
	g.st.answered()
}

// End begins the call once its request is whole.
func (g *generated) End(err error) {
	if err != io.EOF || g.began {
		return
	}
	if g.request == nil {
		g.st.Finish(status.Error(codes.Internal, "shared-altsd: a call without a request"))
		return
	}
	ctx, cancel := g.st.Context()
	g.st.cancel, g.began = cancel, true
	g.st.Go(func() {
		err := g.st.c.peer.Meter.Charge(ctx, callUnits)
		if err == nil {
			err = g.run(ctx, g.decode)
		}
		if _, ok := status.FromError(err); !ok {
			err = status.FromContextError(err).Err()
		}
		g.st.Do(func() { g.st.Finish(err) })
	})
}

// Drain ends the call soon.
func (g *generated) Drain() {
	time.AfterFunc(g.st.c.srv.Linger, func() {
		g.st.Do(func() {
			g.st.Finish(status.Error(codes.Unavailable, "shared-altsd: the daemon is stopping; try again"))
		})
	})
}

// decode gives out the request, once.
func (g *generated) decode(to any) error {
	m, ok := to.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "shared-altsd: a request of type %T", to)
	}
	defer clear(g.request)
	if err := proto.Unmarshal(g.request, m); err != nil {
		return status.Errorf(codes.Internal, "shared-altsd: the request could not be read: %v", err)
	}
	return nil
}

func sendMessage(st *Stream, resp any) error {
	m, ok := resp.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "shared-altsd: a response of type %T", resp)
	}
	err := context.Canceled
	st.Do(func() {
		if st.Send(m) {
			err = nil
		}
	})
	return err
}

// A serverStream is what the handler of a generated streaming method sends by.
type serverStream struct {
	st     *Stream
	ctx    context.Context
	decode func(any) error
	read   bool
}

var errNoMetadata = errors.New("metadata is not sent here")

func (s *serverStream) SetHeader(metadata.MD) error  { return errNoMetadata }
func (s *serverStream) SendHeader(metadata.MD) error { return errNoMetadata }
func (s *serverStream) SetTrailer(metadata.MD)       {}
func (s *serverStream) Context() context.Context     { return s.ctx }
func (s *serverStream) SendMsg(m any) error          { return sendMessage(s.st, m) }

// RecvMsg returns the only request, then io.EOF.
func (s *serverStream) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	return s.decode(m)
}
