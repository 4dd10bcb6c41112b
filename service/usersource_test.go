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
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

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
	if got, err := src.uidOf(t.Context(), want.name); err != nil || got != want.uid {
		t.Errorf("uidOf: %v, %v, want %v", got, err, want)
	}
	if _, err := src.byUID(t.Context(), 3_999_999_999); !errors.Is(err, errNoUser) {
		t.Errorf("byUID of nobody: %v", err)
	}
	if _, err := src.uidOf(t.Context(), "no-such-user"); !errors.Is(err, errNoUser) {
		t.Errorf("uidOf nobody: %v", err)
	}
	if got, err := groupsOf(t, src, want, "no-such-group", me.Gid, g.Name); err != nil || !slices.Equal(got, []string{g.Name}) {
		t.Errorf("groups: %v, %v", got, err)
	}
}

// groupsOf returns those groups that u is a member of.
func groupsOf(t *testing.T, src userSource, u userEntry, wanted ...string) ([]string, error) {
	ask := func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }
	return resolver{src, newUserFiles(), AccountOptions{Groups: wanted}, ask}.groups(u)
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
	if _, err := (getentUsers{fake}).gids(canceled(), userEntry{}); err == nil {
		t.Error("gids: no error")
	}
	for _, dash := range []string{"-h", "--help"} {
		if _, err := (getentUsers{path}).uidOf(t.Context(), dash); !errors.Is(err, errNoUser) {
			t.Errorf("an option as a name: %v", err)
		}
	}
}

// A directory that compares names without regard to case, asked by the real getent through the C library.
func TestRule17NamesInAnyCase(t *testing.T) {
	getent := directory(t)
	for uid, want := range map[uint32]string{70001: `example\alice`, 70002: "bob", 70003: "carol", 70004: "dave", 70005: ""} {
		a := newAccounts(AccountOptions{AllowDomainAccounts: true}, helperUsers{varlink: "/nonexistent", getent: getent})
		acct, err := a.Lookup(t.Context(), uid)
		if acct.Name != want {
			t.Errorf("uid %d is %q, want %q: %v", uid, acct.Name, want, err)
		}
		if want == "" {
			wantReason(t, err, reason.LocalAccount, "it is the name of uid 70004")
		}
	}
}

// The groups of a directory: in any case, with spaces, the primary one, and more than os/user takes.
func TestGroupsOfADirectory(t *testing.T) {
	src := getentUsers{directory(t)}
	got, err := groupsOf(t, src, userEntry{"Bob", 70002, 80002}, "domain users", "everybody", "no-such", "staff")
	if err != nil || !slices.Equal(got, []string{"domain users", "everybody"}) {
		t.Errorf("groups: %v, %v", got, err)
	}
	if gids, err := src.gids(t.Context(), userEntry{name: "Bob"}); err != nil || len(gids) < 5000 {
		t.Errorf("%d groups, %v", len(gids), err)
	}
	if gid, err := src.gidOf(t.Context(), "domain users"); err != nil || gid != 80000 {
		t.Errorf("gid %d, %v", gid, err)
	}
}

// directory returns a getent that asks testdata/nss.c and nothing else.
func directory(t *testing.T) string {
	t.Helper()
	real, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("this system has no getent")
	}
	dir := t.TempDir()
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", dir+"/libnss_altsdtest.so.2", "testdata/nss.c").CombinedOutput(); err != nil {
		t.Skipf("no C compiler for the directory: %v %s", err, out)
	}
	script := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s -s altsdtest \"$@\"\n", dir, real)
	if err := os.WriteFile(dir+"/getent", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir + "/getent"
}

// A name of digits alone is what getent takes for a uid, and id, where there is no such name, as well.
func TestNamesOfDigits(t *testing.T) {
	path, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("this system has no getent")
	}
	g := getentUsers{path}
	if uid, err := g.uidOf(t.Context(), "0"); err != nil || uid != 0 {
		t.Errorf("the name 0 leads to %d, %v", uid, err)
	}
	if _, err := g.uidOf(t.Context(), "03999999999"); !errors.Is(err, errNoUser) {
		t.Errorf("a number without a name: %v", err)
	}
	if _, err := g.gidOf(t.Context(), "0"); !errors.Is(err, errNoUser) {
		t.Errorf("the group 0: %v", err)
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := g.uidOf(t.Context(), "0"); !errors.Is(err, errCannotAsk) {
		t.Errorf("without id: %v", err)
	}
	src := &tableUsers{lines: []userEntry{{"00123456", 7, 7}, {"00123456", 8, 7}}}
	if acct, err := newAccounts(AccountOptions{}, src).Lookup(t.Context(), 7); err != nil || acct.Name != "00123456" {
		t.Errorf("%v, %v", acct, err)
	}
	_, err = newAccounts(AccountOptions{}, src).Lookup(t.Context(), 8)
	wantReason(t, err, reason.LocalAccount, "a name of digits alone is taken for a uid")
}

