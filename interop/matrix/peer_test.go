package matrix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// This file is the Go program of the tests. A copy of the test binary with this variable is that program: it does what
// interop/cpp/peer.cc does, with grpc-go's own ALTS ("go", under shared-altsd exec), with altscreds, or without any security, next to Envoy ("plain").
//
//	peer go|altscreds|plain server ADDRESS
//	peer go|altscreds|plain client TARGET ACCOUNT,ACCOUNT...
const bePeer = "SHARED_ALTSD_MATRIX_PEER"

const chunkSize = 1 << 20

func init() {
	if os.Getenv(bePeer) == "" {
		return
	}
	if err := runPeer(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runPeer(args []string) error {
	kind, role, address := args[0], args[1], args[2]
	if role == "server" {
		creds, err := serverCredentials(kind)
		if err != nil {
			return err
		}
		return serve(address, creds)
	}
	var accounts []string
	if args[3] != "" {
		accounts = strings.Split(args[3], ",")
	}
	creds, err := clientCredentials(kind, accounts)
	if err != nil {
		return err
	}
	c := &client{target: address, creds: creds}
	if err := c.open(); err != nil {
		return err
	}
	testprog.Answer(c.do)
	return nil
}

func serverCredentials(kind string) (credentials.TransportCredentials, error) {
	switch kind {
	case "go":
		return alts.NewServerCreds(alts.DefaultServerOptions()), nil
	case "plain":
		return insecure.NewCredentials(), nil
	}
	return altscreds.NewServerCredentials(altscreds.ServerOptions{})
}

func clientCredentials(kind string, accounts []string) (credentials.TransportCredentials, error) {
	switch kind {
	case "go":
		return alts.NewClientCreds(&alts.ClientOptions{TargetServiceAccounts: accounts}), nil
	case "plain":
		return insecure.NewCredentials(), nil
	}
	return altscreds.NewClientCredentials(altscreds.ClientOptions{TargetAccounts: accounts})
}

// receive returns the digest of all that comes.
func receive(recv func() (*wrapperspb.BytesValue, error)) (string, error) {
	h := sha256.New()
	for {
		b, err := recv()
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		h.Write(b.Value)
	}
}

// peerHeader is where Envoy tells a server its caller.
const peerHeader = "x-peer-account"

// saidBefore is what the client says itself in that header, which a server must not believe.
const saidBefore = "root@beta.test"

// caller describes a server's caller.
func caller(ctx context.Context) string {
	p, _ := grpcpeer.FromContext(ctx)
	if p.Addr.Network() == "unix" { // behind Envoy
		return strings.Join(metadata.ValueFromIncomingContext(ctx, peerHeader), ",") + " -"
	}
	return describe(p.AuthInfo)
}

// describe returns account and attribute "uid" of an authenticated peer.
func describe(ai credentials.AuthInfo) string {
	p, ok := altscreds.PeerFromAuthInfo(ai)
	if !ok {
		return "- -"
	}
	return p.Account + " " + p.Attributes["uid"]
}

const serviceName = "sharedaltsd.interop.Interop"

type interop struct{}

var service = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Greet",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(wrapperspb.StringValue)); err != nil {
				return nil, err
			}
			return wrapperspb.String(caller(ctx)), nil
		},
	}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Upload", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			sum, err := receive((&grpc.GenericServerStream[wrapperspb.BytesValue, wrapperspb.StringValue]{ServerStream: s}).Recv)
			if err != nil {
				return err
			}
			return s.SendMsg(wrapperspb.String(sum))
		}},
		{StreamName: "Download", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			size := new(wrapperspb.UInt64Value)
			if err := s.RecvMsg(size); err != nil {
				return err
			}
			return sendPattern(int(size.Value), func(b *wrapperspb.BytesValue) error { return s.SendMsg(b) })
		}},
		{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
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
		}},
	},
}

func serve(address string, creds credentials.TransportCredentials) error {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(creds), grpc.MaxRecvMsgSize(1<<30))
	s.RegisterService(&service, interop{})
	port := 0 // of a UNIX socket
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		port = a.Port
	}
	fmt.Println("port", port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	return s.Serve(l)
}

type client struct {
	target string
	creds  credentials.TransportCredentials
	conn   *grpc.ClientConn
}

func (c *client) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(c.target, grpc.WithTransportCredentials(c.creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
}

// open gives the client a new channel.
func (c *client) open() (err error) {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, err = c.dial()
	return err
}

func greet(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	var p grpcpeer.Peer
	reply := new(wrapperspb.StringValue)
	ctx = metadata.AppendToOutgoingContext(ctx, peerHeader, saidBefore)
	if err := conn.Invoke(ctx, "/"+serviceName+"/Greet", new(wrapperspb.StringValue), reply, grpc.Peer(&p)); err != nil {
		return "", err
	}
	return reply.Value + " " + describe(p.AuthInfo), nil
}

func (c *client) do(command string, n, m int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch command {
	case "new":
		return "", c.open()
	case "greet":
		return greet(ctx, c.conn)
	case "upload":
		s, err := c.conn.NewStream(ctx, &service.Streams[0], "/"+serviceName+"/Upload")
		if err != nil {
			return "", err
		}
		reply := new(wrapperspb.StringValue)
		if err := sendPattern(n, func(b *wrapperspb.BytesValue) error { return s.SendMsg(b) }); err != nil {
			return "", err
		}
		s.CloseSend()
		err = s.RecvMsg(reply)
		return reply.Value, err
	case "download":
		s, err := c.conn.NewStream(ctx, &service.Streams[1], "/"+serviceName+"/Download")
		if err != nil {
			return "", err
		}
		if err := s.SendMsg(wrapperspb.UInt64(uint64(n))); err != nil {
			return "", err
		}
		s.CloseSend()
		return receive((&grpc.GenericClientStream[wrapperspb.UInt64Value, wrapperspb.BytesValue]{ClientStream: s}).Recv)
	case "channels":
		return c.channels(ctx, n, m)
	case "echo":
		return c.echo(ctx, n, m)
	}
	return "", fmt.Errorf("unknown command %q", command)
}

// echo sends n messages of 1 to largest bytes and gives the digest of those that come back meanwhile.
func (c *client) echo(ctx context.Context, n, largest int) (string, error) {
	stream, err := c.conn.NewStream(ctx, &service.Streams[2], "/"+serviceName+"/Echo")
	if err != nil {
		return "", err
	}
	s := &grpc.GenericClientStream[wrapperspb.BytesValue, wrapperspb.BytesValue]{ClientStream: stream}
	go func() {
		echoMessages(n, largest, s.Send) // what makes this fail makes Recv fail, too
		s.CloseSend()
	}()
	h := sha256.New()
	for {
		b, err := s.Recv()
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		addMessage(h, b)
	}
}

// channels opens n channels, at most m of them at once, greets on each, and holds all of them to the end.
func (c *client) channels(ctx context.Context, n, m int) (string, error) {
	answers, errs, places := make([]string, n), make([]error, n), make(chan struct{}, m)
	var wg sync.WaitGroup
	for i := range n {
		conn, err := c.dial()
		if err != nil {
			return "", err
		}
		defer conn.Close()
		wg.Go(func() {
			places <- struct{}{}
			answers[i], errs[i] = greet(ctx, conn)
			<-places
		})
	}
	wg.Wait()
	for i := range n {
		if errs[i] != nil {
			return "", errs[i]
		}
		if answers[i] != answers[0] {
			return "", fmt.Errorf("answers differ: %q and %q", answers[0], answers[i])
		}
	}
	return answers[0], nil
}
