package demo

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// A greeterServer is the gRPC server on beta.demo.
type greeterServer struct {
	grpc  *grpc.Server
	addr  string
	creds *measured
}

type greeter interface {
	hello(context.Context) (*wrapperspb.StringValue, error)
}

func (*greeterServer) hello(ctx context.Context) (*wrapperspb.StringValue, error) {
	p, ok := altscreds.PeerFromContext(ctx)
	if !ok {
		return nil, errors.New("the connection has no verified peer")
	}
	return wrapperspb.String(p.Account), nil
}

const helloMethod = "/demo.Greeter/Hello"

var greeterService = grpc.ServiceDesc{
	ServiceName: "demo.Greeter",
	HandlerType: (*greeter)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Hello",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(wrapperspb.StringValue)); err != nil {
				return nil, err
			}
			return srv.(greeter).hello(ctx)
		},
	}},
}

func startGreeter(socket string) (*greeterServer, error) {
	creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: socket})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &greeterServer{addr: l.Addr().String(), creds: &measured{TransportCredentials: creds, log: new(handshakeLog)}}
	s.grpc = grpc.NewServer(grpc.Creds(s.creds))
	s.grpc.RegisterService(&greeterService, s)
	go s.grpc.Serve(l)
	return s, nil
}

// A call is what one call to the greeter showed.
type call struct {
	serverIs, clientIs, reply string
	sent, received            int64 // bytes of the handshake, as the client sees them
	took                      time.Duration
}

func callGreeter(ctx context.Context, socket string, server *greeterServer, target string) (*call, error) {
	creds, err := altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: socket, TargetAccounts: []string{target}})
	if err != nil {
		return nil, err
	}
	client := &measured{TransportCredentials: creds, log: new(handshakeLog)}
	conn, err := grpc.NewClient("passthrough:///"+server.addr, grpc.WithTransportCredentials(client))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, helloMethod, wrapperspb.String("Hello?"), reply); err != nil {
		// The handshake's own error says more than the call's, which is text.
		return nil, errors.Join(client.log.last().err, err)
	}
	ours, theirs := client.log.last(), server.creds.log.last()
	p, ok := altscreds.PeerFromAuthInfo(ours.info)
	if !ok {
		return nil, errors.New("the connection has no verified peer")
	}
	return &call{
		serverIs: p.Account, clientIs: reply.GetValue(), reply: "Hello, " + reply.GetValue(),
		sent: ours.sent, received: theirs.sent, took: ours.took,
	}, nil
}