// musl's getent has neither options nor initgroups (testdata/musl-getent stands for it, and says how).
func TestMuslGetent(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("testdata/musl-getent")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"getent": string(script),
		"passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/:\n",
		"group":  "root:x:0:\nwheel:x:10:root,alice\nstaff:x:50:alicex\ndomain users:x:60:alice\nalice:x:1000:\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	src := getentUsers{dir + "/getent"}
	acct, err := newAccounts(AccountOptions{Groups: []string{"alice", "domain users", "none", "root", "staff", "wheel"}}, src).Lookup(t.Context(), 1000)
	if err != nil || acct.Name != "alice" || !slices.Equal(acct.Groups, []string{"alice", "domain users", "wheel"}) {
		t.Errorf("%v, %v", acct, err)
	}
	if gid, err := src.gidOf(t.Context(), "staff"); err != nil || gid != 50 {
		t.Errorf("staff: %d, %v", gid, err)
	}
	if _, err := src.byUID(t.Context(), 1001); !errors.Is(err, errNoUser) {
		t.Errorf("byUID of nobody: %v", err)
	}
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
	go testnet.ServeEach(l, func(c net.Conn) {
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
	})
	return path
}

func TestVarlinkUsers(t *testing.T) {
	me, g := currentUser(t)
	const conflict = `{"error":"io.systemd.UserDatabase.ConflictingRecordFound","parameters":{}}`
	const none = `{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}`
	path := userdb(t, func(method string, p map[string]any) []string {
		switch {
		case method == "GetUserRecord" && (fmt.Sprint(p["uid"]) == me.Uid || p["userName"] == me.Username):
			return []string{fmt.Sprintf(`{"parameters":{"record":{"userName":%q,"uid":%s,"gid":%s},"incomplete":false}}`, me.Username, me.Uid, me.Gid)}
		case method == "GetUserRecord" && p["userName"] == "bob":
			return []string{conflict}
		case method == "GetMemberships" && (p["groupName"] == "one" || p["groupName"] == "two"):
			return []string{fmt.Sprintf(`{"parameters":{"userName":"other","groupName":%q},"continues":true}`, p["groupName"]),
				fmt.Sprintf(`{"parameters":{"userName":%q,"groupName":%q}}`, me.Username, p["groupName"])}
		case method == "GetGroupRecord" && p["groupName"] == g.Name:
			return []string{fmt.Sprintf(`{"parameters":{"record":{"groupName":%q,"gid":%s}}}`, g.Name, me.Gid)}
		case method == "GetGroupRecord" && slices.Contains([]any{"one", "two", "three"}, p["groupName"]):
			return []string{`{"parameters":{"record":{"groupName":"x","gid":4200000}}}`}
		}
		return []string{none}
	})
	testSource(t, varlinkUsers{path})
	testSource(t, helperUsers{varlink: path})
	testSource(t, helperUsers{varlink: path, getent: "getent"})
	got, err := groupsOf(t, varlinkUsers{path}, userEntry{name: me.Username, gid: 4_300_000}, "three", "two", "one")
	if err != nil || !slices.Equal(got, []string{"two", "one"}) {
		t.Errorf("groups: %v, %v", got, err)
	}
	// What userdbd fails at, getent is asked for, and the files' ignorance counts for nothing.
	failing := userdb(t, func(string, map[string]any) []string {
		return []string{`{"error":"io.systemd.System","parameters":{"errno":22}}`}
	})
	if u, err := (helperUsers{varlink: failing, getent: directory(t)}).byUID(t.Context(), 70002); err != nil || u.name != "Bob" {
		t.Errorf("userdbd fails: %v, %v", u, err)
	}
	if _, err := (helperUsers{varlink: failing, getent: "no-getent"}).byUID(t.Context(), 3_999_999_999); !errors.Is(err, errFailed) {
		t.Errorf("userdbd fails, and there is no getent: %v", err)
	}
	// What userdbd has in another spelling, getent is asked for; without one, the files.
	if uid, err := (helperUsers{varlink: path, getent: directory(t)}).uidOf(t.Context(), "bob"); err != nil || uid != 70002 {
		t.Errorf("bob is %d, %v", uid, err)
	}
	if _, err := (varlinkUsers{path}).uidOf(t.Context(), "bob"); !errors.Is(err, errCannotAsk) {
		t.Errorf("bob: %v", err)
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
	if _, err := (varlinkUsers{silent}).lists(t.Context(), userEntry{}, "x"); err == nil || errors.Is(err, errCannotAsk) {
		t.Errorf("a connection that ends without reply gave %v", err)
	}
	if _, err := (varlinkUsers{"/nonexistent"}).uidOf(t.Context(), "x"); !errors.Is(err, errCannotAsk) {
		t.Errorf("without a socket: %v", err)
	}
}
