package service

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/standing"
)

// soonAgain has DNS asked about connections at once when that is due.
func soonAgain(t testing.TB) {
	again, spread := askAgain, askSpread
	askAgain, askSpread = time.Second, time.Millisecond
	t.Cleanup(func() { askAgain, askSpread = again, spread })
}

// awaitQuestions waits until DNS was asked so many times more, of which all were of the machine.
func (z *zone) awaitQuestions(t testing.TB, before, n int, machine string) {
	t.Helper()
	for len(z.questions()) < before+n {
		time.Sleep(time.Millisecond)
	}
	for _, q := range z.questions()[before:] {
		if q.Machine != machine || !q.Initiator || q.Share != (share{ofAccount, currentUID()}).key() {
			t.Errorf("asked %+v", q)
		}
	}
}

// Rule 49: a connection whose machine is under DNS stands when the answer's time is over. It is asked about again, stands
// while nothing is said, and ends when DNS disowns it; what is not due is not asked about, whatever else is judged again.
func TestRule49DNS(t *testing.T) {
	soonAgain(t)
	alpha, beta, z := dnsPair(t)
	z.set(func() { z.life = time.Second })
	first, _ := stand(t, alpha, beta)
	second, _ := stand(t, alpha, beta)
	w := watch(t, alpha.socket)
	before := len(z.questions())
	w.add(1, first)
	w.add(2, second)
	for range 3 {
		alpha.Changed()
	}
	z.awaitQuestions(t, before, 1, "beta.test") // for both
	before = len(z.questions())
	z.set(func() { z.err = reason.Errorf(reason.DNSUnknown, "the resolver is gone") })
	z.awaitQuestions(t, before, 1, "beta.test")
	w.add(3, first)
	if len(w.ended) != 0 {
		t.Fatalf("ended %v, while DNS says nothing", w.ended)
	}
	z.set(func() { z.err = nil; clear(z.answers) })
	w.want(reason.UnknownCA, 1, 2, 3)
	if log := alpha.logs.String(); strings.Count(log, "connection ended") != 3 || !strings.Contains(log, "verified_by=dns") ||
		!strings.Contains(log, "no TLSA record") {
		t.Errorf("the log says\n%s", log)
	}
}

// Rule 49: what else says no ends them as others, and what says so is not DNS.
func TestRule49UnderDNS(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *daemon)
		want   reason.Code
	}{
		"under CAs by now": {func(d *daemon) { d.reload(t, dnsTrust(t, "alpha.test")) }, reason.UnknownCA},
		"denied":           {func(d *daemon) { d.SetPolicy(rules(t, "deny any * *@beta.test\n", "")) }, reason.DeniedByPolicy},
		"refused by rule":  {func(d *daemon) { d.SetPolicy(rules(t, "", enforcing+"deny out alice bob@beta.test\n")) }, reason.DeniedByPolicy},
		"a rule that names a purpose": {func(d *daemon) {
			d.SetPolicy(rules(t, "", "default in deny\ndefault out deny\nallow out alice bob@* eku=serverAuth\n"))
		}, reason.DeniedByPolicy},
	} {
		t.Run(name, func(t *testing.T) {
			alpha, beta, z := dnsPair(t)
			record, _ := stand(t, alpha, beta)
			w := watch(t, alpha.socket)
			w.add(1, record)
			alpha.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
			before := len(z.questions())
			c.change(alpha)
			w.want(c.want, 1)
			if got := z.questions(); len(got) != before {
				t.Errorf("asked %v", got[before:])
			}
		})
	}
	// And one that a CA vouched for, when its name comes under DNS.
	alpha, beta := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), Resolver: newZone()}), startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	record, _ := stand(t, alpha, beta)
	w := watch(t, alpha.socket)
	w.add(1, record)
	alpha.reload(t, dnsTrust(t, "beta.test"))
	w.want(reason.UnknownCA, 1)
}

// dnsRecord returns the record of a connection of alice's to a machine under DNS, which is to be asked about at a time.
func dnsRecord(t testing.TB, machine string, until time.Time) *altspb.Standing {
	t.Helper()
	leaf, key := sha256.Sum256([]byte("leaf")), sha256.Sum256([]byte("key"))
	r := standing.Record{ID: "0123456789abcdef", Leaf: leaf, Path: certbind.Path{Machine: machine, DNS: &certbind.Prints{Cert: leaf, Key: key}},
		Until: until, Connection: policy.Connection{Direction: policy.Out, Account: "alice", Service: "grpc", Peer: policy.Peer{Account: "bob",
			Machine: machine, Names: []string{machine}, Key: key, Certificates: []policy.Certificate{{Serial: "7"}}}}}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &altspb.Standing{Record: b}
}

