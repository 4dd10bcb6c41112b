package altscreds_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/service"
)

//go:linkname vmOnGCP google.golang.org/grpc/credentials/alts.vmOnGCP
var vmOnGCP bool

// stockClient and stockServer return grpc-go's own ALTS credentials, which outside of Google's cloud refuse to work.
func stockClient(socket string, targets ...string) credentials.TransportCredentials {
	c := alts.NewClientCreds(&alts.ClientOptions{HandshakerServiceAddress: "unix:" + socket,
		TargetServiceAccounts: targets})
	vmOnGCP = true
	return c
}

func stockServer(socket string) credentials.TransportCredentials {
	c := alts.NewServerCreds(&alts.ServerOptions{HandshakerServiceAddress: "unix:" + socket})
	vmOnGCP = true
	return c
}

func ourClient(socket string, targets ...string) credentials.TransportCredentials {
	return must(altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: socket, TargetAccounts: targets}))
}

func ourServer(socket string) credentials.TransportCredentials {
	return must(altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: socket}))
}

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(tb testing.TB) (client, server net.Conn) {
	tb.Helper()
	a, b := testnet.Pair(tb)
	a.SetDeadline(time.Now().Add(patience))
	b.SetDeadline(time.Now().Add(patience))
	return a, b
}

// secured does the handshake of both ends.
func secured(tb testing.TB, rawClient, rawServer net.Conn, client, server credentials.TransportCredentials) (c,
	s net.Conn) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		s, _, err = server.ServerHandshake(rawServer)
		done <- err
	}()
	c, _, err := client.ClientHandshake(ctx, "node2.example.com:443", rawClient)
	if err := errors.Join(err, <-done); err != nil {
		tb.Fatal(err)
	}
	return c, s
}

// A pairing is a client's credentials with a server's.
type pairing struct {
	name           string
	client, server credentials.TransportCredentials
}

// pairings are ours with ours and with stock ones, for the sockets of client and server.
func pairings(cs, ss string) []pairing {
	return []pairing{
		{"ours to ours", ourClient(cs, alice2), ourServer(ss)},
		{"ours to stock", ourClient(cs, alice2), stockServer(ss)},
		{"stock to ours", stockClient(cs, alice2), ourServer(ss)},
	}
}

// setCounters sets the numbers of the next frames of either kind of connection. Stock's are found by their names.
func setCounters(c net.Conn, n uint64) {
	if _, ok := c.(*altscreds.Conn); ok {
		altscreds.SetCounters(c, n)
		return
	}
	crypto := reflect.ValueOf(c).Elem().FieldByName("crypto").Elem().Elem()
	for _, name := range []string{"inCounter", "outCounter"} {
		value := crypto.FieldByName(name).FieldByName("value")
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(value.UnsafeAddr())), value.Len())
		for i := range 8 {
			bytes[i] = byte(n >> (8 * i))
		}
	}
}

// transfer sends total random bytes from a to b in writes of random sizes up to largest, and compares.
func transfer(a, b net.Conn, seed uint64, total, largest int) error {
	random := rand.NewChaCha8([32]byte{byte(seed)})
	sent := make([]byte, total)
	random.Read(sent)
	failed := make(chan error, 1)
	go func() {
		sizes := rand.New(rand.NewPCG(seed, 1))
		for rest := sent; len(rest) > 0; {
			// Small sizes as often as large ones.
			n := min(len(rest), 1+sizes.IntN(1<<sizes.IntN(1+bitLen(largest))))
			if _, err := a.Write(rest[:n]); err != nil {
				failed <- err
				return
			}
			rest = rest[n:]
		}
		failed <- nil
	}()
	got := make([]byte, total)
	sizes := rand.New(rand.NewPCG(seed, 2))
	for n := 0; n < total; {
		m, err := b.Read(got[n:min(total, n+1+sizes.IntN(1<<sizes.IntN(18)))])
		if n += m; err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", n, total, err)
		}
	}
	if err := <-failed; err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("other bytes arrived")
	}
	return nil
}

func bitLen(n int) (bits int) {
	for ; n > 1; n /= 2 {
		bits++
	}
	return bits
}

// TestRecordProtocol has connections of both kinds carry bytes both ways at once, over the change of keys after frame
// 2^16 and up to the 48 bits of key number that a 64-bit counter has.
func TestRecordProtocol(t *testing.T) {
	cs, ss := twoMachines(t)
	for _, test := range pairings(cs, ss) {
		for _, segment := range []int{0, 16} {
			for _, counter := range []uint64{0, 1<<16 - 20, 0xABCDEF123456_FFF0} {
				t.Run(fmt.Sprintf("%s/segment %d/counter %x", test.name, segment, counter), func(t *testing.T) {
					t.Parallel()
					rc, rs := tcpPair(t)
					total, largest := 16<<20, 8<<20
					if segment > 0 {
						rc, rs = testnet.Segments{Conn: rc, Size: segment}, testnet.Segments{Conn: rs, Size: segment}
						total, largest = 200<<10, 100<<10
					}
					c, s := secured(t, rc, rs, test.client, test.server)
					setCounters(c, counter)
					setCounters(s, counter)
					failed := make(chan error, 1)
					go func() { failed <- transfer(s, c, counter+1, total, largest) }()
					if err := errors.Join(transfer(c, s, counter, total, largest), <-failed); err != nil {
						t.Error(err)
					}
					for _, c := range []net.Conn{rc, rs} {
						c.Close()
					}
				})
			}
		}
	}
}

