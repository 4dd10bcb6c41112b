package forward_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The benchmarks are to be read as ratios within one run: both forwards and both programs are in this process, so that
// cpu-µs/op is the processor time of all of them.

// A joiner joins two local connections by a pair of forwards.
type joiner func(tb testing.TB, near, far net.Conn) (wait func())

func (w *world) join(tb testing.TB, near, far net.Conn) (wait func()) {
	a, b := testnet.Pair(tb)
	bob, alice := w.secure(a, b)
	var wg sync.WaitGroup
	wg.Go(func() { forward.Carry(tb.Context(), near, bob, forward.Ends{}) })
	wg.Go(func() { forward.Carry(tb.Context(), far, alice, forward.Ends{}) })
	return wg.Wait
}

// tlsJoiner is a forward of the same shape on crypto/tls.
func tlsJoiner() joiner {
	pool := x509.NewCertPool()
	pool.AddCert(testmachine.CA().Cert)
	cert := func(host string) []tls.Certificate {
		issued := must(testmachine.CA().Issue(testca.Leaf{Hosts: []string{host}}))
		return []tls.Certificate{must(tls.X509KeyPair(issued.CertPEM, issued.KeyPEM))}
	}
	client := &tls.Config{RootCAs: pool, Certificates: cert("node1.example.com"), ServerName: "node2.example.com"}
	server := &tls.Config{ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: cert("node2.example.com")}
	return func(tb testing.TB, near, far net.Conn) (wait func()) {
		a, b := testnet.Pair(tb)
		var wg sync.WaitGroup
		carry := func(local net.Conn, peer *tls.Conn) {
			wg.Go(func() { io.Copy(peer, local); peer.CloseWrite() })
			wg.Go(func() { io.Copy(local, peer); local.(*net.TCPConn).CloseWrite() })
		}
		carry(near, tls.Client(a, client))
		carry(far, tls.Server(b, server))
		return wg.Wait
	}
}

func joiners(tb testing.TB) map[string]joiner {
	w := newWorld(tb)
	return map[string]joiner{"tls": tlsJoiner(), "altsd": w.join}
}

// BenchmarkBulk is 1 MiB through two forwards.
func BenchmarkBulk(b *testing.B) {
	for name, join := range joiners(b) {
		b.Run(name, func(b *testing.B) {
			p1, l1 := testnet.Pair(b)
			p2, l2 := testnet.Pair(b)
			wait := join(b, l1, l2)
			data := make([]byte, 1<<20)
			p1.Write(data)
			io.CopyN(io.Discard, p2, 1<<20)
			b.SetBytes(int64(len(data)))
			b.ResetTimer()
			stop := testprog.Processor(b)
			go func() {
				for range b.N {
					p1.Write(data)
				}
				p1.CloseWrite()
			}()
			buf := make([]byte, 256<<10)
			var n int
			for {
				m, err := p2.Read(buf)
				if n += m; err != nil {
					break
				}
			}
			stop()
			if n != b.N<<20 {
				b.Errorf("%d bytes", n)
			}
			p2.Close()
			wait()
		})
	}
}

// BenchmarkIdle reports the memory, in bytes, of an idle connection that has carried a message each way: one forward's.
func BenchmarkIdle(b *testing.B) {
	for name, join := range joiners(b) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				const connections = 500
				before := memory()
				var conns []net.Conn
				var waits []func()
				for range connections {
					p1, l1 := testnet.Pair(b)
					p2, l2 := testnet.Pair(b)
					waits = append(waits, join(b, l1, l2))
					for _, p := range [][2]net.Conn{{p1, p2}, {p2, p1}} {
						p[0].Write(make([]byte, 100))
						if _, err := io.ReadFull(p[1], make([]byte, 100)); err != nil {
							b.Fatal(err)
						}
					}
					conns = append(conns, p1, p2)
				}
				b.ReportMetric(float64(memory()-before)/(2*connections), "bytes/conn")
				for _, c := range conns {
					c.Close()
				}
				for _, wait := range waits {
					wait()
				}
			}
		})
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
