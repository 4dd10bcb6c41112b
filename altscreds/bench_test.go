package altscreds_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/internal/rawcodec"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The benchmarks are to be read as ratios within one run: every sub-benchmark does the same work over other
// credentials, with both applications and both daemons in this process, so that cpu-µs/op is the processor time of all
// of them.

// variant is a way to secure a connection.
type variant struct {
	name           string
	client, server credentials.TransportCredentials
}

func variants(b *testing.B, keyType string) []variant {
	b.Helper()
	cs := daemon(b, "node1.example.com", daemonOptions{user: "bob", keyType: keyType})
	ss := daemon(b, "node2.example.com", daemonOptions{keyType: keyType})
	client, server := mutualTLS(keyType)
	return []variant{
		{"insecure", insecure.NewCredentials(), insecure.NewCredentials()},
		{"tls", credentials.NewTLS(client), credentials.NewTLS(server)},
		{"stock", stockClient(cs, alice2), stockServer(ss)},
		{"altscreds", ourClient(cs, alice2), ourServer(ss)},
	}
}

// mutualTLS returns TLS 1.3 with certificates at both ends and Go's default hybrid key exchange. Sessions are not
// resumed.
func mutualTLS(keyType string) (client, server *tls.Config) {
	pool := x509.NewCertPool()
	pool.AddCert(testmachine.CA().Cert)
	cert := func(host string) []tls.Certificate {
		issued := must(testmachine.CA().Issue(testca.Leaf{Hosts: []string{host}, IPs: loopback, KeyType: keyType}))
		return []tls.Certificate{must(tls.X509KeyPair(issued.CertPEM, issued.KeyPEM))}
	}
	client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: cert("node1.example.com")}
	server = &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: cert("node2.example.com"), SessionTicketsDisabled: true}
	return client, server
}

func dialOnce(b *testing.B, addr string, creds credentials.TransportCredentials) {
	cc := must(grpc.NewClient(addr, grpc.WithTransportCredentials(creds)))
	defer cc.Close()
	if err := call(cc, 1); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkChannel is a new channel with its first RPC, one after the other.
func BenchmarkChannel(b *testing.B) {
	for _, key := range []string{testca.P256, testca.RSA2048} {
		for _, v := range variants(b, key) {
			b.Run(key+"/"+v.name, func(b *testing.B) {
				addr := echoServer(b, v.server, nil)
				dialOnce(b, addr, v.client)
				b.ResetTimer()
				defer testprog.Processor(b)()
				for range b.N {
					dialOnce(b, addr, v.client)
				}
			})
		}
	}
}

// BenchmarkDialers is the same by 64 dialers at once.
func BenchmarkDialers(b *testing.B) {
	for _, v := range variants(b, testca.P256) {
		b.Run(v.name, func(b *testing.B) {
			addr := echoServer(b, v.server, nil)
			dialOnce(b, addr, v.client)
			b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			defer testprog.Processor(b)()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					dialOnce(b, addr, v.client)
				}
			})
		})
	}
}

// sinkServer takes a stream of messages and answers when it has them.
func sinkServer(b *testing.B, creds credentials.TransportCredentials) (addr string) {
	b.Helper()
	srv := grpc.NewServer(grpc.Creds(creds), grpc.MaxRecvMsgSize(2<<20), grpc.ForceServerCodecV2(rawcodec.Codec{}),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			var n int
			for {
				if err := s.RecvMsg(&n); err == io.EOF {
					return s.SendMsg(&[]byte{1})
				} else if err != nil {
					return err
				}
			}
		}))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go srv.Serve(l)
	b.Cleanup(srv.Stop)
	return l.Addr().String()
}

// BenchmarkBulk sends messages of 1 MiB on one stream.
func BenchmarkBulk(b *testing.B) {
	for _, v := range variants(b, testca.P256) {
		b.Run(v.name, func(b *testing.B) {
			cc := channel(b, sinkServer(b, v.server), v.client)
			message := make([]byte, 1<<20)
			send := func(count int) {
				s := must(cc.NewStream(context.Background(), &grpc.StreamDesc{ClientStreams: true}, "/test.Sink/Sink",
					grpc.ForceCodecV2(rawcodec.Codec{})))
				for range count {
					if err := s.SendMsg(&message); err != nil {
						b.Fatal(err)
					}
				}
				s.CloseSend()
				var n int
				if err := s.RecvMsg(&n); err != nil {
					b.Fatal(err)
				}
			}
			send(10)
			b.SetBytes(int64(len(message)))
			b.ResetTimer()
			defer testprog.Processor(b)()
			send(b.N)
		})
	}
}

