package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/standing"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
)

const altscredsAgent = "shared-altsd-altscreds grpc-go/1"

// A watcher is an application that watches its connections.
type watcher struct {
	t         testing.TB
	stream    grpc.ClientStream
	sent      uint64
	answered  uint64
	ended     map[uint64]*altspb.Ended
	unwatched map[uint64]string
	moves     int
	err       error
}

func watch(t testing.TB, socket string) *watcher {
	t.Helper()
	s, err := dial(t, socket, altscredsAgent).NewStream(testContext(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		altspb.WatchMethod)
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t: t, stream: s, ended: make(map[uint64]*altspb.Ended), unwatched: make(map[uint64]string)}
}

func (w *watcher) send(req *altspb.WatchRequest) {
	w.t.Helper()
	if err := w.stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		w.t.Fatal(err)
	}
	w.sent++
}

// add sends one connection and waits for the answer.
func (w *watcher) add(id uint64, s *altspb.Standing) {
	w.t.Helper()
	w.send(&altspb.WatchRequest{Add: []*altspb.Watched{{Id: id, Standing: s}}})
	w.settle()
}

// recv takes an answer.
func (w *watcher) recv() bool {
	a := new(altspb.WatchAnswer)
	if w.err = w.stream.RecvMsg(a); w.err != nil {
		return false
	}
	w.answered = max(w.answered, a.Answered)
	for _, e := range a.Ended {
		w.ended[e.Id] = e
	}
	for _, u := range a.Unwatched {
		w.unwatched[u.Id] = u.Why
	}
	if a.Move {
		w.moves++
	}
	return true
}

// settle waits until all requests are answered.
func (w *watcher) settle() {
	w.t.Helper()
	for w.answered < w.sent {
		if !w.recv() {
			w.t.Fatal(w.err)
		}
	}
}

// want waits until so many connections have ended, and checks that all have for that reason, and that a pass later no more
// have.
func (w *watcher) want(why reason.Code, ids ...uint64) {
	w.t.Helper()
	for len(w.ended) < len(ids) {
		if !w.recv() {
			w.t.Fatalf("ended %v, want %v: %v", slices.Sorted(maps.Keys(w.ended)), ids, w.err)
		}
	}
	if got := slices.Sorted(maps.Keys(w.ended)); !slices.Equal(got, ids) {
		w.t.Fatalf("ended %v, want %v", got, ids)
	}
	for _, id := range ids {
		if e := w.ended[id]; e.Reason != why.String() || !strings.Contains(e.Text, e.Reason) || len(e.HandshakeId) != 16 {
			w.t.Errorf("connection %d ended by %v, want %v", id, e, why)
		}
	}
}

// stand does a handshake of altscreds' and returns what either end has its connection watched by.
func stand(t testing.TB, alpha, beta *daemon) (client, server *altspb.Standing) {
	t.Helper()
	c, s := open(t, alpha, altscredsAgent), open(t, beta, altscredsAgent)
	start := clientStart(func(r *altspb.StartClientHandshakeReq) {
		r.TargetIdentities = []*altspb.Identity{hostnameID(beta.cfg.Machine.Name())}
	})
	m2 := s.must(t, serverStart(c.must(t, start).OutFrames, nil)).OutFrames
	last := s.must(t, next(c.must(t, next(m2)).OutFrames))
	done := c.must(t, next(last.OutFrames))
	if last.Result == nil || done.Result == nil || last.Standing == nil || done.Standing == nil {
		t.Fatalf("no result, or nothing to watch by: %v, %v", last, done)
	}
	return done.Standing, last.Standing
}

// synthetic returns the record of a connection between alice and an account of peer.test, of any certificate of the usual CA.
func synthetic(t testing.TB, account string) *altspb.Standing {
	t.Helper()
	ca := testmachine.CA().Cert
	key := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	r := standing.Record{ID: "0123456789abcdef", Path: certbind.Path{Machine: "peer.test",
		Certs: []certbind.PathCert{{Serial: []byte{7}, NotAfter: time.Now().Add(time.Hour), IssuerKey: key}}},
		Connection: policy.Connection{Account: "alice", Service: "grpc", Peer: policy.Peer{Account: account, Machine: "peer.test",
			Names: []string{"peer.test"}, CAKey: key, Certificates: []policy.Certificate{{Serial: "7"}}}}}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &altspb.Standing{Record: b}
}