// awaitNobodyAsks waits until DNS is asked about nothing that stands.
func awaitNobodyAsks(d *daemon) {
	for {
		d.watches.mu.Lock()
		n := len(d.watches.askers)
		d.watches.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Rule 49: of an account's machines a few are asked about at a time, each once however many connections there are; who is gone
// is asked about no more; and nothing that DNS is slow with holds up what else is judged.
func TestRule49DNSInTurns(t *testing.T) {
	soonAgain(t)
	askAgain = time.Minute
	z := newZone()
	d := dnsDaemon(t, "alpha.test", z, Config{Accounts: named("alice")})
	d.reload(t, dnsTrust(t, "beta.test"))
	release := z.holdBack()
	defer release()
	w := watch(t, d.socket)
	const machines, each = 10, 3
	past := time.Now().Add(-time.Hour)
	id := uint64(0)
	for m := range machines {
		for range each {
			id++
			w.add(id, dnsRecord(t, fmt.Sprintf("m%d.beta.test", m), past))
		}
	}
	for range askedAtOnce {
		<-z.at
	}
	if got := z.questions(); len(got) != askedAtOnce {
		t.Errorf("%d are asked about at a time", len(got))
	}
	// A denial does not wait for them.
	d.SetPolicy(rules(t, "deny any * *@m9.beta.test\n", ""))
	w.want(reason.DeniedByPolicy, 28, 29, 30)
	release()
	for len(w.ended) < machines*each {
		if !w.recv() {
			t.Fatal(w.err)
		}
	}
	for id, e := range w.ended {
		if want := map[bool]reason.Code{true: reason.DeniedByPolicy, false: reason.UnknownCA}[id > 27].String(); e.Reason != want {
			t.Errorf("connection %d ended by %v, want %v", id, e, want)
		}
	}
	if got := z.questions(); len(got) != machines {
		t.Errorf("asked %d times about %d machines", len(got), machines)
	}
	awaitNobodyAsks(d)

	// Of an application that is gone nothing more is asked.
	release = z.holdBack()
	defer release()
	w = watch(t, d.socket)
	d.SetPolicy(nil)
	for m := range machines {
		w.add(uint64(m), dnsRecord(t, fmt.Sprintf("n%d.beta.test", m), past))
	}
	for range askedAtOnce {
		<-z.at
	}
	before := len(z.questions())
	if err := w.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for w.recv() {
	}
	for d.watches.records.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
	release()
	awaitNobodyAsks(d)
	if got := len(z.questions()); got != before {
		t.Errorf("asked about %d machines of an application that is gone", got-before)
	}
}

// Rule 49: what an account can have waiting for DNS is bounded, whatever records it presents.
func TestRule49DNSBounds(t *testing.T) {
	z := newZone()
	d := dnsDaemon(t, "alpha.test", z, Config{Accounts: named("alice")})
	release := z.holdBack()
	defer release()
	of := share{ofAccount, 1}
	ctx, gone := context.WithCancel(t.Context())
	defer gone()
	c := &watchCall{ctx: ctx}
	for i := range standingPerAccount + 1000 {
		r := standing.Record{Path: certbind.Path{Machine: fmt.Sprintf("m%d.beta.test", i%20000)}}
		d.askAbout(of, asked{c, uint64(i)}, &r)
		d.askAbout(of, asked{c, uint64(i)}, &r)
	}
	d.watches.mu.Lock()
	if a := d.watches.askers[of]; a.entries > standingPerAccount || len(a.about) > standingPerAccount || a.busy != askedAtOnce {
		t.Errorf("%d connections, %d machines wait, %d are asked about", a.entries, len(a.about), a.busy)
	}
	d.watches.mu.Unlock()
	z.set(func() { z.err = reason.Errorf(reason.DNSUnknown, "nothing") })
	gone()
	release()
	awaitNobodyAsks(d)
}

// Rule 49: who runs a zone in which all questions hang delays those about its own names alone.
func TestRule49DNSBranches(t *testing.T) {
	z := newZone()
	d := dnsDaemon(t, "alpha.test", z, Config{Accounts: named("alice")})
	d.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
	release := z.holdBack()
	defer release()
	w := watch(t, d.socket)
	past := time.Now().Add(-time.Hour)
	for i := range uint64(200) {
		w.add(i, dnsRecord(t, fmt.Sprintf("m%d.evil.beta.test", i), past))
	}
	w.add(1000, dnsRecord(t, "victim.beta.test", past))
	for range askedAtOnce {
		<-z.at
	}
	z.set(func() { z.hold = nil }) // what comes after the two that hang is answered
	d.watches.mu.Lock()
	for _, a := range d.watches.askers {
		a.next() // one more of the zone that hangs, at most
		if got := a.next(); got != "victim.beta.test" {
			t.Errorf("%s comes before another zone's", got)
		}
	}
	d.watches.mu.Unlock()
}
