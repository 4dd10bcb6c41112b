package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// namedUsers is a user database of which a test changes what it says of a name, and that says nothing of uids.
type namedUsers struct {
	tableUsers
	asked atomic.Int32
	say   func(ctx context.Context) error // whether there is the name
}

func (n *namedUsers) byUID(context.Context, uint32) (userEntry, error) {
	return userEntry{}, errors.New("a uid was asked for")
}

func (n *namedUsers) uidOf(ctx context.Context, _ string) (uint32, error) {
	n.asked.Add(1)
	return 7, n.say(ctx)
}

// A name that a socket gives out is nobody's, in whatever spelling, or it is not given out.
func TestRule50NamesOfNobody(t *testing.T) {
	conflict := userdb(t, func(string, map[string]any) []string {
		return []string{`{"error":"io.systemd.UserDatabase.ConflictingRecordFound"}`}
	})
	none := userdb(t, func(string, map[string]any) []string {
		return []string{`{"error":"io.systemd.UserDatabase.NoRecordFound"}`}
	})
	failing := userdb(t, func(string, map[string]any) []string { return []string{`{"error":"io.systemd.System"}`} })
	for _, test := range []struct {
		name   string
		src    userSource
		passwd string
		code   reason.Code
		text   string
	}{
		{"nobody", &tableUsers{lines: []userEntry{{"greeter", 1, 1}}}, "", reason.Accepted, ""},
		{"somebody", &tableUsers{lines: []userEntry{{"greeter+", 1, 1}}}, "", reason.LocalAccount, `has an account "greeter+" by now`},
		{"in another spelling", &tableUsers{lines: []userEntry{{"Greeter+", 1, 1}}, fold: true}, "", reason.LocalAccount, "give the socket another name"},
		{"in another spelling of /etc/passwd", &tableUsers{}, "GREETER+:x:1:1::/:\n", reason.LocalAccount, `has an account "GREETER+" by now`},
		{"in another spelling of systemd-userdbd", helperUsers{varlink: conflict, getent: "no-getent"}, "", reason.LocalAccount, "by now"},
		{"in another spelling of systemd-userdbd, which getent does not know", helperUsers{varlink: conflict, getent: "getent"}, "", reason.LocalAccount, "by now"},
		{"nobody, by systemd-userdbd", helperUsers{varlink: none, getent: "no-getent"}, "", reason.Accepted, ""},
		{"systemd-userdbd fails, and there is no getent", helperUsers{varlink: failing, getent: "no-getent"}, "", reason.Internal, "failed for the account"},
		{"nobody, by the system's", newUserSource(), "", reason.Accepted, ""},
		{"the database fails", &tableUsers{err: errors.New("LDAP is down")}, "", reason.Internal, "LDAP is down"},
		{"the database cannot tell", &tableUsers{err: errCannotAsk}, "", reason.Internal, "cannot be asked"},
	} {
		a := newAccounts(AccountOptions{}, test.src)
		a.files = testUserFiles(t, test.passwd, "")
		err := a.vacant(t.Context(), "greeter+")
		if test.code == reason.Accepted {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		t.Run(test.name, func(t *testing.T) { wantReason(t, err, test.code, test.text) })
	}
}

// A directory gains the name, loses it, and falls silent: each is known within the time of a name of a uid, and a
// silence of a minute refuses.
func TestRule50LaterInTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		say := errNoUser
		src := &namedUsers{say: func(context.Context) error { return say }}
		a := newAccounts(AccountOptions{}, src)
		a.files = new(userFiles)
		const minute = accountFresh + accountStale + time.Second
		// settled asks twice: the first finds that what was known has aged, and asks for it again.
		settled := func() error {
			a.vacant(t.Context(), "greeter+")
			synctest.Wait()
			return a.vacant(t.Context(), "greeter+")
		}
		if err := settled(); err != nil || src.asked.Load() != 1 || !a.vacantReady("greeter+") {
			t.Fatalf("%v, asked %d times", err, src.asked.Load())
		}
		say = nil
		time.Sleep(accountFresh + time.Second)
		if err := a.vacant(t.Context(), "greeter+"); err != nil {
			t.Errorf("while it is asked for again: %v", err)
		}
		synctest.Wait()
		wantReason(t, a.vacant(t.Context(), "greeter+"), reason.LocalAccount, "by now")
		say = errNoUser
		time.Sleep(accountRefused + time.Second)
		if err := settled(); err != nil {
			t.Errorf("once the account is gone: %v", err)
		}
		a.LookFor([]string{"wheel"}) // which is no question about a name
		if !a.vacantReady("greeter+") {
			t.Error("it is not known at once when a policy asks about another group")
		}
		say = errors.New("LDAP is down")
		time.Sleep(accountFresh + time.Second)
		if err := settled(); err != nil || !a.vacantReady("greeter+") {
			t.Errorf("the first half of a minute of silence: %v", err)
		}
		time.Sleep(minute)
		wantReason(t, settled(), reason.Internal, "LDAP is down")
	})
}