func trustOf(t testing.TB, cfg certbind.TrustConfig) *certbind.Trust {
	t.Helper()
	trust, err := certbind.NewTrust(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// reload puts another trust in force.
func (d *daemon) reload(t testing.TB, trust *certbind.Trust) {
	t.Helper()
	if err := d.cfg.Machine.Reload(d.cfg.Machine.Credential(), trust); err != nil {
		t.Fatal(err)
	}
	d.Changed()
}

// TestRule49Ends: each kind of change ends the connections that it refuses, and no other.
func TestRule49Ends(t *testing.T) {
	usual := certbind.CA{PEM: testmachine.CA().PEM(), Source: "test CA"}
	other := anotherCA(t)
	theirs := certbind.CA{PEM: other.PEM(), Source: "another CA"}
	both := certbind.TrustConfig{CAs: []certbind.CA{usual, theirs}}
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	gammaMachine := machineOf(t, other, "gamma.test", testca.Leaf{})
	gamma := startDaemon(t, "gamma.test", Config{Accounts: named("carol"), Machine: gammaMachine})
	gamma.reload(t, trustOf(t, both))
	for name, c := range map[string]struct {
		change func(*daemon)
		want   reason.Code
	}{
		"denied":          {func(d *daemon) { d.SetPolicy(rules(t, "deny any * *@gamma.test\n", "")) }, reason.DeniedByPolicy},
		"refused by rule": {func(d *daemon) { d.SetPolicy(rules(t, "", enforcing+"deny out alice carol@gamma.test\n")) }, reason.DeniedByPolicy},
		"revoked": {func(d *daemon) {
			list := testca.MustCRL(t, other, []*big.Int{gammaMachine.Credential().Leaf.SerialNumber}, testca.CRLOptions{})
			d.reload(t, trustOf(t, certbind.TrustConfig{CAs: both.CAs, CRLs: []certbind.CRLFile{{Data: list, Source: "list"}}}))
		}, reason.CertificateRevoked},
		"its CA gone": {func(d *daemon) { d.reload(t, trustOf(t, certbind.TrustConfig{CAs: both.CAs[:1]})) }, reason.UnknownCA},
		"its CA limited": {func(d *daemon) {
			d.reload(t, trustOf(t, certbind.TrustConfig{CAs: []certbind.CA{usual, {PEM: theirs.PEM, Names: []string{"beta.test"}}}}))
		}, reason.UnknownCA},
	} {
		t.Run(name, func(t *testing.T) {
			alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
			alpha.reload(t, trustOf(t, both))
			toBeta, _ := stand(t, alpha, beta)
			toGamma, _ := stand(t, alpha, gamma)
			late, _ := stand(t, alpha, gamma)
			w := watch(t, alpha.socket)
			w.add(1, toBeta)
			w.add(2, toGamma)
			if len(w.ended)+len(w.unwatched) > 0 {
				t.Fatalf("before the change: %v, %v", w.ended, w.unwatched)
			}
			c.change(alpha)
			w.want(c.want, 2)
			// A change between the result and the subscription is not lost, and what stands is judged again.
			w.add(3, late)
			w.want(c.want, 2, 3)
			alpha.Changed()
			w.add(4, toBeta)
			w.send(&altspb.WatchRequest{Remove: []uint64{1, 2, 77}})
			w.settle()
			w.want(c.want, 2, 3)
			st := alpha.Snapshot().Standing
			if st.Watched != 1 || st.Ended[c.want.String()] != 2 || len(st.Kept) > 0 {
				t.Errorf("counted %+v", st)
			}
			if log := alpha.logs.String(); !strings.Contains(log, "connection ended") || !strings.Contains(log, "peer=carol@gamma.test") ||
				!strings.Contains(log, "reason="+c.want.String()) || !strings.Contains(log, "id="+w.ended[2].HandshakeId) {
				t.Errorf("the log:\n%s", log)
			}
		})
	}
}

// TestRule49Expiry: a connection ends with the certificate of its peer's, without any change.
func TestRule49Expiry(t *testing.T) {
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob"), Machine: testMachine(t, "beta.test", testca.Leaf{NotAfter: time.Now().Add(3 * time.Second)})})
	gamma := startDaemon(t, "gamma.test", Config{Accounts: named("carol")})
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	w := watch(t, alpha.socket)
	toBeta, _ := stand(t, alpha, beta)
	toGamma, _ := stand(t, alpha, gamma)
	w.add(2, toGamma)
	w.add(1, toBeta)
	w.want(reason.CertificateExpired, 1)
}

// TestRule49Restart: the record is all that another run of the daemon needs.
func TestRule49Restart(t *testing.T) {
	m := testMachine(t, "alpha.test", testca.Leaf{})
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), Machine: m})
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	client, server := stand(t, alpha, beta)
	after := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), Machine: m})
	after.SetPolicy(rules(t, "deny any * bob@beta.test\n", ""))
	w := watch(t, after.socket)
	w.add(1, client)
	w.want(reason.DeniedByPolicy, 1)
	again := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	w = watch(t, again.socket)
	w.add(1, server)
	again.SetPolicy(rules(t, "", enforcing))
	w.want(reason.DeniedByPolicy, 1)
}

