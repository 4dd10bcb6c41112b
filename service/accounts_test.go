package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// tableUsers is a user database of passwd lines, so that a test can have entries that no system should have.
type tableUsers struct {
	lines []userEntry
	err   error
	calls atomic.Int32
	hang  func(uid uint32) // called first
}

func (u *tableUsers) find(match func(userEntry) bool) (userEntry, error) {
	if u.err != nil {
		return userEntry{}, u.err
	}
	if i := slices.IndexFunc(u.lines, match); i >= 0 {
		return u.lines[i], nil
	}
	return userEntry{}, errNoUser
}

func (u *tableUsers) byUID(_ context.Context, uid uint32) (userEntry, error) {
	u.calls.Add(1)
	if u.hang != nil {
		u.hang(uid)
	}
	return u.find(func(e userEntry) bool { return e.uid == uid })
}

func (u *tableUsers) byName(_ context.Context, name string) (userEntry, error) {
	return u.find(func(e userEntry) bool { return e.name == name })
}

func (u *tableUsers) groups(_ context.Context, e userEntry, wanted []string) ([]string, error) {
	if e.name == "nogroups" {
		return nil, errors.New("broken")
	}
	return wanted[:1], nil
}

func TestRule17(t *testing.T) {
	lines := []userEntry{
		{"root", 0, 0},
		{"root", 5000, 5000},
		{"Alice", 1001, 1},
		{"alice", 1001, 1},
		{"Bob", 1002, 1},
		{"bob", 1003, 1},
		{"Carol", 1004, 1},
		{"a b", 1005, 1},
		{`CORP\dave`, 1006, 1},
		{`corp\dave`, 1006, 1},
		{"eve@corp", 1007, 1},
		{"ünal", 1008, 1},
		{"nogroups", 1009, 1},
	}
	for _, test := range []struct {
		uid     uint32
		domains bool
		name    string // empty: refused
		text    string
	}{
		{0, false, "root", ""},
		{5000, false, "", `uid 5000 is named "root", but that name is uid 0`},
		{1001, false, "alice", ""},
		{1002, false, "", `"Bob" of uid 1002 has capitals, and "bob" is not the same account`},
		{1003, false, "bob", ""},
		{1004, false, "", `"Carol" of uid 1004 has capitals`},
		{1005, false, "", "cannot be used"},
		{1006, false, "", "cannot be used"},
		{1006, true, `corp\dave`, ""},
		{1007, false, "", "cannot be used"},
		{1007, true, "eve@corp", ""},
		{1008, true, "", "cannot be used"},
		{4242, false, "", "uid 4242 has no name"},
	} {
		a := newAccounts(AccountOptions{AllowDomainAccounts: test.domains}, &tableUsers{lines: lines})
		acct, err := a.Lookup(t.Context(), test.uid)
		if acct.Name != test.name {
			t.Errorf("uid %d is %q, want %q: %v", test.uid, acct.Name, test.name, err)
		}
		if test.name == "" {
			wantReason(t, err, reason.LocalAccount, test.text)
		}
	}
	a := newAccounts(AccountOptions{Groups: []string{"g", "h"}}, &tableUsers{lines: lines})
	if acct, err := a.Lookup(t.Context(), 0); err != nil || !slices.Equal(acct.Groups, []string{"g"}) {
		t.Errorf("groups: %v, %v", acct, err)
	}
	_, err := a.Lookup(t.Context(), 1009)
	wantReason(t, err, reason.Internal, "groups")
	_, err = newAccounts(AccountOptions{}, &tableUsers{err: errors.New("LDAP is down")}).Lookup(t.Context(), 1)
	wantReason(t, err, reason.Internal, "LDAP is down")
	_, err = newAccounts(AccountOptions{}, oneWay{}).Lookup(t.Context(), 7)
	wantReason(t, err, reason.LocalAccount, "does not know that name")
	_, err = newAccounts(AccountOptions{}, oneWay{errors.New("LDAP is down")}).Lookup(t.Context(), 7)
	wantReason(t, err, reason.Internal, "LDAP is down")
}

// oneWay names every uid, and knows no name.
type oneWay struct{ err error }

func (oneWay) byUID(_ context.Context, uid uint32) (userEntry, error) {
	return userEntry{"x", uid, uid}, nil
}

func (o oneWay) byName(context.Context, string) (userEntry, error) {
	if o.err != nil {
		return userEntry{}, o.err
	}
	return userEntry{}, errNoUser
}

func (oneWay) groups(context.Context, userEntry, []string) ([]string, error) { return nil, nil }