// A database that hangs delays a socket's own callers, once, and no account, whose names it tells; nor do accounts that
// hang delay a socket.
func TestRule50Hung(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	src := &namedUsers{say: func(context.Context) error { <-release; return errNoUser }}
	a := newAccounts(AccountOptions{Timeout: 20 * time.Millisecond}, src)
	a.files = new(userFiles)
	for range 3 {
		wantReason(t, a.vacant(t.Context(), "greeter+"), reason.Internal, `did not say whether there is an account "greeter+" within 20ms`, "getent passwd greeter+")
	}
	wantReason(t, a.vacant(canceled(), "greeter+"), reason.Internal)
	if n := src.asked.Load(); n != 1 {
		t.Errorf("%d queries, want that nobody asks again while one hangs", n)
	}
	_, err := a.Lookup(t.Context(), 1)
	wantReason(t, err, reason.Internal, "a uid was asked for")

	stuck := newAccounts(AccountOptions{Timeout: time.Minute}, &tableUsers{hang: func(uint32) { <-release }})
	passwd := ""
	for uid := range lookupsAtOnce {
		passwd += fmt.Sprintf("x:x:%d:1::/:\n", uid)
	}
	stuck.files = testUserFiles(t, passwd, "")
	for uid := range uint32(lookupsAtOnce) {
		stuck.Lookup(canceled(), uid)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := stuck.vacant(ctx, "greeter+"); err != nil {
		t.Errorf("beside %d accounts that hang: %v", lookupsAtOnce, err)
	}
}

// listenAs opens a further socket for that use.
func (d *daemon) listenAs(t testing.TB, u SocketUse) *daemon {
	t.Helper()
	path := filepath.Join(testprog.Dir(t), "s")
	u.Path = path
	k, err := d.NewSocket(u)
	if err != nil {
		t.Fatal(err)
	}
	testnet.Serve(t, path, func(l *net.UnixListener) error {
		serve, err := k.Take(l)
		if err != nil {
			return err
		}
		return serve()
	}, d.Shutdown)
	return &daemon{Server: d.Server, socket: path, records: d.records, logs: d.logs}
}

// Whoever of its uids calls, an account's socket speaks for that account: no uid, no group, the label and never the path.
func TestRule50SocketAccount(t *testing.T) {
	me := uint32(os.Geteuid())
	uids := UIDRanges{{me, me + 10}}
	_, group := currentUser(t)
	say := atomic.Pointer[error]{}
	say.Store(&errNoUser)
	src := &namedUsers{say: func(context.Context) error { return *say.Load() }}
	accounts := newAccounts(AccountOptions{Groups: []string{group.Name}}, src)
	accounts.files = new(userFiles)
	accounts.fresh, accounts.stale, accounts.refused = -1, 0, -1
	d := startDaemon(t, "beta.test", Config{Accounts: accounts, PublishGroups: []string{group.Name}, ServerAccounts: []string{"same"}})
	blue := d.listenAs(t, SocketUse{UIDs: uids, Account: "greeter+", Label: "blue"})
	plain := d.listenAs(t, SocketUse{UIDs: uids, Account: "greeter+"})

	toServer := clientStart(func(r *altspb.StartClientHandshakeReq) {
		r.LocalIdentity, r.TargetIdentities, r.TargetName = accountID("Greeter+@beta.test"), nil, "beta.test"
	})
	client, server := join(t, open(t, blue, ""), open(t, plain, ""), toServer, serverStart(nil, func(r *altspb.StartServerHandshakeReq) {
		r.HandshakeParameters[2].LocalIdentities = []*altspb.Identity{accountID("greeter+@beta.test"), hostnameID("beta.test")}
	}), 1<<20)
	for _, got := range []struct {
		who  string
		id   *altspb.Identity
		want map[string]string
	}{
		{"the client, to the server", server.PeerIdentity, map[string]string{"user": "greeter+", "machine": "beta.test", "socket": "blue"}},
		{"the client, to itself", client.LocalIdentity, map[string]string{"user": "greeter+", "machine": "beta.test", "socket": "blue"}},
		{"the server, which has no label", client.PeerIdentity, map[string]string{"user": "greeter+", "machine": "beta.test"}},
	} {
		if got.id.GetServiceAccount() != "greeter+@beta.test" || !maps.Equal(got.id.Attributes, got.want) {
			t.Errorf("%s: %v", got.who, got.id)
		}
	}
	for range 2 {
		r := d.record(t)
		want := map[Role]string{Initiator: "blue", Responder: plain.socket}[r.Role]
		if r.Local != "greeter+@beta.test" || r.UID != me || r.Socket != want {
			t.Errorf("the record: %+v", r)
		}
	}
	if log := d.logs.String(); !strings.Contains(log, "socket=blue") || !strings.Contains(log, fmt.Sprintf("local=greeter+@beta.test uid=%d", me)) {
		t.Errorf("the log: %s", log)
	}
	_, err := open(t, blue, "").do(clientStart(func(r *altspb.StartClientHandshakeReq) { r.LocalIdentity = accountID("root@beta.test") }))
	wantErr(t, err, codes.PermissionDenied, "local_account", "it runs as greeter+@beta.test")
	d.record(t)
	if isRoot() {
		if got := as(t, me+1, blue.socket); got != "<nil>\n" {
			t.Errorf("another uid of the socket: %s", got)
		}
		if r := d.record(t); r.Local != "greeter+@beta.test" || r.UID != me+1 {
			t.Errorf("its record: %+v", r)
		}
		if got := as(t, me+11, blue.socket); !strings.Contains(got, "may not use this socket") {
			t.Errorf("a uid that is not the socket's: %s", got)
		}
		d.record(t)
	}
	// By the interface that hands sockets over it is the same.
	a, b := both(t, greet(t, blue.socket), greet(t, plain.socket), toServer, serverStart(nil, nil))
	if a.GetResult().GetPeerIdentity().GetServiceAccount() != "greeter+@beta.test" || b.GetResult().GetPeerIdentity().GetAttributes()["socket"] != "blue" {
		t.Errorf("sockets handed over: %v, %v", a, b)
	}

	// The name appears, and later nobody answers.
	say.Store(new(error))
	_, err = open(t, blue, "").do(clientStart(nil))
	wantErr(t, err, codes.PermissionDenied, "local_account", `has an account "greeter+" by now`)
	down := errors.New("LDAP is down")
	say.Store(&down)
	_, err = open(t, blue, "").do(clientStart(nil))
	wantErr(t, err, codes.Internal, "internal", "LDAP is down")
}

// A database that cannot say of a name whether it has it lets no socket give it out.
func TestRule50DatabaseWithoutNames(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Accounts: named("somebody")})
	me := uint32(os.Geteuid())
	_, err := open(t, d.listenAs(t, SocketUse{UIDs: UIDRanges{{me, me}}, Account: "greeter+"}), "").do(clientStart(nil))
	wantErr(t, err, codes.Internal, "internal", "cannot say whether")
	if _, err := d.NewSocket(SocketUse{Account: "greeter+"}); err == nil {
		t.Error("a socket for everybody gives an account out")
	}
}

