package matrix

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// This file is the Go program of the tests. A copy of the test binary with this variable is that program: it does what
// interop/cpp/peer.cc does, with grpc-go's own ALTS ("go", under shared-altsd exec) or with altscreds.
//
//	peer go|altscreds server ADDRESS
//	peer go|altscreds client TARGET ACCOUNT,ACCOUNT...
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
		creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{})
		if kind == "go" {
			creds, err = alts.NewServerCreds(alts.DefaultServerOptions()), nil
		}
		if err != nil {
			return err
		}
		return serve(address, creds)
	}
	accounts := strings.Split(args[3], ",")
	creds, err := altscreds.NewClientCredentials(altscreds.ClientOptions{TargetAccounts: accounts})
	if kind == "go" {
		creds, err = alts.NewClientCreds(&alts.ClientOptions{TargetServiceAccounts: accounts}), nil
	}
	if err != nil {
		return err
	}
	c := &client{target: address, creds: creds}
	if err := c.open(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, numbers, _ := strings.Cut(lines.Text(), " ")
		n, m := 0, 0
		fmt.Sscan(numbers, &n, &m)
		answer, err := c.do(command, n, m)
		if err != nil {
			s := status.Convert(err)
			answer = fmt.Sprintf("error %d %s", s.Code(), s.Message())
		} else {
			answer = "ok " + answer
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", " "))
	}
	return nil
}

// patternChunk is one chunk of what interop.proto has a download consist of; it repeats after 65536 bytes.
var patternChunk = sync.OnceValue(func() []byte {
	b := make([]byte, chunkSize)
	for i := range b {
		b[i] = byte(i>>8 ^ i)
	}
	return b
})

// sendPattern calls send with chunks of the pattern, size bytes in all.
func sendPattern(size int, send func(*wrapperspb.BytesValue) error) error {
	for at := 0; at < size; at += chunkSize {
		if err := send(wrapperspb.Bytes(patternChunk()[:min(chunkSize, size-at)])); err != nil {
			return err
		}
	}
	return nil
}

func patternDigest(size int) string {
	h := sha256.New()
	sendPattern(size, func(b *wrapperspb.BytesValue) error { h.Write(b.Value); return nil })
	return hex.EncodeToString(h.Sum(nil))
}

// sizes gives the sizes of the messages of "echo N M", largest being M: the largest, the least, then powers of two at
// random as bounds of random sizes, so that small sizes are frequent, too. The program in C++ has the same sequence.
func sizes(n, largest int) iter.Seq[int] {
	return func(yield func(int) bool) {
		random := uint64(0)
		for i := range n {
			size := largest
			if i == 1 {
				size = 1
			} else if i > 1 {
				random = random*6364136223846793005 + 1442695040888963407
				size = 1 + int(random>>32%min(uint64(largest), 1<<(random>>59)))
			}
			if !yield(size) {
				return
			}
		}
	}
}

// echoMessages calls send with the messages of "echo N M".
func echoMessages(n, largest int, send func(*wrapperspb.BytesValue) error) error {
	const period = 1 << 16
	pattern := bytes.Repeat(patternChunk()[:period], (largest+period-1)/period+1)
	at := 0
	for size := range sizes(n, largest) {
		if err := send(wrapperspb.Bytes(pattern[at : at+size])); err != nil {
			return err
		}
		at = (at + size) % period
	}
	return nil
}

// addMessage adds a message to a digest, its size and a colon before it.
func addMessage(h hash.Hash, b *wrapperspb.BytesValue) {
	fmt.Fprintf(h, "%d:", len(b.Value))
	h.Write(b.Value)
}

func echoDigest(n, largest int) string {
	h := sha256.New()
	echoMessages(n, largest, func(b *wrapperspb.BytesValue) error { addMessage(h, b); return nil })
	return hex.EncodeToString(h.Sum(nil))
}

// receive gives the digest of all that comes.
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

// describe gives account and attribute "uid" of an authenticated peer.
func describe(ai credentials.AuthInfo) string {
	p, ok := altscreds.PeerFromAuthInfo(ai)
	if !ok {
		return "nobody -"
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
			p, _ := grpcpeer.FromContext(ctx)
			return wrapperspb.String(describe(p.AuthInfo)), nil
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
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(creds), grpc.MaxRecvMsgSize(1<<30))
	s.RegisterService(&service, interop{})
	fmt.Println("port", l.Addr().(*net.TCPAddr).Port)
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
