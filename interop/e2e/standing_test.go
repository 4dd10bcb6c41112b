package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A standingPeer is a machine to which connections stand, with traffic on each.
type standingPeer struct {
	name   string
	reason altscreds.Reason // by which they are to end; "" if they are not
	daemon *daemon
	addr   string
	ca     *testca.CA
	leaf   *testca.Issued

	open   atomic.Int32
	echoes atomic.Uint64
	mu     sync.Mutex
	ends   []error
}

// spoken is what the connections speak.
var spoken = []string{"test"}

// serveEcho answers each connection with what comes on it.
func serveEcho(t *testing.T, socket string) (addr string) {
	t.Helper()
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			}()
		}
	}()
	return l.Addr().String()
}

// talk opens n connections, and talks on each until it ends.
func (p *standingPeer) talk(t *testing.T, socket string, n int) {
	t.Helper()
	for range n {
		c, err := altscreds.Dial("tcp", p.addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: socket, Timeout: time.Minute,
			TargetAccounts: []string{"root@" + p.daemon.machine}})
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		t.Cleanup(func() { c.Close() })
		p.open.Add(1)
		go func() {
			b := make([]byte, 100)
			for {
				_, err := c.Write(b)
				if err == nil {
					_, err = io.ReadFull(c, b)
				}
				if err != nil {
					p.mu.Lock()
					p.ends = append(p.ends, err)
					p.mu.Unlock()
					p.open.Add(-1)
					return
				}
				p.echoes.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
}

// wantEnds waits until all connections have ended, each for the reason.
func (p *standingPeer) wantEnds(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(testprog.Patience); p.open.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections to %s still stand", p.open.Load(), p.name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.ends {
		if e, ok := errors.AsType[*altscreds.EndedError](err); !ok || e.Reason != p.reason || len(e.HandshakeID) != 16 {
			t.Errorf("a connection to %s ended by %v, want %s", p.name, err, p.reason)
		}
	}
	if len(p.ends) != n {
		t.Errorf("%d connections to %s ended, want %d", len(p.ends), p.name, n)
	}
}

// wantGoesOn checks that all connections stand, and that something is said on them from now on.
func (p *standingPeer) wantGoesOn(t *testing.T, n int) {
	t.Helper()
	before := p.echoes.Load()
	for end := time.Now().Add(testprog.Patience); p.echoes.Load() < before+uint64(3*n); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is said to %s any more", p.name)
		}
	}
	if got := p.open.Load(); int(got) != n {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Errorf("%d connections to %s stand, want %d: %v", got, p.name, n, p.ends)
	}
}

// TestRule49Standing: of many connections between machines, with traffic on them and handshakes beside, each change ends
// those that it refuses, and no others; a daemon that was killed has them again, and ends them then.
func TestRule49Standing(t *testing.T) {
	w := theWorld(t)
	const n = 20
	const brief = 30 * time.Second // a certificate that ends before it was used tests nothing
	peers := []*standingPeer{
		{name: "denied", reason: altscreds.ReasonDeniedByPolicy}, {name: "listed", reason: altscreds.ReasonCertificateRevoked},
		{name: "left", reason: altscreds.ReasonUnknownCA}, {name: "steady"},
		{name: "brief", reason: altscreds.ReasonCertificateExpired},
	}
	dir := filepath.Join(w.dir, "standing")
	file := func(name string, data []byte) string {
		t.Helper()
		path, err := w.file(filepath.Join("standing", name), data)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--denied", dir, "--ca", filepath.Join(w.dir, "known.pem")}
	for _, p := range peers {
		p.ca = testca.MustCA(t, testca.Options{Name: "CA of " + p.name})
		flags = append(flags, "--ca", file(p.name+"-ca.pem", p.ca.PEM()))
	}
	none := testca.MustCRL(t, peers[1].ca, nil, testca.CRLOptions{Number: big.NewInt(1)})
	list := file("list.crl", none)
	watching, err := w.machine("watching", w.known, testca.Leaf{}, append(flags, "--crl", list)...)
	if err != nil {
		t.Fatal(err)
	}
	start := func(d *daemon) {
		t.Helper()
		if err := d.start(); err != nil {
			t.Fatal(err)
		}
	}
	start(watching)
	for _, p := range peers {
		leaf := testca.Leaf{Hosts: []string{p.name + ".standing.test"}}
		if p.name == "brief" {
			leaf.NotAfter = time.Now().Add(brief)
		}
		p.leaf = testca.MustIssue(t, p.ca, leaf)
		if p.daemon, err = w.machineWith(p.name+"-standing", p.leaf, "--ca", filepath.Join(w.dir, "known.pem"), "--ca",
			filepath.Join(dir, p.name+"-ca.pem"), "--machine-name", p.name+".standing.test"); err != nil {
			t.Fatal(err)
		}
		p.daemon.machine = p.name + ".standing.test"
		start(p.daemon)
		p.addr = serveEcho(t, p.daemon.socket)
		p.talk(t, watching.socket, n)
	}
	denied, listed, left, steady, short := peers[0], peers[1], peers[2], peers[3], peers[4]
	// Handshakes go on beside all that.
	stop, done := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := altscreds.Dial("tcp", steady.addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: watching.socket, Timeout: time.Minute,
				TargetMachines: []string{steady.daemon.machine}})
			if err == nil {
				c.Close()
			}
		}
	}()

	mark := watching.mark()
	deny := func(pattern string) {
		t.Helper()
		if code, _, stderr := testprog.Run(t, "deny", "--denied", dir, "--socket", watching.socket, pattern); code != 0 {
			t.Fatalf("deny %s: %d, %s", pattern, code, stderr)
		}
	}
	deny("*@" + denied.daemon.machine)
	denied.wantEnds(t, n)
	watching.find(t, mark, "the line of a connection that ended", func(r *record) bool {
		return r.Msg == "connection ended" && r.Reason == "denied_by_policy" && r.Peer == "root@"+denied.daemon.machine &&
			strings.HasPrefix(r.Rule, "denied.policy:") && r.ID != ""
	})
	file("list.crl", testca.MustCRL(t, listed.ca, []*big.Int{listed.leaf.Cert.SerialNumber}, testca.CRLOptions{Number: big.NewInt(2)}))
	listed.wantEnds(t, n)
	file("left-ca.pem", testca.MustCA(t, testca.Options{Name: "another"}).PEM())
	left.wantEnds(t, n)
	short.wantEnds(t, n)
	steady.wantGoesOn(t, n)

	// A daemon that is killed ends nothing, and the next one is told of what stands.
	watching.killed = true
	watching.signal(t, syscall.SIGKILL)
	<-watching.run.Ended
	steady.wantGoesOn(t, n)
	start(watching)
	steady.wantGoesOn(t, n)
	steady.reason = altscreds.ReasonDeniedByPolicy
	deny("root@" + steady.daemon.machine)
	steady.wantEnds(t, n)
	code, stdout, stderr := testprog.Run(t, "status", "--socket", watching.socket)
	if want := fmt.Sprintf("standing     0 connections watched, %d ended", n); code != 0 || !strings.Contains(stdout, want) {
		t.Errorf("status: %d, %s%s, want %q", code, stdout, stderr, want)
	}
}
