package e2e

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/race"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// Too many handshakes of one account as client: it waits its turn, then learns why. Its server, and others, go on.
func TestTooManyHandshakesOut(t *testing.T) {
	w := theWorld(t)
	a, b := w.as(t, alice), w.as(t, bob)
	addr := b.listen(t, w.beta, 0)
	keys := []string{t.Name() + "1", t.Name() + "2"}
	for _, k := range keys {
		step(t, a, w.narrow, k, clientStart(nil))
	}
	call := order{Op: "call", Socket: w.narrow.socket, Addr: addr, Targets: []string{"bob@beta.test"}}
	short := call
	short.ConnectTimeout = 2 * time.Second
	mark := w.narrow.mark()
	refused := a.begin(t, short)
	wantWhom(t, b.do(t, call), bob, bob, w.narrow, w.beta)
	own := a.listen(t, w.narrow, 0)
	wantWhom(t, b.do(t, order{Op: "call", Socket: w.alpha.socket, Addr: own, Targets: []string{"alice@narrow.test"}}),
		bob, alice, w.alpha, w.narrow)
	r := a.wait(t, refused)
	// The daemon answers a tenth of a second before the caller's deadline, which a busy machine may miss.
	for i := 0; i < 3 && !strings.Contains(r.Text, "(overloaded)"); i++ {
		r = a.do(t, short)
	}
	wantError(t, r, codes.ResourceExhausted, "this machine's daemon refused",
		"too many handshakes under way (2 for one account",
		"(overloaded)")
	if r.Took > soon {
		t.Errorf("the error came after %v", r.Took)
	}
	w.narrow.find(t, mark, "the refusal", func(l *record) bool { return l.Reason == "overloaded" && l.UID == alice.uid })
	// The next one waits until there is room.
	waits := a.begin(t, call)
	a.do(t, order{Op: "hang up", Key: keys[0]})
	wantWhom(t, a.wait(t, waits), alice, bob, w.narrow, w.beta)
	a.do(t, order{Op: "hang up", Key: keys[1]})
}

// Strangers that begin more handshakes with a server than it may have under way: some of them are told so. The
// account's own calls go on, and so do honest clients when the strangers have had their time.
func TestTooManyHandshakesIn(t *testing.T) {
	w := theWorld(t)
	b := w.as(t, bob)
	addr := b.listen(t, w.hasty, 0)
	mark := w.hasty.mark()
	const strangers = 8
	until, codesSeen := make(chan struct{}), make(chan int, strangers)
	for range strangers {
		peer := w.goodClaim(t).rogue()
		instead(frame3, nil)(peer) // no more after message 1
		peer.until = until
		go func() { codesSeen <- peer.dial(addr).code }()
	}
	if got := <-codesSeen; got != int(reason.Overloaded) {
		t.Errorf("the first stranger to be refused got code %d, want %d", got, reason.Overloaded)
	}
	own := w.as(t, alice).listen(t, w.beta, 0)
	call := order{Op: "call", Socket: w.hasty.socket, Addr: own, Targets: []string{"alice@beta.test"}}
	wantWhom(t, b.do(t, call), bob, alice, w.hasty, w.beta)
	close(until)
	for range strangers - 1 {
		<-codesSeen
	}
	w.hasty.find(t, mark, "too many handshakes", func(l *record) bool {
		return l.Reason == "overloaded" && l.UID == bob.uid && l.Role == "responder"
	})
	wantHonest(t, w, w.hasty, addr)
}