// TestRule49Permissive: permissive rules end nothing but what is denied; nor does a daemon that keeps.
func TestRule49Permissive(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	client, _ := stand(t, alpha, beta)
	w := watch(t, alpha.socket)
	w.add(1, client)
	permissive := "mode permissive\n" + enforcing + "deny any * *@beta.test\n"
	alpha.SetPolicy(rules(t, "", permissive))
	for alpha.Snapshot().Standing.Kept["denied_by_policy"] == 0 {
		time.Sleep(time.Millisecond)
	}
	w.add(2, client)
	w.want(reason.Accepted)
	alpha.SetPolicy(rules(t, "deny any * *@beta.test\n", permissive))
	w.want(reason.DeniedByPolicy, 1, 2)

	kept := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), KeepRevoked: true})
	w = watch(t, kept.socket)
	w.add(1, client)
	kept.SetPolicy(rules(t, "deny any * *@beta.test\n", ""))
	for kept.Snapshot().Standing.Kept["denied_by_policy"] == 0 {
		time.Sleep(time.Millisecond)
	}
	w.add(2, client)
	w.want(reason.Accepted)
	if st := kept.Snapshot().Standing; st.Watched != 2 || len(st.Ended) > 0 || st.Kept["denied_by_policy"] != 2 {
		t.Errorf("counted %+v", st)
	}
	if log := kept.logs.String(); strings.Count(log, "connection kept that would be refused") != 2 {
		t.Errorf("the log:\n%s", log)
	}
}

// TestRule49UserDatabase: a user database that fails ends nothing that depends on it, and all that does not.
func TestRule49UserDatabase(t *testing.T) {
	var broken, left atomic.Bool
	db := accountsFunc(func(_ context.Context, uid uint32) (Account, error) {
		if broken.Load() {
			return Account{}, reason.Errorf(reason.Internal, "the user database does not answer")
		}
		return Account{UID: uid, Name: "alice", LocalGroups: map[string]bool{"staff": !left.Load()}}, nil
	})
	alpha := startDaemon(t, "alpha.test", Config{Accounts: db})
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	_, server := stand(t, beta, alpha)
	w := watch(t, alpha.socket)
	w.add(1, server)
	w.add(2, synthetic(t, "eve"))
	broken.Store(true)
	alpha.SetPolicy(rules(t, "deny any * eve@peer.test\n", enforcing+"allow any %staff *@*\n"))
	w.want(reason.DeniedByPolicy, 2)
	left.Store(true)
	broken.Store(false) // it is asked again
	w.want(reason.DeniedByPolicy, 1, 2)
}