// echoService answers each unary call with its bytes, after a check of the context.
func echoServer(tb testing.TB, creds credentials.TransportCredentials, check func(context.Context) error,
	opts ...grpc.ServerOption) string {
	tb.Helper()
	srv := grpc.NewServer(append(opts, grpc.Creds(creds), grpc.MaxRecvMsgSize(16<<20))...)
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error,
			interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, in any) (any, error) {
				if check == nil {
					return in, nil
				}
				return in, check(ctx)
			}
			if interceptor == nil {
				return handle(ctx, in)
			}
			return interceptor(ctx, in, &grpc.UnaryServerInfo{FullMethod: echoMethod}, handle)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				for {
					m := new(wrapperspb.BytesValue)
					if err := s.RecvMsg(m); err == io.EOF {
						return nil
					} else if err != nil {
						return err
					}
					if err := s.SendMsg(m); err != nil {
						return err
					}
				}
			}}},
	}, nil)
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	tb.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

const (
	echoMethod   = "/test.Echo/Unary"
	streamMethod = "/test.Echo/Stream"
)

func channel(tb testing.TB, addr string, creds credentials.TransportCredentials,
	opts ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	cc := must(grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))...))
	tb.Cleanup(func() { cc.Close() })
	return cc
}

// call makes one RPC with size random bytes.
func call(cc *grpc.ClientConn, size int, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	in, out := &wrapperspb.BytesValue{Value: make([]byte, size)}, new(wrapperspb.BytesValue)
	rand.NewChaCha8([32]byte{byte(size)}).Read(in.Value)
	if err := cc.Invoke(ctx, echoMethod, in, out, opts...); err != nil {
		return err
	}
	if !bytes.Equal(in.Value, out.Value) {
		return errors.New("other bytes came back")
	}
	return nil
}

// TestGRPC has stock and own credentials in both roles carry RPCs, and looks at what each end learns of the other with
// the functions of grpc's own package and of ours.
func TestGRPC(t *testing.T) {
	groups := []string{"domain users", "wheel"}
	cs := daemon(t, "node1.example.com", daemonOptions{user: "bob", groups: groups,
		service: service.Config{PublishGroups: groups}})
	ss := daemon(t, "node2.example.com", daemonOptions{})
	for _, test := range pairings(cs, ss) {
		t.Run(test.name, func(t *testing.T) {
			addr := echoServer(t, test.server, func(ctx context.Context) error {
				info, err := alts.AuthInfoFromContext(ctx)
				if err != nil {
					return err
				}
				if info.PeerServiceAccount() != bob1 || info.LocalServiceAccount() != alice2 ||
					info.ApplicationProtocol() != "grpc" ||
					info.RecordProtocol() != "ALTSRP_GCM_AES128_REKEY" || info.SecurityLevel().String() != "INTEGRITY_AND_PRIVACY" ||
					info.PeerRPCVersions().GetMaxRpcVersion().GetMajor() != 2 {
					return fmt.Errorf("AuthInfo is %+v", info)
				}
				if err := alts.ClientAuthorizationCheck(ctx,
					[]string{"carol@node1.example.com"}); status.Code(err) != codes.PermissionDenied {
					return fmt.Errorf("carol would be let in: %v", err)
				}
				p, ok := altscreds.PeerFromContext(ctx)
				if _, hasUID := p.UID(); !ok || !hasUID || p.User != "bob" || p.Machine != "node1.example.com" ||
					!p.InGroup("wheel") || !p.InGroup("domain users") || p.InGroup("domain") || p.InGroup("w") {
					return fmt.Errorf("peer is %+v, %v", p, ok)
				}
				return alts.ClientAuthorizationCheck(ctx, []string{bob1})
			})
			cc := channel(t, addr, test.client)
			for _, size := range []int{0, 1, 4072, 4073, 16384, 70000, 1 << 20, 8 << 20} {
				var p peer.Peer
				if err := call(cc, size, grpc.Peer(&p)); err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if info, err := alts.AuthInfoFromPeer(&p); err != nil || info.PeerServiceAccount() != alice2 {
					t.Fatalf("the client's peer: %v, %v", info, err)
				}
				if p, ok := altscreds.PeerFromAuthInfo(p.AuthInfo); !ok || p.Account != alice2 {
					t.Fatalf("the client's peer: %v, %v", p, ok)
				}
			}
		})
	}
}

// TestAuthority: an RPC may name another authority only if it is still the same machine.
func TestAuthority(t *testing.T) {
	cs, ss := twoMachines(t)
	var addr string
	cc := channel(t, "passthrough:///service.example.com:443", ourClient(cs, alice2),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}))
	addr = echoServer(t, ourServer(ss), nil)
	for authority, ok := range map[string]bool{
		"node2.example.com": true, "Node2.Example.com.:443": true, "service.example.com": true,
		"node3.example.com": false, "": true, "[::1]:443": false, ":443": false,
	} {
		if err := call(cc, 1, grpc.CallAuthority(authority)); (err == nil) != ok {
			t.Errorf("authority %q: %v", authority, err)
		}
	}
}
