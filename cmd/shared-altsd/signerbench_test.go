package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// benchDir names the directory of a benchmark to the processes that it starts.
const benchDir = "SHARED_ALTSD_BENCH_DIR"

const (
	benchAccounts  = 500
	benchDialers   = 16
	benchSignature = 500 * time.Millisecond
)

// A deviceKey takes its time for a signature and makes one after the other, as a TPM does.
type deviceKey struct {
	signer.Key
	one sync.Mutex
}

func (k *deviceKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.one.Lock()
	defer k.one.Unlock()
	time.Sleep(benchSignature)
	return k.Key.Sign(ctx, digest, opts)
}

// slowSigner is a signer with such a key, as a process of its own.
func slowSigner() {
	dir := os.Getenv(benchDir)
	err := func() error {
		key, err := signer.OpenFile(filepath.Join(dir, "key.pem"))
		if err != nil {
			return err
		}
		log := slog.New(slog.DiscardHandler)
		s, err := signer.New(signer.Config{Key: &deviceKey{Key: key}, Certificates: filepath.Join(dir, "chain.pem"), Log: log})
		if err != nil {
			return err
		}
		l, err := net.Listen("unix", filepath.Join(dir, "signer"))
		if err != nil {
			return err
		}
		fmt.Println("ready")
		go func() {
			io.Copy(io.Discard, os.Stdin) // which ends with the benchmark
			os.Exit(0)
		}()
		server := &companion.Server{Protocol: signer.Protocol, InFlight: 32, Handle: s.Handle, Log: log}
		return server.Serve(context.Background(), l.(*net.UnixListener))
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// makeLoad makes handshakes when it is told to, each as the next of the accounts, and says how many it made, how long the slowest took
// in microseconds, and how many took longer than half a signature.
func makeLoad() {
	dir := os.Getenv(benchDir)
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: filepath.Join(dir, "server")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if c.(*altscreds.Conn).Handshake() == nil {
					c.Read(make([]byte, 1)) // until the client has had its result
				}
			}()
		}
	}()
	var next atomic.Int64
	testprog.Answer(func(daemon string, milliseconds, count int) (string, error) {
		end := time.Now().Add(time.Duration(milliseconds) * time.Millisecond)
		var made, slowest, waits, taken atomic.Int64
		var dialing sync.WaitGroup
		failures := make(chan error, benchDialers)
		for range benchDialers {
			dialing.Go(func() {
				for time.Now().Before(end) && (count == 0 || taken.Add(1) <= int64(count)) {
					began := time.Now()
					c, err := altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{ApplicationProtocols: spoken,
						Socket: filepath.Join(dir, daemon+strconv.FormatInt(next.Add(1)%benchAccounts, 10)), TargetMachines: []string{"b.test"}})
					if err == nil {
						err = c.Handshake()
						c.Close()
					}
					if err != nil {
						failures <- err
						return
					}
					took := time.Since(began)
					made.Add(1)
					if took > benchSignature/2 {
						waits.Add(1)
					}
					for was := slowest.Load(); int64(took) > was && !slowest.CompareAndSwap(was, int64(took)); was = slowest.Load() {
					}
				}
			})
		}
		dialing.Wait()
		close(failures)
		return fmt.Sprint(made.Load(), slowest.Load()/1000, waits.Load()), <-failures
	})
}

