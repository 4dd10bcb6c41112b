package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// rules makes a policy of denials and rules; an empty text is none.
func rules(t testing.TB, denied, text string) *policy.Policy {
	t.Helper()
	var d *policy.Denied
	var r *policy.Rules
	var err error
	if denied != "" {
		if d, err = policy.ParseDenied([]policy.File{{Name: "denied.policy", Data: []byte(denied)}}); err != nil {
			t.Fatal(err)
		}
	}
	if text != "" {
		if r, err = policy.ParseRules([]policy.File{{Name: "policy.d/10-site.policy", Data: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
	return policy.New(d, r)
}

const enforcing = "default in deny\ndefault out allow\n"

func TestRule47Refuses(t *testing.T) {
	const (
		in  = "the rules of this machine do not let alice@alpha.test talk to bob (in): 10-site.policy:3 (denied_by_policy)"
		out = "the rules of this machine do not let alice talk to bob@beta.test (out): 10-site.policy:3 (denied_by_policy)"
	)
	for _, c := range []struct{ name, alpha, beta, client, server string }{
		{"by the server", "", enforcing + "deny in bob alice@alpha.test\nallow in * *@*\n", "", in},
		{"by the server's default", "", enforcing, "", "alice@alpha.test talk to bob (in): "},
		{"by the client", enforcing + "deny out alice bob@beta.test\n", "", out, ""},
		{"for the service", enforcing + "deny out * *@* service=grpc\n", "", out, ""},
		{"not for another service", enforcing + "deny out * *@* service=6432\n", enforcing + "allow in bob alice@alpha.test\n", "ok", "ok"},
		{"not for another account", enforcing + "deny out eve *@*\n", enforcing + "deny in eve *@*\nallow in bob alice@alpha.test\n", "ok", "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			alpha, beta := startDaemon(t, "alpha.test", Config{Accounts: named("alice")}), startDaemon(t, "beta.test", Config{Accounts: named("bob")})
			for d, text := range map[*daemon]string{alpha: c.alpha, beta: c.beta} {
				if text != "" {
					d.SetPolicy(rules(t, "", text))
				}
			}
			if c.client == "ok" {
				join(t, open(t, alpha, ""), open(t, beta, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
				if got := beta.record(t); got.Rule != "10-site.policy:4" && got.Rule != "10-site.policy:3" || got.Would {
					t.Errorf("recorded by rule %q, would %v", got.Rule, got.Would)
				}
				return
			}
			client, server := open(t, alpha, ""), open(t, beta, "")
			m2 := server.must(t, serverStart(client.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
			resp, err := client.do(next(m2))
			if c.client != "" {
				if resp != nil {
					t.Errorf("the client's answer to message 2 is %v: a server that is denied learned who called", resp)
				}
				wantErr(t, err, codes.PermissionDenied, "denied_by_policy", c.client)
				if r := alpha.record(t); r.Reason != "denied_by_policy" || r.Rule != "10-site.policy:3" || r.Peer != "bob@beta.test" {
					t.Errorf("recorded as %+v", r)
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				refused := server.must(t, next(resp.OutFrames))
				if !bytes.Equal(refused.OutFrames, noiseproto.StatusFrame(reason.DeniedByPolicy)) || refused.Result != nil {
					t.Errorf("the server's answer to message 3: %v", refused)
				}
				_, err = client.do(next(refused.OutFrames))
				wantErr(t, err, codes.PermissionDenied, byPeer+"denied_by_policy")
				if strings.Contains(err.Error(), "10-site") || strings.Contains(err.Error(), "bob") {
					t.Errorf("the client is told of the server's rules: %v", err)
				}
				_, err = server.recv()
				wantErr(t, err, codes.PermissionDenied, "denied_by_policy", c.server)
			}
			// The other local interface.
			cs, ss := greet(t, alpha.socket), greet(t, beta.socket)
			asked, accepted := both(t, cs, ss, clientStart(nil), serverStart(nil, nil))
			if c.client != "" {
				wantRefusal(t, asked, "denied_by_policy", c.client)
				wantRefusal(t, accepted, byPeer+"denied_by_policy")
			} else {
				wantRefusal(t, asked, byPeer+"denied_by_policy")
				wantRefusal(t, accepted, "denied_by_policy", c.server)
			}
		})
	}
}

func anotherCA(t *testing.T) *testca.CA {
	t.Helper()
	ca, err := testca.NewCA(testca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// What comes into force between the peer's proof and the result refuses the result.
func TestRule48DeniedBeforeTheKey(t *testing.T) {
	denied := func(t *testing.T, d *daemon) {
		d.SetPolicy(rules(t, "deny any * *@alpha.test\ndeny any * *@beta.test\n", ""))
	}
	revoked := func(t *testing.T, d *daemon) {
		other := anotherCA(t)
		trust, err := certbind.NewTrust(certbind.TrustConfig{CAs: []certbind.CA{{PEM: other.PEM(), Source: "another CA"}}})
		if err == nil {
			err = d.cfg.Machine.Reload(d.cfg.Machine.Credential(), trust)
		}
		if err != nil {
			t.Fatal(err)
		}
		d.Changed()
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *daemon)
		want   reason.Code
		code   codes.Code
	}{
		{"denied", denied, reason.DeniedByPolicy, codes.PermissionDenied},
		{"no CA", revoked, reason.UnknownCA, codes.Unauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
			client, server := open(t, alpha, ""), open(t, beta, "")
			m2 := server.must(t, serverStart(client.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
			m3 := client.must(t, next(m2)).OutFrames
			accepted := server.must(t, next(m3))
			c.change(t, alpha)
			resp, err := client.do(next(accepted.OutFrames))
			if resp != nil {
				t.Errorf("the client is answered %v", resp)
			}
			wantErr(t, err, c.code, c.want.String())
			if r := alpha.record(t); r.Reason != c.want.String() || r.Peer == "" {
				t.Errorf("recorded as %+v", r)
			}
		})
		t.Run(c.name+" at the server", func(t *testing.T) {
			beta := startDaemon(t, "beta.test", Config{})
			caller := open(t, startDaemon(t, "alpha.test", Config{}), "")
			// A session, so that the change can come in the middle of the step that ends it.
			h := beta.newSession(Caller{}, func() {}, func() {})
			step := func(in []byte) (out []byte, err error) {
				resp, err := h.take(context.Background(), next(in))
				return resp.GetOutFrames(), err
			}
			if _, err := h.take(context.Background(), serverStart(nil, nil)); err != nil {
				t.Fatal(err)
			}
			m2, err := step(caller.must(t, clientStart(nil)).OutFrames)
			if err != nil {
				t.Fatal(err)
			}
			m3 := caller.must(t, next(m2)).OutFrames
			if _, out, err := h.hs.Feed(m3); err != nil || !bytes.Equal(out, noiseproto.StatusFrame(reason.Accepted)) {
				t.Fatalf("%x, %v", out, err)
			}
			c.change(t, beta)
			err = h.permitAgain()
			wantReason(t, err, c.want)
			if out := h.withhold(err); !bytes.Equal(out, noiseproto.StatusFrame(c.want)) {
				t.Errorf("the peer is told %x", out)
			}
			if key := h.hs.Result().KeyData; key != [64]byte{} {
				t.Error("the key is not wiped")
			}
			h.end(asFailure(err))
		})
	}
}

func TestRule47Permissive(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{Accounts: named("alice")}), startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	beta.SetPolicy(rules(t, "", "mode permissive\n"+enforcing+"deny in bob alice@*\n"))
	for range 3 {
		join(t, open(t, alpha, ""), open(t, beta, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
		if r := beta.record(t); r.Reason != "accepted" || !r.Would || r.Rule != "10-site.policy:4" {
			t.Errorf("recorded as %+v", r)
		}
	}
	got, more := beta.WouldRefuse()
	if len(got) != 1 || more != 0 || got[0].Count != 3 || got[0].Rule != "10-site.policy:4" || got[0].Role != Responder ||
		got[0].Local != "bob@beta.test" || got[0].Peer != "alice@alpha.test" {
		t.Errorf("would be refused: %+v and %d more", got, more)
	}
	if log := beta.logs.String(); !strings.Contains(log, "level=WARN") ||
		!strings.Contains(log, "rule=10-site.policy:4 would=denied_by_policy") {
		t.Errorf("the log says\n%s", log)
	}
	beta.SetPolicy(rules(t, "deny any * alice@alpha.test\n", "mode permissive\n"+enforcing+"allow in * *@*\n"))
	client, server := open(t, alpha, ""), open(t, beta, "")
	m2 := server.must(t, serverStart(client.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
	if resp := server.must(t, next(client.must(t, next(m2)).OutFrames)); resp.Result != nil {
		t.Error("permissive rules let what is denied")
	}
	_, err := server.recv()
	wantErr(t, err, codes.PermissionDenied, "denied_by_policy", "has denied", "denied.policy:1")
	beta.ForgetWould()
	if got, _ := beta.WouldRefuse(); len(got) != 0 {
		t.Errorf("after all was forgotten: %v", got)
	}
}

// Peers choose the names of their accounts: those of one local account fill its own part of the table only.
func TestRule47WouldBounds(t *testing.T) {
	var w wouldTable
	for i := range 2 * wouldKept {
		w.add(&Record{Rule: "a:1", Peer: fmt.Sprintf("p%d@m", i), share: share{ofAccount, 1}})
	}
	w.add(&Record{Rule: "a:1", Peer: "p0@m", share: share{ofAccount, 2}})
	w.add(&Record{Rule: "a:1", Peer: "p0@m", share: share{ofAccount, 1}, Local: "other"})
	if len(w.pairs) != wouldKept || w.leftOut != wouldKept+1 {
		t.Errorf("%d kept, %d left out", len(w.pairs), w.leftOut)
	}
	for i := range 2 * wouldKeptInAll {
		w.add(&Record{Rule: "a:1", Peer: "q@m", Local: fmt.Sprint(i), share: share{ofAccount, uint32(10 + i/200)}})
	}
	if len(w.pairs) != wouldKeptInAll {
		t.Errorf("%d kept in all", len(w.pairs))
	}
}

// However much one account's peers, or those of several, are let by, what others would lose is kept and shown.
func TestRule47WouldShares(t *testing.T) {
	s := &Server{audit: new(auditor)}
	w := &s.audit.would
	flood := func(accounts int) {
		for range 2 {
			for i := range accounts * wouldKept {
				w.add(&Record{Rule: "a:1", Peer: fmt.Sprintf("p%d@m", i), Local: "eve", share: share{ofAccount, uint32(i / wouldKept)}})
			}
		}
	}
	for _, accounts := range []int{1, 2 * wouldKeptInAll / wouldKept} {
		flood(accounts)
		honest := Record{Rule: "a:2", Peer: "alice@m", Local: "bob", share: share{ofAccount, 9999}}
		w.add(&honest)
		flood(accounts)
		list, more := s.WouldRefuse()
		total := more
		shown := false
		for _, e := range list {
			total += e.Count
			shown = shown || e.Local == "bob"
		}
		if !shown || len(list) != wouldShown || total != uint64(4*accounts*wouldKept+1) {
			t.Errorf("%d accounts: shown %v among %d, %d in all", accounts, shown, len(list), total)
		}
		if len(w.pairs) > wouldKeptInAll {
			t.Errorf("%d accounts: %d kept", accounts, len(w.pairs))
		}
		s.ForgetWould()
	}
}

// Groups that rules name are looked up, are not published, and come with the rules.
func TestRule47LocalGroups(t *testing.T) {
	users := &tableUsers{lines: []userEntry{{"bob", uint32(1002), 1}}}
	a := newAccounts(AccountOptions{Groups: []string{"h"}}, users)
	lookup := func() Account {
		t.Helper()
		acct, err := a.Lookup(context.Background(), 1002)
		if err != nil {
			t.Fatal(err)
		}
		return acct
	}
	if got := lookup(); len(got.Groups) != 0 || got.LocalGroups != nil {
		t.Errorf("without rules: %+v", got)
	}
	a.LookFor([]string{"by list", "g", "h", "unknown"})
	if a.Ready(1002) {
		t.Error("what is known serves although more is asked")
	}
	got := lookup()
	if want := map[string]bool{"g": true, "by list": true, "h": false, "unknown": false}; fmt.Sprint(got.LocalGroups) != fmt.Sprint(want) {
		t.Errorf("members: %v, want %v", got.LocalGroups, want)
	}
	if len(got.Groups) != 0 {
		t.Errorf("published: %v", got.Groups)
	}
	calls := users.calls.Load()
	a.LookFor([]string{"g"})
	if lookup(); users.calls.Load() != calls || !a.Ready(1002) {
		t.Error("asked again for fewer groups")
	}
	users.err = errNoUser
	a.LookFor([]string{"g", "new"})
	if _, err := a.Lookup(context.Background(), 1002); err == nil {
		t.Error("an account serves that was not asked about a group of the rules")
	}
}

// An account that began its handshake before the rules named a group is asked about it before it is judged.
func TestRule47GroupsInBetween(t *testing.T) {
	me, group := currentUser(t)
	if err := certbind.ValidGroup(group.Name, false); err != nil || me.Username == "" {
		t.Skip("the tests' own account has no usable group:", err)
	}
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	client, server := open(t, alpha, ""), open(t, beta, "")
	m2 := server.must(t, serverStart(client.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
	m3 := client.must(t, next(m2)).OutFrames
	beta.SetPolicy(rules(t, "", enforcing+"deny in %"+group.Name+" *@*\nallow in * *@*\n"))
	if resp := server.must(t, next(m3)); resp.Result != nil {
		t.Error("a rule for a group that was named in between does not count")
	}
	_, err := server.recv()
	wantErr(t, err, codes.PermissionDenied, "denied_by_policy", "10-site.policy:3")
}

func TestRule47Peer(t *testing.T) {
	ca := anotherCA(t)
	m := testMachine(t, "web.test", testca.Leaf{Hosts: []string{"Other.Test"}})
	leaf := m.Credential().Leaf
	p, err := policyPeer(&certbind.Peer{Account: "alice", Machine: "web.test", Leaf: leaf, CA: ca.Cert,
		Path: append(m.Credential().Certificates, ca.Cert), Attributes: []certbind.Attribute{{Name: "groups", Value: "a,b%20c"}}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Groups, []string{"a", "b c"}) || !slices.Contains(p.Names, "other.test") || !slices.Contains(p.EKUs, "1.3.6.1.5.5.7.3.1") ||
		len(p.Certificates) != 1 || p.Certificates[0].Serial != fmt.Sprintf("%x", leaf.SerialNumber) ||
		p.Certificates[0].Issuer != policy.NameHash(leaf.Issuer.String()) || p.CAName != policy.NameHash(ca.Cert.Subject.String()) {
		t.Errorf("%+v", p)
	}
	if _, err := policyPeer(&certbind.Peer{Attributes: []certbind.Attribute{{Name: "groups", Value: "b,a"}}}); err == nil {
		t.Error("groups that cannot be read count as none")
	}
}

// A socket that has no room for status 0 does not keep a key for a peer who is denied meanwhile.
func TestRule48DeniedWhileTheStatusWaits(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	client := open(t, alpha, "")
	cs, ss := testnet.Pair(t)
	if _, err := cs.Write(client.must(t, clientStart(nil)).OutFrames); err != nil {
		t.Fatal(err)
	}
	u := greet(t, beta.socket)
	give(t, u, serverStart(nil, nil), ss)
	m3 := client.must(t, next(frame(t, cs))).OutFrames
	// The peer reads nothing. That there is no room is sure once the kernel has asked a few times and found none: it makes some
	// in what was not read.
	chunk := make([]byte, 64<<10)
	for size := len(chunk); ; {
		ss.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := ss.Write(chunk[:size])
		if n == 0 {
			break
		}
		if size = len(chunk); err != nil {
			size = 1
		}
	}
	if _, err := cs.Write(m3); err != nil {
		t.Fatal(err)
	}
	for beta.cfg.Machine.Stats().Verified == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // until it is judged, or it is denied at once, which is as well
	beta.SetPolicy(rules(t, "deny any * *@alpha.test\n", ""))
	go io.Copy(io.Discard, cs)
	wantRefusal(t, answer(t, u), "denied_by_policy", "denied.policy:1")
	if r := beta.record(t); r.Reason != "denied_by_policy" {
		t.Errorf("recorded as %+v", r)
	}
}