func TestRule18Cache(t *testing.T) {
	src := &tableUsers{lines: []userEntry{{"a", 1, 1}}}
	a := newAccounts(AccountOptions{}, src)
	a.files = new(userFiles)
	for i := range a.lanes {
		a.lanes[i].rate = 0
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := a.Lookup(t.Context(), 1); err != nil {
				t.Error(err)
			}
			if _, err := a.Lookup(t.Context(), 2); err == nil {
				t.Error("uid 2 has a name")
			}
		})
	}
	wg.Wait()
	if n := src.calls.Load(); n != 2 {
		t.Errorf("%d lookups for 50 callers each of a good and a bad uid, want 2", n)
	}
	// An entry that is older than the deadline of a lookup is good as long as it is fresh.
	a.entries[1].began = time.Now().Add(-time.Hour)
	for range 1000 {
		if _, err := a.Lookup(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	a.fresh, a.stale = -1, 0
	a.entries = map[uint32]*accountEntry{}
	for range 2 {
		a.Lookup(t.Context(), 1)
	}
	if n := src.calls.Load(); n != 4 {
		t.Errorf("%d lookups, want that an aged entry is looked up again", n)
	}
	// Bounded: what has aged makes room; if nothing has, the caller is refused.
	a.refused = -1
	for uid := range uint32(accountsKept + 100) {
		a.Lookup(t.Context(), uid+10)
	}
	if len(a.entries) > accountsKept {
		t.Errorf("%d entries kept", len(a.entries))
	}
	a.refused = time.Hour
	for uid := range uint32(accountsKept + 1) {
		a.Lookup(t.Context(), uid+10_000)
	}
	// Refusals make room, however fresh, so that a user's many subordinate uids keep nobody out; what has a name, or is
	// still being looked up, does not.
	_, err := a.Lookup(t.Context(), 99_999)
	wantReason(t, err, reason.LocalAccount, "has no name")
	for uid := range uint32(accountsKept) {
		a.entries[uid+200_000] = &accountEntry{began: time.Now(), done: make(chan struct{})}
	}
	_, err = a.Lookup(t.Context(), 99_998)
	wantReason(t, err, reason.Internal, "already")
}

// A lookup that hangs delays its own uid only, once, and those stuck are bounded.
func TestRule18Hung(t *testing.T) {
	release := make(chan struct{})
	src := &tableUsers{lines: []userEntry{{"a", 1, 1}, {"b", 2, 2}}, hang: func(uid uint32) {
		if uid != 1 {
			<-release
		}
	}}
	a := newAccounts(AccountOptions{Timeout: 20 * time.Millisecond}, src)
	passwd := ""
	for uid := range 2 * lookupsAtOnce { // accounts of this machine, of which none has a name yet
		passwd += fmt.Sprintf("x:x:%d:1::/:\n", uid+100)
	}
	a.files = testUserFiles(t, passwd+"x:x:1000:1::/:\nb:x:2:2::/:\nc:x:3:3::/:\n", "")
	for range 3 {
		_, err := a.Lookup(t.Context(), 2)
		wantReason(t, err, reason.Internal, "did not name uid 2 within 20ms", "getent passwd 2")
	}
	until := func(calls int32) { // lookups begin in goroutines of their own, which read the timeout
		for src.calls.Load() != calls {
			time.Sleep(time.Millisecond)
		}
	}
	until(1)
	a.opts.Timeout = time.Minute
	if acct, err := a.Lookup(t.Context(), 1); err != nil || acct.Name != "a" {
		t.Errorf("another uid: %v, %v", acct, err)
	}
	if n := src.calls.Load(); n != 2 {
		t.Errorf("%d lookups, want that nobody asks again for one that hangs", n)
	}
	_, err := a.Lookup(canceled(), 3)
	wantReason(t, err, reason.Internal, "gave up")
	until(3)
	a.opts.Timeout = 20 * time.Millisecond
	for uid := range uint32(2 * lookupsAtOnce) {
		go a.Lookup(context.Background(), uid+100)
	}
	_, err = a.Lookup(t.Context(), 1000)
	wantReason(t, err, reason.Internal, "did not name")
	if n := src.calls.Load(); n > lookupsAtOnce+1 { // and that of uid 1, which ended
		t.Errorf("%d lookups are stuck", n)
	}
	close(release)
	for { // the entry of uid 2 is filled as soon as its lookup returns
		if acct, err := a.Lookup(t.Context(), 2); err == nil {
			if acct.Name != "b" {
				t.Errorf("uid 2 is %v", acct)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// testSource checks a source of the real system's users against the current user.
func testSource(t *testing.T, src userSource) {
	t.Helper()
	me, g := currentUser(t)
	uid, _ := strconv.ParseUint(me.Uid, 10, 32)
	gid, _ := strconv.ParseUint(me.Gid, 10, 32)
	want := userEntry{me.Username, uint32(uid), uint32(gid)}
	if got, err := src.byUID(t.Context(), want.uid); err != nil || got != want {
		t.Errorf("byUID: %v, %v, want %v", got, err, want)
	}
	if got, err := src.byName(t.Context(), want.name); err != nil || got != want {
		t.Errorf("byName: %v, %v, want %v", got, err, want)
	}
	if _, err := src.byUID(t.Context(), 3_999_999_999); !errors.Is(err, errNoUser) {
		t.Errorf("byUID of nobody: %v", err)
	}
	for _, name := range []string{"no-such-user", me.Uid} {
		if _, err := src.byName(t.Context(), name); !errors.Is(err, errNoUser) {
			t.Errorf("byName of %s: %v", name, err)
		}
	}
	if got, err := src.groups(t.Context(), want, []string{"no-such-group", g.Name}); err != nil ||
		!reflect.DeepEqual(got, []string{g.Name}) {
		t.Errorf("groups: %v, %v", got, err)
	}
}

func TestOSUsers(t *testing.T) { testSource(t, osUsers{}) }

func TestGetentUsers(t *testing.T) {
	path, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("this system has no getent")
	}
	testSource(t, getentUsers{path})
	testSource(t, helperUsers{varlink: "/nonexistent", getent: "getent"})
	testSource(t, helperUsers{varlink: "/nonexistent", getent: "no-getent"})

	fake := filepath.Join(t.TempDir(), "getent")
	for script, want := range map[string]string{
		"exit 3":            "exit status 3",
		"echo a:b":          "fewer than 4",
		"echo a:x:nought:1": "uid",
		"echo a:x:1:nought": "gid",
		"exec sleep 100":    "killed",
	} {
		if err := os.WriteFile(fake, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if !strings.HasPrefix(script, "exec") {
			ctx = t.Context()
		}
		if _, err := (getentUsers{fake}).byUID(ctx, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
		cancel()
	}
	if _, err := (getentUsers{fake}).groups(canceled(), userEntry{}, []string{"x"}); err == nil {
		t.Error("groups: no error")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// userdb answers as systemd-userdbd does, by its documented interface, from the current user's entry.
func userdb(t *testing.T, answer func(method string, p map[string]any) []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
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
				b := make([]byte, 4096)
				n, err := c.Read(b)
				if err != nil {
					return
				}
				var call struct {
					Method     string         `json:"method"`
					Parameters map[string]any `json:"parameters"`
				}
				if n == 0 || b[n-1] != 0 || json.Unmarshal(b[:n-1], &call) != nil ||
					call.Parameters["service"] != "io.systemd.Multiplexer" {
					t.Errorf("call %q", b[:n])
				}
				for _, r := range answer(strings.TrimPrefix(call.Method, "io.systemd.UserDatabase."), call.Parameters) {
					c.Write(append([]byte(r), 0))
				}
			}()
		}
	}()
	return path
}

func TestVarlinkUsers(t *testing.T) {
	me, g := currentUser(t)
	const none = `{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}`
	path := userdb(t, func(method string, p map[string]any) []string {
		switch {
		case method == "GetUserRecord" && (fmt.Sprint(p["uid"]) == me.Uid || p["userName"] == me.Username):
			return []string{fmt.Sprintf(`{"parameters":{"record":{"userName":%q,"uid":%s,"gid":%s},"incomplete":false}}`, me.Username, me.Uid, me.Gid)}
		case method == "GetMemberships":
			return []string{fmt.Sprintf(`{"parameters":{"userName":%q,"groupName":"one"},"continues":true}`,
				me.Username),
				fmt.Sprintf(`{"parameters":{"userName":%q,"groupName":"two"}}`, me.Username)}
		case method == "GetGroupRecord":
			return []string{fmt.Sprintf(`{"parameters":{"record":{"groupName":%q,"gid":%s}}}`, g.Name, me.Gid)}
		}
		return []string{none}
	})
	testSource(t, varlinkUsers{path})
	testSource(t, helperUsers{varlink: path})
	got, err := varlinkUsers{path}.groups(t.Context(), userEntry{name: me.Username}, []string{"three", "two", "one"})
	if err != nil || !slices.Equal(got, []string{"two", "one"}) {
		t.Errorf("groups: %v, %v", got, err)
	}
	for reply, want := range map[string]string{
		`{"error":"io.systemd.UserDatabase.ServiceNotAvailable"}`: "ServiceNotAvailable",
		`{"parameters":{"record":{"uid":1}}}`:                     "no name",
		`{"parameters":{"record":{"userName":"x","uid":"1"}}}`:    "reply",
		`{`: "reply",
		`{"parameters":{"record":{"userName":"other","uid":2}}}`: errNoUser.Error(),
	} {
		bad := userdb(t, func(string, map[string]any) []string { return []string{reply} })
		if _, err := (varlinkUsers{bad}).byUID(t.Context(), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", reply, err, want)
		}
	}
	silent := userdb(t, func(string, map[string]any) []string { return nil })
	if _, err := (varlinkUsers{silent}).groups(t.Context(), userEntry{}, []string{"x"}); err == nil {
		t.Error("a connection that ends without reply gave no error")
	}
	if _, err := (varlinkUsers{"/nonexistent"}).byName(t.Context(), "x"); err == nil {
		t.Error("no error without a socket")
	}
}
