// Command fleet says what a daemon of a large fleet has to do, by simulation: certificates of as many machines, verified by the code
// that verifies them in the daemon, on one core. docs/benchmarks.md quotes it; it is no part of what is shipped.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
)

func main() {
	machines := flag.Int("machines", 10000, "`machines` that dial one server")
	entries := flag.Int("entries", 300000, "`entries` of the revocation list")
	renewals := flag.Int("renewals", 1500, "`machines` that renew within a minute")
	apps := flag.Int("applications", 5000, "idle `applications` on one daemon")
	daemon := flag.String("daemon", "bin/shared-altsd-static", "the daemon's `program`")
	flag.Parse()
	if *machines < 10 || *entries < 1 || *renewals < 1 || *apps < 1 || *renewals > *machines || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "fleet: positive numbers, at least 10 machines, and no more renewals than machines: see -help")
		os.Exit(2)
	}
	f, err := run(*machines, *entries, *renewals)
	if err == nil {
		err = f.applications(*daemon, *apps)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// A fleet is machines of one CA, as one server sees them.
type fleet struct {
	ca     *testca.CA
	peers  []*peer
	server *testca.Issued
}

// A peer is what one machine sends.
type peer struct {
	identity []byte
	static   [32]byte
}

// issue makes a certificate for a machine, and what it says of an account by it.
func (f *fleet) issue(n int) (*peer, error) {
	i, err := f.ca.Issue(testca.Leaf{Hosts: []string{fmt.Sprintf("node%05d.hpc.example.com", n)}})
	if err != nil {
		return nil, err
	}
	c := testclaim.New(i)
	c.NotBefore = time.Now().Add(-time.Minute)
	c.NotAfter = c.NotBefore.Add(6 * time.Hour)
	c.StaticKey = sha256.Sum256(fmt.Appendf(nil, "static key of %d", n))
	return &peer{c.Identity(), c.StaticKey}, nil
}

// machine makes the server, which keeps so many identities.
func (f *fleet) machine(cached int, list []byte) (*certbind.Machine, *certbind.Credential, error) {
	c, err := certbind.ParseCredential(f.server.PEM(), nil)
	if err != nil {
		return nil, nil, err
	}
	trust, err := f.trust(list)
	if err != nil {
		return nil, nil, err
	}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: c, Name: "server.hpc.example.com", Trust: trust, Cached: cached})
	return m, c, err
}

func (f *fleet) trust(list []byte) (*certbind.Trust, error) {
	cfg := certbind.TrustConfig{CAs: []certbind.CA{{PEM: f.ca.PEM(), Source: "ca.pem"}}}
	if list != nil {
		cfg.CRLs = []certbind.CRLFile{{Data: list, Source: "ca.crl"}}
	}
	return certbind.NewTrust(cfg)
}

// dial has each of the peers shake hands once, as far as their certificates are concerned.
func dial(m *certbind.Machine, peers []*peer) (each time.Duration, verified uint64, err error) {
	before, began := m.Stats().Verified, processor()
	for _, p := range peers {
		if _, err := m.Verify(p.identity, p.static); err != nil {
			return 0, 0, err
		}
	}
	return (processor() - began) / time.Duration(len(peers)), m.Stats().Verified - before, nil
}

// processor returns the processor time of this process, so that what else the machine does does not count.
func processor() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // every kernel has this clock
	}
	return time.Duration(t.Nano())
}

func run(machines, entries, renewals int) (*fleet, error) {
	f := &fleet{}
	var err error
	if f.ca, err = testca.NewCA(testca.Options{}); err != nil {
		return nil, err
	}
	if f.server, err = f.ca.Issue(testca.Leaf{Hosts: []string{"server.hpc.example.com"}}); err != nil {
		return nil, err
	}
	for n := range machines {
		p, err := f.issue(n)
		if err != nil {
			return nil, err
		}
		f.peers = append(f.peers, p)
	}
	fmt.Printf("| what | certificates verified | each | a core does in a second |\n|---|---|---|---|\n")
	row := func(what string, each time.Duration, verified uint64) {
		fmt.Printf("| %s | %d | %v | %.0f |\n", what, verified, each.Round(time.Microsecond), float64(time.Second)/float64(max(1, each)))
	}
	// Cold, and then all again: in order, which is the worst for what drops the oldest.
	for _, cached := range []int{machines / 5 * 2, machines * 8 / 5} {
		held := heap()
		m, _, err := f.machine(cached, nil)
		if err != nil {
			return nil, err
		}
		for _, when := range []string{"cold", "once more"} {
			each, verified, err := dial(m, f.peers)
			if err != nil {
				return nil, err
			}
			row(fmt.Sprintf("%d machines dial, %s, `--verified-peers %d`", machines, when, cached), each, verified)
		}
		fmt.Printf("| memory of that: %.1f MiB, %d bytes an identity | | | |\n", float64(heap()-held)/(1<<20), (heap()-held)/m.Stats().CacheSize)
		if cached > machines {
			for n := range renewals {
				if f.peers[n], err = f.issue(n); err != nil {
					return nil, err
				}
			}
			each, verified, err := dial(m, f.peers[:renewals])
			if err != nil {
				return nil, err
			}
			row(fmt.Sprintf("%d of them have renewed within a minute", renewals), each, verified)
			fmt.Printf("| that minute: %.2f %% of a core | | | |\n", 100*float64(each)*float64(verified)/float64(time.Minute))
		}
		runtime.KeepAlive(m)
	}
	return f, f.reload(entries)
}

func heap() int {
	for range 2 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// reload puts a large list in force while the peers go on to dial.
func (f *fleet) reload(entries int) error {
	serials := make([]*big.Int, entries)
	for n := range serials {
		serials[n] = new(big.Int).Lsh(big.NewInt(int64(n)+1), 120)
	}
	list, err := f.ca.CRL(serials, testca.CRLOptions{})
	if err != nil {
		return err
	}
	m, c, err := f.machine(2*len(f.peers), nil)
	if err != nil {
		return err
	}
	var slowest time.Duration
	var failed error
	dialled, stop := 0, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, p := range f.peers {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if _, err := m.Verify(p.identity, p.static); err != nil {
					failed = errors.Join(failed, err)
					return
				}
				slowest = max(slowest, time.Since(began))
				dialled++
			}
		}
	})
	began := time.Now()
	trust, err := f.trust(list)
	read := time.Since(began)
	if err == nil {
		err = m.Reload(c, trust)
	}
	took := time.Since(began)
	time.Sleep(time.Second) // of cold certificates again, since the trust is another
	close(stop)
	wg.Wait()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	fmt.Printf("\nA list of %d entries, %.1f MiB: read and checked in %v, in force after %v, under load: meanwhile %d verifications, none failed, the "+
		"slowest %v.\n", entries, float64(len(list))/(1<<20), read.Round(time.Millisecond), took.Round(time.Millisecond),
		dialled, slowest.Round(10*time.Microsecond))
	return nil
}