// TestRule49Bounds: over the bounds nothing is watched: the daemon says so, or refuses the handshake.
func TestRule49Bounds(t *testing.T) {
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	for _, keep := range []bool{false, true} {
		alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), KeepRevoked: keep})
		alpha.watches.records.perAccount = 2
		w := watch(t, alpha.socket)
		for id := range uint64(3) {
			w.add(id, synthetic(t, "eve"))
		}
		c, s := greet(t, alpha.socket), greet(t, beta.socket)
		if keep {
			if w.unwatched[2] == "" || len(w.unwatched) != 1 || len(w.ended) > 0 || alpha.Snapshot().Standing.Unwatched != 1 {
				t.Errorf("kept: unwatched %v, ended %v, %+v", w.unwatched, w.ended, alpha.Snapshot().Standing)
			}
			if asked, _ := both(t, c, s, clientStart(nil), serverStart(nil, nil)); asked.Result == nil || asked.Standing == nil {
				t.Errorf("kept: a handshake was answered by %v", asked)
			}
			continue
		}
		w.want(reason.Overloaded, 2)
		asked, _ := both(t, c, s, clientStart(nil), serverStart(nil, nil))
		wantRefusal(t, asked, "overloaded", "could not be ended", "--on-revoke keep")
		// Stock libraries cannot be told anyway.
		join(t, open(t, alpha, "grpc-go/1"), open(t, beta, "grpc-go/1"), clientStart(nil), serverStart(nil, nil), 1<<20)
		w.send(&altspb.WatchRequest{Remove: []uint64{0}})
		w.add(3, synthetic(t, "eve"))
		if len(w.ended) != 1 {
			t.Errorf("in the place of one that was closed: %v", w.ended)
		}
		if err := w.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for w.recv() {
		}
		if w.err != io.EOF || alpha.Snapshot().Standing.Watched != 0 {
			t.Errorf("after the stream's end: %v, %d watched", w.err, alpha.Snapshot().Standing.Watched)
		}
	}
}

// TestRule49MostGivesWay: who has most of all that is watched gives way for who has less, so that a few accounts keep nobody out.
func TestRule49MostGivesWay(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	alpha.watches.records.inAll = 8
	fill := watch(t, alpha.socket)
	for id := range uint64(8) {
		fill.add(id, synthetic(t, "eve"))
	}
	// A socket that is limited to uids is an account of its own.
	w := watch(t, alpha.listen(t, UIDRanges{{0, 1<<32 - 2}}))
	for id := range 4 {
		w.add(uint64(id), synthetic(t, "eve"))
		for len(fill.ended) <= id && fill.recv() { // or there are more too many than an eighth
		}
	}
	for _, e := range fill.ended {
		if e.Reason != "overloaded" {
			t.Errorf("gave way by %v", e)
		}
	}
	w.want(reason.Accepted)
	w.add(4, synthetic(t, "eve"))
	w.want(reason.Overloaded, 4) // as many as the other has
	if st := alpha.Snapshot().Standing; st.Watched != 8 || len(fill.ended) != 4 {
		t.Errorf("%d gave way, %+v", len(fill.ended), st)
	}
}

// TestRule49Streams: an account has only so many streams.
func TestRule49Streams(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice"), Limits: Limits{Connections: 8}})
	for range 2 {
		watch(t, alpha.socket).add(1, synthetic(t, "eve"))
	}
	w := watch(t, alpha.socket)
	w.send(&altspb.WatchRequest{})
	w.recv()
	wantErr(t, w.err, codes.ResourceExhausted, "overloaded", "2 streams open by which connections are watched")
}

// TestRule49StockLibraries: what is not Google's is not sent to those who could not use it.
func TestRule49StockLibraries(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	for _, agent := range []string{"grpc-go/1.80.0", "grpc-c++/1.70.0", "grpc-java-netty/1.70.0", ""} {
		c, s := open(t, alpha, agent), open(t, beta, agent)
		m2 := s.must(t, serverStart(c.must(t, clientStart(nil)).OutFrames, nil)).OutFrames
		last := s.must(t, next(c.must(t, next(m2)).OutFrames))
		if done := c.must(t, next(last.OutFrames)); last.Standing != nil || done.Standing != nil {
			t.Errorf("%q is told %v, %v", agent, last.Standing, done.Standing)
		}
	}
}