// BenchmarkSigner has 500 accounts shake hands by a daemon whose key is in a file, and by one whose key is with a signer that takes
// half a second for a signature and makes one after the other; every process is on its own. One operation is five seconds of each,
// in turn, with a new revocation list at the beginning. file/s and signer/s are handshakes a second, ratio the second to the first; slow is how
// many took longer than half a signature. Statements live for 15 minutes, the least there is, so that a run of ten minutes has
// all of them made anew on the way. At the end the certificate is renewed under load.
func BenchmarkSigner(b *testing.B) {
	dir, ca := testprog.Dir(b), newCA(b, testca.Options{})
	path := func(name string) string { return filepath.Join(dir, name) }
	// put replaces a file at once.
	put := func(name string, data []byte) {
		write(b, path(name+".next"), data)
		if err := os.Rename(path(name+".next"), path(name)); err != nil {
			b.Fatal(err)
		}
	}
	leaf := issue(b, ca, testca.Leaf{Hosts: []string{"a.test"}})
	write(b, path("key.pem"), leaf.KeyPEM)
	write(b, path("chain.pem"), leaf.CertPEM)
	write(b, path("ca.pem"), ca.PEM())
	write(b, path("b.pem"), issue(b, ca, testca.Leaf{Hosts: []string{"b.test"}}).PEM())
	number := int64(0)
	list := func() {
		number++
		put("crl", testca.MustCRL(b, ca, nil, testca.CRLOptions{Number: big.NewInt(number)}))
	}
	list()
	role := func(name string) *testprog.Talker {
		cmd := exec.Command("/proc/self/exe", name)
		cmd.Env = append(os.Environ(), beMain+"=1", benchDir+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return testprog.Talk(b, name, cmd)
	}
	s := role("slow-signer")
	if word := s.Line(); word != "ready" {
		b.Fatal(word)
	}
	common := []string{"--ca", path("ca.pem"), "--crl", path("crl"), "--log-level", "warn", "--statement-lifetime", "15m", "--handshake-timeout", "30s"}
	daemon := func(name string, flags ...string) *process {
		args := append(common, flags...)
		for n := range benchAccounts {
			args = append(args, "--socket", fmt.Sprintf("%s,uids=%d,account=box%d+", path(name+strconv.Itoa(n)), os.Geteuid(), n))
		}
		return startAs(b, nil, path(name), args...)
	}
	daemon("file", "--credentials", path("chain.pem"), "--key", path("key.pem"))
	outside := daemon("signer-of", "--credentials", path("chain.pem"), "--key", "signer:"+path("signer"))
	startAs(b, nil, path("server"), append(common, "--credentials", path("b.pem"))...)
	load := role("make-load")
	ask := func(daemon string, milliseconds, count int) (made, slowest, waits int) {
		answer := load.Ask(fmt.Sprint(daemon, " ", milliseconds, " ", count))
		if _, err := fmt.Sscanf(answer, "ok %d %d %d", &made, &slowest, &waits); err != nil {
			b.Fatalf("%s: %s", daemon, answer)
		}
		return made, slowest, waits
	}
	first := time.Now()
	ask("file", 20000, benchAccounts)
	for done := 0; done < benchAccounts; {
		made, _, _ := ask("signer-of", 20000, benchAccounts-done)
		done += made
	}
	b.Logf("the first handshake of each of %d accounts took %v in all", benchAccounts, time.Since(first).Round(time.Second))
	const window = 5000
	var made, slowest, slow [2]int
	for b.Loop() {
		list()
		for i, name := range []string{"file", "signer-of"} {
			n, worst, waits := ask(name, window, 0)
			made[i], slow[i], slowest[i] = made[i]+n, slow[i]+waits, max(slowest[i], worst)
		}
	}
	seconds := float64(b.N) * window / 1000
	b.ReportMetric(float64(made[0])/seconds, "file/s")
	b.ReportMetric(float64(made[1])/seconds, "signer/s")
	b.ReportMetric(float64(made[1])/float64(made[0]), "ratio")
	b.ReportMetric(float64(slowest[0])/1e3, "file-worst-ms")
	b.ReportMetric(float64(slowest[1])/1e3, "signer-worst-ms")
	b.ReportMetric(float64(slow[0]), "file-slow")
	b.ReportMetric(float64(slow[1]), "signer-slow")
	b.ReportMetric(0, "ns/op")
	put("chain.pem", issue(b, ca, testca.Leaf{Hosts: []string{"a.test"}, Key: leaf.Key}).CertPEM)
	began, reloaded := time.Now(), make(chan string, 1)
	go func() {
		out, err := exec.Command(program(b), "reload", "--socket", outside.socket).CombinedOutput() // longer than altsd waits
		reloaded <- fmt.Sprint(strings.ReplaceAll(string(out), "\n", " "), err)
	}()
	n, worst, waits := ask("signer-of", 20000, 0)
	b.Logf("while a certificate is renewed: %d handshakes a second, the slowest %d ms, %d slow", n/20, worst/1000, waits)
	outcome := <-reloaded
	b.Logf("renewed after %v: %s", time.Since(began).Round(time.Second), outcome)
	n, worst, waits = ask("signer-of", window, 0)
	b.Logf("after it: %d handshakes a second, the slowest %d ms, %d slow", n*1000/window, worst/1000, waits)
}
