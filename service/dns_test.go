package service

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A zone stands in for the resolver, whose tests are elsewhere, so that a test decides when it answers and what.
type zone struct {
	mu      sync.Mutex
	answers map[string]certbind.Answer
	asked   []Query
	err     error         // instead of any answer
	hold    chan struct{} // nothing is answered before it is closed, if it is set
	at      chan Query    // a question that is held is put there
	ended   chan error    // and why it was held no longer, if that was for its context
	life    time.Duration // of answers
}

func newZone() *zone {
	return &zone{answers: make(map[string]certbind.Answer), at: make(chan Query, 1000), ended: make(chan error, 1000), life: time.Hour}
}

func (z *zone) Resolve(ctx context.Context, q Query) (*certbind.Answer, error) {
	z.mu.Lock()
	z.asked = append(z.asked, q)
	hold := z.hold
	z.mu.Unlock()
	if hold != nil {
		z.at <- q
		select {
		case <-hold:
		case <-ctx.Done():
			z.ended <- ctx.Err()
			return nil, reason.Errorf(reason.DNSUnknown, "nobody waits for the answer any more")
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return nil, z.err
	}
	a := z.answers[q.Machine]
	a.Machine, a.Until = q.Machine, time.Now().Add(z.life)
	return &a, nil
}

// set changes what it says.
func (z *zone) set(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

// publish puts the record of a machine's key there.
func (z *zone) publish(t testing.TB, machines ...*certbind.Machine) {
	t.Helper()
	for _, m := range machines {
		r, err := certbind.NewTLSA(m.Credential().Leaf, certbind.SelectorSPKI, certbind.MatchingSHA256)
		if err != nil {
			t.Fatal(err)
		}
		z.set(func() { z.answers[m.Name()] = certbind.Answer{Records: []certbind.TLSA{r}} })
	}
}

// holdBack has questions wait, until the function is called that it returns.
func (z *zone) holdBack() (release func()) {
	hold := make(chan struct{})
	z.set(func() { z.hold = hold })
	return sync.OnceFunc(func() {
		z.set(func() { z.hold = nil })
		close(hold)
	})
}

func (z *zone) questions() []Query {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

// dnsTrust has DNS vouch for the machines, and the usual CA for all others.
func dnsTrust(t testing.TB, machines ...string) *certbind.Trust {
	cas := []certbind.CA{{PEM: testmachine.CA().PEM(), Source: "test CA"}}
	if len(machines) > 0 {
		cas = append(cas, certbind.CA{Names: machines, DANE: true, Source: "dane"})
	}
	return trustOf(t, certbind.TrustConfig{CAs: cas})
}

// dnsDaemon runs a daemon whose certificate it signed itself, and that has DNS vouch for alpha.test and beta.test.
func dnsDaemon(t testing.TB, name string, z *zone, c Config) *daemon {
	t.Helper()
	c.Machine = testmachine.New(t, name, testmachine.Options{Leaf: testca.Leaf{SelfSigned: true, Subject: pkix.Name{CommonName: name}},
		Config: certbind.MachineConfig{Trust: dnsTrust(t, "alpha.test", "beta.test")}})
	c.Resolver = z
	return startDaemon(t, name, c)
}

// dnsPair runs two of them that know each other.
func dnsPair(t testing.TB) (alpha, beta *daemon, z *zone) {
	t.Helper()
	z = newZone()
	alpha, beta = dnsDaemon(t, "alpha.test", z, Config{Accounts: named("alice")}), dnsDaemon(t, "beta.test", z, Config{Accounts: named("bob")})
	z.publish(t, alpha.cfg.Machine, beta.cfg.Machine)
	return alpha, beta, z
}

func statusOf(r *altspb.Refusal) *status.Status { return status.New(codes.Code(r.Code), r.Text) }

func currentUID() uint32 { return uint32(os.Getuid()) }

// frameFrom reads a frame.
func frameFrom(t testing.TB, from io.Reader) []byte {
	t.Helper()
	b := make([]byte, 8)
	_, err := io.ReadFull(from, b)
	if err == nil {
		b = append(b, make([]byte, binary.BigEndian.Uint16(b[6:]))...)
		_, err = io.ReadFull(from, b[8:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Rule 58: each side asks once, and the identity that an answer vouched for is asked about no more while it is good.
func TestRule58Asks(t *testing.T) {
	alpha, beta, z := dnsPair(t)
	own := share{ofAccount, currentUID()}.key()
	handshake := func() {
		t.Helper()
		client, server := join(t, open(t, alpha, ""), open(t, beta, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
		if !bytes.Equal(client.KeyData, server.KeyData) || client.PeerIdentity.GetServiceAccount() != "bob@beta.test" ||
			server.PeerIdentity.GetServiceAccount() != "alice@alpha.test" {
			t.Errorf("results %v, %v", client, server)
		}
		for _, d := range []*daemon{alpha, beta} {
			if r := d.record(t); r.Reason != "accepted" || !r.DNS || r.PeerCA != nil || r.Peer == "" {
				t.Errorf("recorded as %+v", r)
			}
		}
	}
	handshake()
	want := []Query{{own, true, "beta.test"}, {own, false, "alpha.test"}}
	if got := z.questions(); !slices.Equal(got, want) {
		t.Errorf("asked %v, want %v", got, want)
	}
	handshake()
	client, server := both(t, greet(t, alpha.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil))
	if client.GetResult() == nil || server.GetResult() == nil {
		t.Errorf("handed over: %v, %v", client.GetRefusal(), server.GetRefusal())
	}
	if got := z.questions(); len(got) != len(want) {
		t.Errorf("asked %v about peers that are known", got)
	}
	for strings.Count(alpha.logs.String(), "verified_by=dns") < 3 { // the last line comes after the answer
		time.Sleep(time.Millisecond)
	}
	// And by sockets that are handed over, of peers that are not.
	for _, d := range []*daemon{alpha, beta} {
		d.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
	}
	client, server = both(t, greet(t, alpha.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil))
	if client.GetResult() == nil || server.GetResult() == nil || len(z.questions()) != 2*len(want) {
		t.Errorf("handed over: %v, %v, asked %v", client.GetRefusal(), server.GetRefusal(), z.questions())
	}
}

// Rule 58: a client whose peer is not whom it wants asks nobody, and says so at once.
func TestRule58TargetFirst(t *testing.T) {
	alpha, beta, z := dnsPair(t)
	for _, target := range []string{"eve@beta.test", "bob@gamma.test"} {
		c, s := open(t, alpha, ""), open(t, beta, "")
		m1 := c.must(t, clientStart(func(r *clientReq) { r.TargetIdentities = []*altspb.Identity{accountID(target)} })).OutFrames
		_, err := c.do(next(s.must(t, serverStart(m1, nil)).OutFrames))
		wantErr(t, err, codes.PermissionDenied, "target_mismatch", "bob@beta.test")
		if r := alpha.record(t); r.Peer != "" || r.DNS {
			t.Errorf("a peer that is not proved is recorded: %+v", r)
		}
	}
	// Nor is a host taken that the certificate names, which nobody else has signed.
	victim := testmachine.New(t, "beta.test", testmachine.Options{Leaf: testca.Leaf{SelfSigned: true, Hosts: []string{"alpha.test"}},
		Config: certbind.MachineConfig{Trust: dnsTrust(t, "alpha.test", "beta.test")}})
	evil := startDaemon(t, "beta.test", Config{Machine: victim, Resolver: z})
	c, s := open(t, alpha, ""), open(t, evil, "")
	m1 := c.must(t, clientStart(func(r *clientReq) { r.TargetIdentities, r.TargetName = nil, "alpha.test:443" })).OutFrames
	_, err := c.do(next(s.must(t, serverStart(m1, nil)).OutFrames))
	wantErr(t, err, codes.PermissionDenied, "target_mismatch")
	if got := z.questions(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
}

// Rule 58: what DNS does not say lets nobody in; who is refused learns why, and the reasons are apart.
func TestRule58Refuses(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(z *zone)
		code reason.Code
		text string
	}{
		{"silent", func(z *zone) { z.err = reason.Errorf(reason.DNSUnknown, "the resolver does not answer") }, reason.DNSUnknown, "does not answer"},
		{"no record", func(z *zone) { clear(z.answers) }, reason.UnknownCA, "no TLSA record"},
		{"another's record", func(z *zone) {
			z.answers["alpha.test"], z.answers["beta.test"] = z.answers["beta.test"], z.answers["alpha.test"]
		}, reason.UnknownCA, "none of the 1 TLSA records"},
		{"none usable", func(z *zone) {
			for m := range z.answers {
				z.answers[m] = certbind.Answer{Records: []certbind.TLSA{{Usage: 2, Selector: 1, Matching: 1, Data: make([]byte, 32)}}}
			}
		}, reason.UnknownCA, "can vouch for a machine"},
		{"over at once", func(z *zone) { z.life = -time.Second }, reason.DNSUnknown, "3 times"},
		{"a fault", func(z *zone) { z.err = io.ErrUnexpectedEOF }, reason.Internal, "EOF"},
	} {
		for _, role := range []Role{Initiator, Responder} {
			t.Run(c.name+", "+role.String(), func(t *testing.T) {
				good, bad := newZone(), newZone()
				zones := map[Role]*zone{Initiator: good, Responder: good}
				zones[role] = bad
				alpha := dnsDaemon(t, "alpha.test", zones[Initiator], Config{Accounts: named("alice")})
				beta := dnsDaemon(t, "beta.test", zones[Responder], Config{Accounts: named("bob")})
				for _, z := range zones {
					z.publish(t, alpha.cfg.Machine, beta.cfg.Machine)
				}
				bad.set(func() { c.say(bad) })
				client, server := greet(t, alpha.socket), greet(t, beta.socket)
				a, b := both(t, client, server, clientStart(nil), serverStart(nil, nil))
				d, other := alpha, b
				if role == Responder {
					d, other, a = beta, a, b
				}
				wantRefusal(t, a, c.code.String(), c.text)
				wantRefusal(t, other, byPeer+c.code.String())
				if r := d.record(t); r.Reason != c.code.String() || r.Peer != "" || r.ByPeer {
					t.Errorf("recorded as %+v", r)
				}
				for _, d := range []*daemon{alpha, beta} {
					if st := d.Snapshot(); st.InFlight != [2]int{} {
						t.Errorf("places are taken: %v", st.InFlight)
					}
				}
			})
		}
	}
	// Without anybody to ask.
	z := newZone()
	alpha, beta := dnsDaemon(t, "alpha.test", z, Config{}), dnsDaemon(t, "beta.test", z, Config{})
	alpha.cfg.Resolver = nil
	client, server := both(t, greet(t, alpha.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil))
	wantRefusal(t, client, "dns_unknown", "nobody to ask")
	wantRefusal(t, server, byPeer+"dns_unknown")
}

// toMessage3 brings a handshake to where the server is to take message 3, by the client's own trust in whom it calls.
func toMessage3(t testing.TB, client, server *party) (m3 []byte) {
	t.Helper()
	m2 := server.must(t, serverStart(client.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
	return client.must(t, next(m2)).OutFrames
}

// pairOfZones runs a client's daemon whose zone answers, and a server's whose zone is a test's.
func pairOfZones(t testing.TB, c Config) (alpha, beta *daemon, z *zone) {
	t.Helper()
	z = newZone()
	quick := newZone()
	c.Accounts = named("bob")
	alpha, beta = dnsDaemon(t, "alpha.test", quick, Config{Accounts: named("alice")}), dnsDaemon(t, "beta.test", z, c)
	for _, z := range []*zone{z, quick} {
		z.publish(t, alpha.cfg.Machine, beta.cfg.Machine)
	}
	return alpha, beta, z
}

// Rule 58: who waits for DNS holds up neither other streams of his connection nor the turns, and all who waited go on.
func TestRule58HoldsUpNobody(t *testing.T) {
	alpha, beta, z := pairOfZones(t, Config{Limits: Limits{Handshakes: 100}})
	release := z.holdBack()
	defer release()
	conn := dial(t, beta.socket, "")
	const many = 20 // more than there are turns at a time
	var waiting []*party
	for range many {
		c, s := open(t, alpha, ""), newParty(testContext(t), conn)
		m3 := toMessage3(t, c, s)
		if err := s.stream.SendMsg(next(m3)); err != nil {
			t.Fatal(err)
		}
		<-z.at
		waiting = append(waiting, s)
	}
	if in := beta.Snapshot().InFlight[Responder]; in != many {
		t.Errorf("%d places are taken by %d that wait", in, many)
	}
	// One of a machine under a CA goes through, by the same connection to the daemon.
	byCA := startDaemon(t, "gamma.test", Config{Machine: testmachine.New(t, "gamma.test", testmachine.Options{
		Config: certbind.MachineConfig{Trust: dnsTrust(t, "alpha.test", "beta.test")}}), Resolver: alpha.cfg.Resolver})
	join(t, open(t, byCA, ""), newParty(testContext(t), conn), clientStart(nil), serverStart(nil, nil), 1<<20)
	release()
	for _, s := range waiting {
		if resp, err := s.recv(); err != nil || resp.Result == nil {
			t.Errorf("after the answer: %v, %v", resp, err)
		}
	}
}

// Rule 58: a question is waited for no longer when the application is gone, the place is wanted, the handshake's time is over,
// or the daemon stops; the place is free then.
func TestRule58EndsWhileItWaits(t *testing.T) {
	free := func(t *testing.T, d *daemon) {
		t.Helper()
		for d.Snapshot().InFlight != [2]int{} {
			time.Sleep(time.Millisecond)
		}
	}
	held := func(t *testing.T, c Config) (alpha, beta *daemon, z *zone, stream *party, cancel context.CancelFunc) {
		t.Helper()
		alpha, beta, z = pairOfZones(t, c)
		t.Cleanup(z.holdBack())
		ctx, cancel := context.WithCancel(testContext(t))
		stream = newParty(ctx, dial(t, beta.socket, ""))
		m3 := toMessage3(t, open(t, alpha, ""), stream)
		if err := stream.stream.SendMsg(next(m3)); err != nil {
			t.Fatal(err)
		}
		<-z.at
		return alpha, beta, z, stream, cancel
	}
	t.Run("the application goes", func(t *testing.T) {
		_, beta, z, _, cancel := held(t, Config{HandshakeTimeout: time.Minute})
		cancel()
		<-z.ended
		free(t, beta)
		if r := beta.record(t); r.Reason != reason.CancelledName {
			t.Errorf("recorded as %+v", r)
		}
	})
	t.Run("the application goes that handed a socket over", func(t *testing.T) {
		alpha, beta, z := pairOfZones(t, Config{HandshakeTimeout: time.Minute})
		defer z.holdBack()()
		cs, ss := testnet.Pair(t)
		u := greet(t, beta.socket)
		give(t, u, serverStart(nil, nil), ss)
		give(t, greet(t, alpha.socket), clientStart(nil), cs)
		<-z.at
		u.Close()
		<-z.ended
		free(t, beta)
		if r := beta.record(t); r.Reason != reason.CancelledName {
			t.Errorf("recorded as %+v", r)
		}
	})
	t.Run("time is over", func(t *testing.T) {
		_, beta, z, stream, _ := held(t, Config{HandshakeTimeout: 300 * time.Millisecond})
		<-z.ended
		resp, err := stream.recv()
		if err == nil && !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(reason.DNSUnknown)) {
			t.Errorf("the peer is told %x", resp.OutFrames)
		}
		free(t, beta)
		if r := beta.record(t); r.Reason != "dns_unknown" || !strings.Contains(r.Detail, "in time") {
			t.Errorf("recorded as %+v", r)
		}
	})
	t.Run("the place is wanted", func(t *testing.T) {
		alpha, beta, z, stream, _ := held(t, Config{HandshakeTimeout: time.Minute, Limits: Limits{Handshakes: 1}})
		beta.change(func() { beta.gate.Grace = 20 * time.Millisecond })
		s := open(t, beta, "")
		m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
		s.must(t, serverStart(m1, nil))
		<-z.ended
		if resp, err := stream.recv(); err != nil || !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(reason.Overloaded)) {
			t.Errorf("the peer is told %v, %v", resp, err)
		}
		if r := beta.record(t); r.Reason != "overloaded" || !strings.Contains(r.Detail, "gave its place") {
			t.Errorf("recorded as %+v", r)
		}
	})
	t.Run("the place was wanted before", func(t *testing.T) {
		alpha, beta, z := pairOfZones(t, Config{HandshakeTimeout: time.Minute})
		defer z.holdBack()()
		h := beta.newSession(Caller{}, func() {}, func() {})
		if _, err := h.take(t.Context(), serverStart(nil, nil)); err != nil {
			t.Fatal(err)
		}
		c := open(t, alpha, "")
		resp, err := h.take(t.Context(), next(c.must(t, clientStart(nil)).OutFrames))
		if err != nil {
			t.Fatal(err)
		}
		m3 := c.must(t, next(resp.OutFrames)).OutFrames
		h.sendAway()
		_, err = h.take(t.Context(), next(m3))
		if f := asFailure(err); f.name != "overloaded" || !strings.Contains(f.text, "gave its place") {
			t.Errorf("it ends by %v", err)
		}
		h.end(asFailure(err))
		free(t, beta)
	})
	t.Run("the daemon stops", func(t *testing.T) {
		_, beta, z, _, _ := held(t, Config{HandshakeTimeout: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := beta.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-z.ended
		free(t, beta)
		if r := beta.record(t); r.Reason != "timed_out" || !strings.Contains(r.Detail, "to stop") {
			t.Errorf("recorded as %+v", r)
		}
	})
	t.Run("it is cut", func(t *testing.T) {
		_, beta, z, _, _ := held(t, Config{HandshakeTimeout: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = beta.Shutdown(ctx)
		<-z.ended
		free(t, beta)
	})
	// Whose other connections stand still waits a moment at most.
	t.Run("a caller that blocks", func(t *testing.T) {
		alpha, beta, z := pairOfZones(t, Config{HandshakeTimeout: time.Minute})
		defer z.holdBack()()
		s := open(t, beta, "grpc-java-netty/1.70.0")
		m3 := toMessage3(t, open(t, alpha, ""), s)
		resp, err := s.do(next(m3))
		if err == nil && !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(reason.DNSUnknown)) {
			t.Errorf("the peer is told %x, %v", resp.OutFrames, err)
		}
		<-z.ended
		if r := beta.record(t); r.Reason != "dns_unknown" {
			t.Errorf("recorded as %+v", r)
		}
	})
}

// Rule 58: what came into force while DNS was asked judges the answer, and what comes before the key is released has it asked
// again, and refuses what it disowns.
func TestRule58JudgedAgain(t *testing.T) {
	meanwhile := func(t *testing.T, change func(beta *daemon), want reason.Code) {
		t.Helper()
		alpha, beta, z := pairOfZones(t, Config{HandshakeTimeout: time.Minute})
		release := z.holdBack()
		defer release()
		c, s := open(t, alpha, altscredsAgent), open(t, beta, altscredsAgent)
		m3 := toMessage3(t, c, s)
		if err := s.stream.SendMsg(next(m3)); err != nil {
			t.Fatal(err)
		}
		<-z.at
		change(beta)
		release()
		if resp, err := s.recv(); want == reason.Accepted {
			if err != nil || resp.Result == nil {
				t.Errorf("%v, %v", resp, err)
			}
		} else if err != nil || resp.Result != nil || !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(want)) {
			t.Errorf("the peer is told %v, %v, want %v", resp, err, want)
		}
		if r := beta.record(t); r.Reason != want.String() {
			t.Errorf("recorded as %+v", r)
		}
	}
	reload := func(trust *certbind.Trust) func(*daemon) {
		return func(d *daemon) { d.cfg.Machine.Reload(d.cfg.Machine.Credential(), trust); d.Changed() }
	}
	t.Run("nothing", func(t *testing.T) { meanwhile(t, func(*daemon) {}, reason.Accepted) })
	t.Run("another trust", func(t *testing.T) {
		meanwhile(t, reload(dnsTrust(t, "alpha.test", "beta.test", "gamma.test")), reason.Accepted)
	})
	t.Run("under CAs by now", func(t *testing.T) { meanwhile(t, reload(dnsTrust(t, "beta.test")), reason.UnknownCA) })
	t.Run("denied", func(t *testing.T) {
		meanwhile(t, func(d *daemon) { d.SetPolicy(rules(t, "deny any * *@alpha.test\n", "")) }, reason.DeniedByPolicy)
	})

	// Between the proof and the release of the client's key.
	for _, c := range []struct {
		name   string
		change func(t *testing.T, alpha *daemon, z *zone)
		want   reason.Code
		asked  int
	}{
		{"nothing", func(*testing.T, *daemon, *zone) {}, reason.Accepted, 0},
		{"another trust", func(t *testing.T, d *daemon, _ *zone) { d.reload(t, dnsTrust(t, "alpha.test", "beta.test")) }, reason.Accepted, 0},
		{"another trust, and the answer is over", func(t *testing.T, d *daemon, _ *zone) {
			d.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
		}, reason.Accepted, 1},
		{"disowned by then", func(t *testing.T, d *daemon, z *zone) {
			d.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
			z.set(func() { clear(z.answers) })
		}, reason.UnknownCA, 1},
		{"silent by then", func(t *testing.T, d *daemon, z *zone) {
			d.reload(t, dnsTrust(t, "alpha.test", "beta.test"))
			z.set(func() { z.err = reason.Errorf(reason.DNSUnknown, "the resolver is gone") })
		}, reason.DNSUnknown, 1},
		{"under CAs by then", func(t *testing.T, d *daemon, _ *zone) { d.reload(t, dnsTrust(t, "alpha.test")) }, reason.UnknownCA, 0},
	} {
		for _, handed := range []bool{false, true} {
			t.Run(c.name+map[bool]string{true: ", handed over"}[handed], func(t *testing.T) {
				z, quick := newZone(), newZone()
				alpha, beta := dnsDaemon(t, "alpha.test", z, Config{Accounts: named("alice")}), dnsDaemon(t, "beta.test", quick, Config{Accounts: named("bob")})
				for _, z := range []*zone{z, quick} {
					z.publish(t, alpha.cfg.Machine, beta.cfg.Machine)
				}
				if c.asked > 0 { // the peer is known from before, so that this handshake has no answer of its own
					join(t, open(t, alpha, ""), open(t, beta, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
					alpha.record(t)
				}
				before := len(z.questions())
				s := open(t, beta, "")
				var done func(st []byte) (*altspb.HandshakerResult, error)
				var m1 []byte
				var say func(m2 []byte) (m3 []byte)
				if handed {
					near, far := testnet.Pair(t)
					u := greet(t, alpha.socket)
					give(t, u, clientStart(nil), near)
					read := func() []byte { return frameFrom(t, far) }
					m1 = read()
					say = func(m2 []byte) []byte { far.Write(m2); return read() }
					done = func(st []byte) (*altspb.HandshakerResult, error) {
						far.Write(st)
						a := answer(t, u)
						if r := a.GetRefusal(); r.GetCode() != 0 {
							return nil, withRefusal(statusOf(r), r)
						}
						return a.GetResult(), nil
					}
				} else {
					p := open(t, alpha, "")
					m1 = p.must(t, clientStart(nil)).OutFrames
					say = func(m2 []byte) []byte { return p.must(t, next(m2)).OutFrames }
					done = func(st []byte) (*altspb.HandshakerResult, error) {
						resp, err := p.do(next(st))
						return resp.GetResult(), err
					}
				}
				m3 := say(s.must(t, serverStart(m1, nil)).OutFrames)
				accepted := s.must(t, next(m3)).OutFrames
				if asked := len(z.questions()) - before; (asked == 0) != (c.asked > 0) {
					t.Errorf("asked %d times before", asked)
				}
				before = len(z.questions())
				c.change(t, alpha, z)
				result, err := done(accepted)
				if c.want == reason.Accepted {
					if err != nil || result.GetPeerIdentity().GetServiceAccount() != "bob@beta.test" {
						t.Errorf("%v, %v", result, err)
					}
				} else if result != nil {
					t.Errorf("a key is given out: %v", result)
				} else {
					wantErr(t, err, asFailure(reason.Errorf(c.want, "x")).rpc, c.want.String())
				}
				if asked := len(z.questions()) - before; asked != c.asked {
					t.Errorf("asked %d times, want %d", asked, c.asked)
				}
				if r := alpha.record(t); r.Reason != c.want.String() {
					t.Errorf("recorded as %+v", r)
				}
			})
		}
	}
}

// Rule 58: what a peer may be denied by is judged when it is proved, and tells nothing to who only says that he is somebody.
func TestRule58PolicyAfterDNS(t *testing.T) {
	alpha, beta, z := pairOfZones(t, Config{})
	beta.SetPolicy(rules(t, "", enforcing+"deny in bob alice@alpha.test\n"))
	z.set(func() { clear(z.answers) })
	c, s := greet(t, alpha.socket), greet(t, beta.socket)
	client, server := both(t, c, s, clientStart(nil), serverStart(nil, nil))
	wantRefusal(t, server, "unknown_ca")
	wantRefusal(t, client, byPeer+"unknown_ca")
	z.publish(t, alpha.cfg.Machine)
	client, server = both(t, c, s, clientStart(nil), serverStart(nil, nil))
	wantRefusal(t, server, "denied_by_policy")
	wantRefusal(t, client, byPeer+"denied_by_policy")
}

// Rule 57: rules that name a CA or a purpose let nobody by what a certificate says of itself, and what denies it counts.
func TestRule57Policy(t *testing.T) {
	alpha, beta, _ := pairOfZones(t, Config{})
	leaf := alpha.cfg.Machine.Credential().Leaf
	for rule, want := range map[string]reason.Code{
		"allow in bob *@*":                                     reason.Accepted,
		"allow in bob *@* eku=serverAuth":                      reason.DeniedByPolicy,
		"allow in bob *@* ca=\"CN=x\"":                         reason.DeniedByPolicy,
		"allow in bob *@* ca=" + strings.Repeat("0", 63) + "1": reason.DeniedByPolicy,
	} {
		beta.SetPolicy(rules(t, "", "default in deny\n"+rule+"\n"))
		if _, server := both(t, greet(t, alpha.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil)); want == reason.Accepted {
			if server.GetResult() == nil {
				t.Errorf("%s: %v", rule, server.GetRefusal())
			}
		} else {
			wantRefusal(t, server, want.String())
		}
	}
	c := policyCertificate(leaf)
	for _, denied := range []string{"deny any * *@* cert=" + c.Serial + ":\"" + leaf.Issuer.String() + "\"\n", "deny any * *@alpha.test\n"} {
		beta.SetPolicy(rules(t, denied, ""))
		_, server := both(t, greet(t, alpha.socket), greet(t, beta.socket), clientStart(nil), serverStart(nil, nil))
		wantRefusal(t, server, "denied_by_policy")
	}
}