func TestRule50SocketUse(t *testing.T) {
	u, err := ParseSocketUse("uids=61184-65519+7,account=Greeter+,label=blue-1")
	if err != nil || u.Account != "greeter+" || u.Label != "blue-1" || len(u.UIDs) != 2 || u.name() != "blue-1" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := ParseSocketUse("uids=1,label=a,account=b"); err != nil || u.Account != "b" || u.Label != "a" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := ParseSocketUse("uids=1"); err != nil || u.Account != "" {
		t.Errorf("%+v, %v", u, err)
	}
	long, domain := strings.Repeat("a", 33), strings.Repeat("a", 129)
	for s, want := range map[string]string{
		"":                                "first must be uids",
		"account=greeter+":                "first must be uids",
		"uids=x,account=greeter+":         "must be N or N-M",
		"uids=1,account=":                 "is empty, or there twice",
		"uids=1,account=a,account=b":      "is empty, or there twice",
		"uids=1,uids=2":                   "there may be account=NAME",
		"uids=1,accounts=a":               "there may be account=NAME",
		"uids=1,label=a":                  "label= stands beside account= alone",
		"uids=1,account=1000":             "a name of digits alone",
		"uids=1,account=+a":               "cannot be anybody",
		"uids=1,account=a b":              "cannot be anybody",
		"uids=1,account=a,label=A":        "a to z, 0 to 9 and -",
		"uids=1,account=a,label=/run/x":   "a to z, 0 to 9 and -",
		"uids=1,account=a,label=" + long:  "1 to 32 of",
		"uids=1,account=" + domain:        "cannot be anybody",
		"uids=1,account=a,label=b,x":      "there may be account=NAME",
		"uids=1,account=a,label=b,label=": "is empty, or there twice",
	} {
		if _, err := ParseSocketUse(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	if u := (SocketUse{UIDs: UIDRanges{{1, 1}}, Account: "a@corp"}); u.Check(true) != nil || u.Check(false) == nil {
		t.Error("an account of a domain")
	}
}

// What is read as the use of a socket is one that Check finds good, and whose names stand in statements as they are.
func FuzzSocketUse(f *testing.F) {
	for _, s := range []string{"uids=1", "uids=1-2+7,account=greeter+,label=blue", "uids=1,label=a", "uids=,account=a", "account=a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseSocketUse(s)
		if err != nil {
			return
		}
		if u.UIDs == nil || u.Check(true) != nil || len(u.Label) > maxLabel || strings.ContainsAny(u.Label+u.Account, "/:, \n") {
			t.Fatalf("%q: %+v", s, u)
		}
	})
}
