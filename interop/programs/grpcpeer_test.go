package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// This file is the Go program of the gRPC tests: a copy of the test binary does what interop/cpp/peer.cc does of Greet, Echo
// and Fail, with altscreds.
//
//	server PORT
//	client TARGET ACCOUNT
func init() { roles["grpc"] = beGRPC }

const serviceName = "/sharedaltsd.interop.Interop/"

func beGRPC(args []string) error {
	if args[0] == "server" {
		return serveGRPC(args[1])
	}
	creds, err := altscreds.NewClientCredentials(altscreds.ClientOptions{TargetAccounts: []string{args[2]}})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(args[1], grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	testprog.Answer(func(command string, n, m int) (string, error) { return callGRPC(conn, command, n, m) })
	return nil
}

var echoStream = grpc.StreamDesc{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: echo}

func echo(_ any, s grpc.ServerStream) error {
	for {
		b := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(b); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(b); err != nil {
			return err
		}
	}
}

func serveGRPC(port string) error {
	unary := func(name string, f func(ctx context.Context, request string) (string, error)) grpc.MethodDesc {
		handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			r := new(wrapperspb.StringValue)
			if err := decode(r); err != nil {
				return nil, err
			}
			answer, err := f(ctx, r.Value)
			return wrapperspb.String(answer), err
		}
		return grpc.MethodDesc{MethodName: name, Handler: handler}
	}
	creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(creds), grpc.MaxRecvMsgSize(1<<30))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: strings.Trim(serviceName, "/"), HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		unary("Greet", func(ctx context.Context, _ string) (string, error) {
			p, ok := altscreds.PeerFromContext(ctx)
			if !ok {
				return "- -", nil
			}
			return p.Account + " " + p.Attributes["uid"], nil
		}),
		unary("Fail", func(ctx context.Context, why string) (string, error) {
			if why == "wait" {
				<-ctx.Done()
				return "", status.FromContextError(ctx.Err()).Err()
			}
			grpc.SetTrailer(ctx, metadata.Pairs("said", why))
			return "", status.Error(codes.FailedPrecondition, "no: "+why)
		}),
	}, Streams: []grpc.StreamDesc{echoStream}}, nil)
	fmt.Println("port", port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	return s.Serve(l)
}

func callGRPC(conn *grpc.ClientConn, name string, n, m int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, trailer := new(wrapperspb.StringValue), metadata.MD{}
	switch name {
	case "forged":
		for _, name := range []string{"altsd-peer", "altsd_peer", "altsd-peer-uid", "altsd.peer"} {
			ctx = metadata.AppendToOutgoingContext(ctx, name, "root@beta")
		}
		fallthrough
	case "greet":
		err := conn.Invoke(ctx, serviceName+"Greet", new(wrapperspb.StringValue), reply)
		return reply.Value, err
	case "fail":
		err := conn.Invoke(ctx, serviceName+"Fail", wrapperspb.String("why"), reply, grpc.Trailer(&trailer))
		s := status.Convert(err)
		return fmt.Sprintf("%d %s %s", s.Code(), s.Message(), strings.Join(trailer.Get("said"), ",")), nil
	case "deadline":
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		return fmt.Sprint(uint32(status.Code(conn.Invoke(ctx, serviceName+"Fail", wrapperspb.String("wait"), reply)))), nil
	}
	stream, err := conn.NewStream(ctx, &echoStream, serviceName+"Echo")
	if err != nil {
		return "", err
	}
	s := &grpc.GenericClientStream[wrapperspb.BytesValue, wrapperspb.BytesValue]{ClientStream: stream}
	if name == "turns" {
		for i := 1; i <= n; i++ {
			if err := s.Send(wrapperspb.Bytes(pattern(0, i))); err != nil {
				return "", err
			}
			if b, err := s.Recv(); err != nil || !bytes.Equal(b.Value, pattern(0, i)) {
				return "", fmt.Errorf("turn %d: %d bytes, %w", i, len(b.GetValue()), err)
			}
		}
		s.CloseSend()
		if _, err := s.Recv(); err != io.EOF {
			return "", fmt.Errorf("after the last turn: %v", err)
		}
		return fmt.Sprint(n), nil
	}
	go func() {
		at := 0
		for _, size := range sizes(n, m) {
			if s.Send(wrapperspb.Bytes(pattern(at, size))) != nil {
				return // what made this fail makes Recv fail, too
			}
			at += size
		}
		s.CloseSend()
	}()
	h := sha256.New()
	for {
		b, err := s.Recv()
		if err == io.EOF {
			return fmt.Sprintf("%x", h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d:", len(b.Value))
		h.Write(b.Value)
	}
}

// sizes are those of the messages of "echo N M", as interop/cpp/peer.cc has them.
func sizes(n, largest int) (all []int) {
	random := uint64(0)
	for i := range n {
		switch i {
		case 0:
			all = append(all, largest)
		case 1:
			all = append(all, 1)
		default:
			random = random*6364136223846793005 + 1442695040888963407
			all = append(all, 1+int(random>>32%min(uint64(largest), 1<<(random>>59))))
		}
	}
	return all
}

func pattern(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((at+i)>>8 ^ (at + i))
	}
	return b
}

// echoDigest is what "echo N M" answers.
func echoDigest(n, largest int) string {
	h, at := sha256.New(), 0
	for _, size := range sizes(n, largest) {
		fmt.Fprintf(h, "%d:", size)
		h.Write(pattern(at, size))
		at += size
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