// Streams that wait for a peer, and connections, are counted for each account. Refusals of one account and reason are
// logged one by one five times, and counted from then on.
func TestTooManyConnections(t *testing.T) {
	w := theWorld(t)
	d := w.another(t, "crowded", "--max-streams", "2", "--max-connections", "16")
	a, b := w.as(t, alice), w.as(t, bob)
	for i := range 2 {
		step(t, a, d, fmt.Sprint(t.Name(), i), serverStart(nil, nil))
	}
	start := func(p *process, req []byte) report {
		return p.do(t, order{Op: "raw", Socket: d.socket, Requests: [][]byte{req}})
	}
	wantError(t, start(a, serverStart(nil, nil)), codes.ResourceExhausted, "has 2 streams open", "(overloaded)")
	for i := 2; i < 16; i++ { // an account's own calls go on
		step(t, a, d, fmt.Sprint(t.Name(), i), clientStart(nil))
	}
	wantError(t, start(a, clientStart(nil)), codes.ResourceExhausted, "holds 16 connections to the daemon already",
		"(overloaded)")
	if r := start(b, clientStart(nil)); r.Code != codes.OK {
		t.Errorf("another account: %s", r.Text)
	}
	for i := range 16 {
		a.do(t, order{Op: "hang up", Key: fmt.Sprint(t.Name(), i)})
	}
	mark := d.mark()
	for range perReason + 3 {
		wantError(t, start(b, next([]byte{1})), codes.InvalidArgument, "before any start request")
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
	d.find(t, mark, "the count of refusals", func(l *record) bool { return l.Suppressed == 3 && l.Reason == badRequest })
	logged := 0
	for _, line := range d.run.Log.All()[mark:] {
		if strings.Contains(line, "before any start request") {
			logged++
		}
	}
	if logged != perReason {
		t.Errorf("%d refusals were logged one by one, want %d", logged, perReason)
	}
}

// A socket for some uids serves these.
func TestSocketForSomeAccounts(t *testing.T) {
	w := theWorld(t)
	p := w.as(t, poolAccount(1))
	r := p.do(t, order{Op: "call", Socket: w.narrowSocket(), Addr: w.as(t, bob).listen(t, w.beta, 0),
		Targets: []string{"bob@beta.test"}})
	wantWhom(t, r, p.account, bob, w.narrow, w.beta)
}

// Rule 11: what a stranger can make a daemon compute with one message.
func TestCostlyChains(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.costly, 0)
	const each = 5
	bound := 200 * time.Millisecond // a message; without bounds it is seconds
	if race.Enabled {
		bound *= 10
	}
	for _, c := range []struct {
		name string
		code reason.Code
		make func(*claim)
	}{
		{"RSA key of 100,000 bits", reason.CertificateUnacceptable, func(c *claim) { c.issue(c.w.known, testca.Leaf{PublicKey: testca.HugeRSA(100_000, 65537)}) }},
		{"RSA exponent of 31 bits", reason.CertificateUnacceptable, func(c *claim) { c.issue(c.w.known, testca.Leaf{PublicKey: testca.HugeRSA(4096, 1<<31-1)}) }},
		{"CA with an RSA key of 60,000 bits", reason.CertificateUnacceptable, func(c *claim) {
			huge := testca.MustIssue(c.t, c.w.known, testca.Leaf{Subject: pkix.Name{CommonName: "huge"}, IsCA: true,
				PublicKey: testca.HugeRSA(60_000, 65537)})
			c.issue(testca.MustCA(c.t, testca.Options{Name: "huge"}), testca.Leaf{})
			c.Certificates = append(c.Certificates[:1], huge.Cert.Raw)
		}},
		{"CAs of 8192 bits that sign each other", reason.UnknownCA, func(c *claim) {
			key, err := testca.NewKey(testca.RSA8192)
			if err != nil {
				c.t.Fatal(err)
			}
			ca := testca.MustCA(c.t, testca.Options{Name: "loop", Key: key})
			c.issue(ca, testca.Leaf{})
			c.Certificates = c.Certificates[:1]
			for range 3 {
				c.Certificates = append(c.Certificates, c.intermediate(ca, testca.Options{Name: "loop", Key: key}).Cert.Raw)
			}
		}},
	} {
		claim := w.goodClaim(t)
		c.make(claim)
		peer := claim.rogue()
		before := processorTime(t, w.costly)
		for range each {
			if o := peer.dial(addr); o.code != int(c.code) {
				t.Errorf("%s: code %d (%v), want %v: %v", c.name, o.code, reason.Code(max(o.code, 0)), c.code, o.err)
			}
		}
		cost := (processorTime(t, w.costly) - before) / each
		t.Logf("%s: %v of processor time", c.name, cost)
		if cost > bound {
			t.Errorf("%s cost %v of processor time, more than %v", c.name, cost, bound)
		}
	}
	wantHonest(t, w, w.costly, addr)
}