// TestRule49HostileSubscriber: records of others, garbage and wrong requests harm nobody but their sender.
func TestRule49HostileSubscriber(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	eve := startDaemon(t, "alpha.test", Config{Accounts: named("eve"), Machine: alpha.cfg.Machine})
	good := synthetic(t, "eve")
	w := watch(t, alpha.socket)
	for id, record := range [][]byte{nil, {1}, make([]byte, 2000), append(slices.Clone(good.Record), 0), good.Record[:100]} {
		w.add(uint64(id), &altspb.Standing{Record: record})
		if w.unwatched[uint64(id)] == "" {
			t.Errorf("garbage %d is watched", id)
		}
	}
	w.add(100, good)
	if len(w.ended) > 0 || len(w.unwatched) != 5 {
		t.Errorf("ended %v, unwatched %v", w.ended, w.unwatched)
	}
	// Of another's record nothing is said but that it is another's, whatever policy says.
	eve.SetPolicy(rules(t, "deny any alice *@*\n", ""))
	theirs := watch(t, eve.socket)
	theirs.add(1, good)
	if len(theirs.ended) > 0 || !strings.Contains(theirs.unwatched[1], "another account") {
		t.Errorf("another's record: %v, %v", theirs.ended, theirs.unwatched)
	}
	many := &altspb.WatchRequest{}
	for id := range uint64(maxWatchedAtOnce + 1) {
		many.Add = append(many.Add, &altspb.Watched{Id: 1000 + id})
	}
	twice := &altspb.WatchRequest{Add: []*altspb.Watched{{Id: 1, Standing: good}, {Id: 1, Standing: good}}}
	for text, req := range map[string]*altspb.WatchRequest{"at most 1024": many, "is watched already": twice} {
		w := watch(t, alpha.socket)
		w.send(req)
		w.recv()
		wantErr(t, w.err, codes.InvalidArgument, "bad_request", text)
	}
	for alpha.Snapshot().Standing.Watched != 1 {
		time.Sleep(time.Millisecond) // what was added before the mistake goes with its stream
	}
	alpha.SetPolicy(rules(t, "deny any * *@peer.test\n", ""))
	w.want(reason.DeniedByPolicy, 100)
}

// roomyDatabase is a user database that has none of the names that sockets give out.
type roomyDatabase struct{ accountsFunc }

func (roomyDatabase) vacant(context.Context, string) error { return nil }
func (roomyDatabase) vacantReady(string) bool              { return true }

// TestRule49SocketAccount: who a socket makes of its callers is who its connections are judged as, in no group of their uid's.
func TestRule49SocketAccount(t *testing.T) {
	db := roomyDatabase{func(_ context.Context, uid uint32) (Account, error) {
		return Account{UID: uid, Name: "alice", LocalGroups: map[string]bool{"staff": true}}, nil
	}}
	alpha := startDaemon(t, "alpha.test", Config{Accounts: db})
	me := uint32(os.Geteuid())
	as := &daemon{Server: alpha.Server, socket: alpha.listenAs(t, SocketUse{UIDs: UIDRanges{{me, me}}, Account: "greeter+"}).socket}
	beta := startDaemon(t, "beta.test", Config{Accounts: named("bob")})
	_, mine := stand(t, beta, alpha)
	_, theirs := stand(t, beta, as)
	w, v := watch(t, alpha.socket), watch(t, as.socket)
	w.add(1, mine)
	v.add(1, theirs)
	v.add(2, mine)
	if !strings.Contains(v.unwatched[2], "another account than greeter+") {
		t.Errorf("the record of the uid's own account: %v, %v", v.unwatched, v.ended)
	}
	alpha.SetPolicy(rules(t, "", enforcing+"allow in %staff *@*\n"))
	v.want(reason.DeniedByPolicy, 1)
	w.add(2, mine)
	w.want(reason.Accepted)
}

// TestRule49Nameless: a uid without a name has nothing watched, whatever record it presents, and holds nothing after that.
func TestRule49Nameless(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: accountsFunc(func(_ context.Context, uid uint32) (Account, error) {
		return Account{}, reason.Errorf(reason.LocalAccount, "uid %d has no account", uid)
	})})
	for range 20 {
		w := watch(t, alpha.socket)
		w.send(&altspb.WatchRequest{Add: []*altspb.Watched{{Id: 1, Standing: synthetic(t, "eve")}}})
		w.recv()
		wantErr(t, w.err, codes.PermissionDenied, "local_account")
		if len(w.ended) > 0 {
			t.Fatalf("ended %v", w.ended)
		}
	}
	if st := alpha.watches.stats(); st.Watched != 0 || alpha.watches.streams.sum() != 0 {
		t.Errorf("%+v, and %d streams count still", st, alpha.watches.streams.sum())
	}
}