// BenchmarkPingPong sends one byte there and back: over a stream of a channel, and over the bare connection.
func BenchmarkPingPong(b *testing.B) {
	for _, v := range variants(b, testca.P256) {
		b.Run("grpc/"+v.name, func(b *testing.B) {
			cc := channel(b, echoServer(b, v.server, nil), v.client)
			s := must(cc.NewStream(context.Background(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
				streamMethod))
			m := &wrapperspb.BytesValue{Value: []byte{1}}
			b.ResetTimer()
			defer testprog.Processor(b)()
			for range b.N {
				if err := s.SendMsg(m); err != nil {
					b.Fatal(err)
				}
				if err := s.RecvMsg(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, v := range variants(b, testca.P256) {
		b.Run("conn/"+v.name, func(b *testing.B) {
			rc, rs := tcpPair(b)
			rc.SetDeadline(time.Time{})
			rs.SetDeadline(time.Time{})
			c, s := secured(b, rc, rs, v.client, v.server)
			go io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
			var one [1]byte
			b.ResetTimer()
			defer testprog.Processor(b)()
			for range b.N {
				if _, err := c.Write(one[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, one[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConnBulk writes 1 MiB at a time to the bare connection.
func BenchmarkConnBulk(b *testing.B) {
	for _, v := range variants(b, testca.P256) {
		b.Run(v.name, func(b *testing.B) {
			rc, rs := tcpPair(b)
			rc.SetDeadline(time.Time{})
			rs.SetDeadline(time.Time{})
			c, s := secured(b, rc, rs, v.client, v.server)
			data := make([]byte, 1<<20)
			b.SetBytes(int64(len(data)))
			go func() {
				for range b.N {
					c.Write(data)
				}
			}()
			b.ResetTimer()
			defer testprog.Processor(b)()
			if _, err := io.CopyN(io.Discard, struct{ io.Reader }{s}, int64(b.N)*int64(len(data))); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkIdle reports the memory, in bytes, of an idle connection, both ends together, after a message each way and
// with a reader waiting at each end, as gRPC has.
func BenchmarkIdle(b *testing.B) {
	for _, v := range variants(b, testca.P256) {
		b.Run("conn/"+v.name, func(b *testing.B) { idle(b, v, idleConn) })
		b.Run("grpc/"+v.name, func(b *testing.B) { idle(b, v, idleChannel) })
	}
}

func idle(b *testing.B, v variant, open func(*testing.B, variant) func()) {
	const connections = 100
	for range b.N {
		open(b, v)() // what is made once
		before := memory()
		var closers []func()
		for range connections {
			closers = append(closers, open(b, v))
		}
		used := memory() - before
		for _, f := range closers {
			f()
		}
		b.ReportMetric(float64(used)/connections, "bytes/conn")
	}
}

func memory() int64 {
	for range 3 { // pools keep what they hold over one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) + int64(m.StackInuse)
}

func idleConn(b *testing.B, v variant) (stop func()) {
	rc, rs := tcpPair(b)
	c, s := secured(b, rc, rs, v.client, v.server)
	message := make([]byte, 100)
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{c, s}, {s, c}} {
		pair[0].Write(message)
		if _, err := io.ReadFull(pair[1], make([]byte, len(message))); err != nil {
			b.Fatal(err)
		}
	}
	for _, conn := range []net.Conn{c, s} {
		go func() {
			var one [1]byte
			conn.Read(one[:])
			done <- struct{}{}
		}()
	}
	return func() {
		rc.Close()
		rs.Close()
		<-done
		<-done
	}
}

func idleChannel(b *testing.B, v variant) (stop func()) {
	addr := echoServer(b, v.server, nil)
	cc := channel(b, addr, v.client)
	if err := call(cc, 100); err != nil {
		b.Fatal(err)
	}
	return func() { cc.Close() }
}