// TestRule49AnswersNotRead: who reads no answers holds nobody up, and what he is told of is bounded by what he watched.
func TestRule49AnswersNotRead(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	deaf, w := watch(t, alpha.socket), watch(t, alpha.socket)
	const n = 8000
	record := synthetic(t, "eve")
	for id := uint64(0); id < n; {
		req := new(altspb.WatchRequest)
		for range 250 {
			req.Add = append(req.Add, &altspb.Watched{Id: id, Standing: record})
			id++
		}
		deaf.send(req)
	}
	deaf.settle()
	w.add(1, record)
	alpha.SetPolicy(rules(t, "deny any * eve@peer.test\n", ""))
	w.want(reason.DeniedByPolicy, 1)
	for alpha.Snapshot().Standing.Ended["denied_by_policy"] <= n {
		time.Sleep(time.Millisecond)
	}
	if st := alpha.Snapshot().Standing; st.Watched == 0 {
		t.Errorf("what was not said does not count: %+v", st)
	}
	deaf.want(reason.DeniedByPolicy, func() (ids []uint64) {
		for id := range uint64(n) {
			ids = append(ids, id)
		}
		return ids
	}()...)
	if st := alpha.Snapshot().Standing; st.Watched != 0 {
		t.Errorf("still watched: %+v", st)
	}
}

// TestRule49Drain: a daemon that stops ends the stream at once, and nothing else.
func TestRule49Drain(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	w := watch(t, alpha.socket)
	w.add(1, synthetic(t, "eve"))
	if err := alpha.Shutdown(testContext(t)); err != nil {
		t.Error(err)
	}
	w.recv()
	wantErr(t, w.err, codes.Unavailable, "shutting_down")
	if len(w.ended) > 0 {
		t.Errorf("ended %v", w.ended)
	}
}

// TestRule49Age: a connection to the daemon that has aged moves the stream.
func TestRule49Age(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	alpha.grpc.Age = 50 * time.Millisecond
	w := watch(t, alpha.socket)
	w.add(1, synthetic(t, "eve"))
	for w.moves == 0 && w.recv() {
	}
	if w.moves != 1 || status.Code(w.err) != codes.OK {
		t.Errorf("moved %d times, %v", w.moves, w.err)
	}
}

// TestRule49TenThousand: of ten thousand connections of forty programs those end that are denied, and no others.
func TestRule49TenThousand(t *testing.T) {
	const programs, each = 40, 250
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	eve, bob := synthetic(t, "eve"), synthetic(t, "bob")
	var all []*watcher
	var want []uint64
	for range programs {
		w := watch(t, alpha.socket)
		req := new(altspb.WatchRequest)
		for id := range uint64(each) {
			s := eve
			if id%2 == 0 {
				s = bob
			}
			req.Add = append(req.Add, &altspb.Watched{Id: id, Standing: s})
		}
		w.send(req)
		w.settle()
		all = append(all, w)
	}
	for id := range uint64(each) {
		if id%2 == 1 {
			want = append(want, id)
		}
	}
	alpha.SetPolicy(rules(t, "deny any * eve@peer.test\n", ""))
	began := time.Now()
	for _, w := range all {
		w.want(reason.DeniedByPolicy, want...)
	}
	t.Logf("%d of %d had ended after %v", len(want)*programs, programs*each, time.Since(began))
	if st := alpha.Snapshot().Standing; st.Watched != programs*each/2 || st.Ended["denied_by_policy"] != programs*each/2 {
		t.Errorf("%+v", st)
	}
}

// BenchmarkJudgeAgain has all that is watched judged again.
func BenchmarkJudgeAgain(b *testing.B) {
	for _, n := range []int{10_000, standingInAll} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			alpha := startDaemon(b, "alpha.test", Config{Accounts: named("alice")})
			alpha.watches.records.perAccount = n
			alpha.SetPolicy(rules(b, "deny any * mallory@peer.test\n", ""))
			w := watch(b, alpha.socket)
			record := synthetic(b, "eve")
			before := heap()
			for id := uint64(0); id < uint64(n); {
				req := new(altspb.WatchRequest)
				for range min(256, n-int(id)) {
					req.Add = append(req.Add, &altspb.Watched{Id: id, Standing: record})
					id++
				}
				w.send(req)
				w.settle()
			}
			if st := alpha.Snapshot().Standing; st.Watched != n {
				b.Fatalf("%+v", st)
			}
			used := heap() - before
			for b.Loop() {
				alpha.judgeAgain(true)
			}
			b.ReportMetric(float64(used)/float64(n), "B/connection")
		})
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
