package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// testUserFiles returns files of these contents.
func testUserFiles(t *testing.T, passwd, subuid string) *userFiles {
	t.Helper()
	dir := t.TempDir()
	f := &userFiles{passwd: filepath.Join(dir, "passwd"), subuid: filepath.Join(dir, "subuid")}
	if err := errors.Join(os.WriteFile(f.passwd, []byte(passwd), 0o600), os.WriteFile(f.subuid, []byte(subuid), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUserFiles(t *testing.T) {
	f := testUserFiles(t, "root:x:0:0::/root:/bin/sh\nbroken\na:x:nought:1::/:\nbob:x:1001:1::/:\n",
		"bob:100000:65536\nbroken:1\nx:y:z\neve:4294967295:2\n")
	for uid, want := range map[uint32]uidClass{0: known, 1001: known, 1002: stranger, 99_999: stranger, 100_000: subordinate,
		165_535: subordinate, 165_536: stranger, 1<<32 - 1: stranger} {
		if got := f.class(uid); got != want {
			t.Errorf("uid %d is of class %d, want %d", uid, got, want)
		}
	}
	if err := os.WriteFile(f.passwd, []byte("carol:x:1002:1::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f.class(1002) != stranger {
		t.Error("the files are looked at again at once")
	}
	f.looked = time.Time{}
	if f.class(1002) != known || f.class(1001) != stranger {
		t.Error("a change of the file is not seen")
	}
	if err := os.Remove(f.passwd); err != nil {
		t.Fatal(err)
	}
	f.looked = time.Time{}
	if f.class(1002) != stranger || f.class(100_000) != subordinate {
		t.Error("a file that is gone still counts, or takes the other with it")
	}
}

// Rule 36: 65536 uids without a name cost a bounded number of lookups, and those that hang, of however many uids that
// never had a name, keep no account out: neither one of /etc/passwd nor one that had a name before.
func TestRule36LookupsOfStrangers(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	src := &tableUsers{lines: []userEntry{{"alice", 1001, 1}, {"ldap", 5000, 1}, {"late", 5001, 1}}, hang: func(uid uint32) {
		if uid >= 100_000 {
			<-release
		}
	}}
	a := newAccounts(AccountOptions{Timeout: time.Minute}, src)
	a.files = testUserFiles(t, "alice:x:1001:1::/:\n", "eve:100000:65536\n")
	a.fresh, a.stale = -1, 0
	named := func(uid uint32, name string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if acct, err := a.Lookup(ctx, uid); err != nil || acct.Name != name {
			t.Errorf("uid %d: %v, %v", uid, acct, err)
		}
	}
	named(5000, "ldap")
	before := src.calls.Load()
	refused := 0
	for uid := range uint32(65536) {
		if _, err := a.Lookup(canceled(), 100_000+uid); reason.Of(err) == reason.Overloaded {
			refused++
		}
	}
	if refused < 65000 {
		t.Errorf("%d of 65536 lookups were refused", refused)
	}
	named(1001, "alice")
	named(5000, "ldap")
	named(5001, "late") // subordinate uids have a pool of their own
	for uid := range uint32(1000) {
		a.Lookup(canceled(), 200_000+uid) // and so has the rest
	}
	named(1001, "alice")
	named(5000, "ldap")
	if n := src.calls.Load() - before; n > 5+int32(pools[stranger].atOnce+pools[subordinate].atOnce) {
		t.Errorf("%d lookups began", n)
	}
	if !a.Known(1001) || !a.Known(5000) || a.Known(100_000) {
		t.Error("Known")
	}
}

// Rule 36: a name that has aged serves while it is asked for again, and while the database fails, for a bounded time; an
// answer that there is no such account ends it at once.
func TestRule36StaleNames(t *testing.T) {
	var fails, hangs atomic.Bool
	release := make(chan struct{})
	src := &changing{name: "alice", before: func() error {
		if hangs.Load() {
			<-release
		}
		if fails.Load() {
			return errors.New("LDAP is down")
		}
		return nil
	}}
	a := newAccounts(AccountOptions{Timeout: time.Minute}, src)
	a.fresh, a.refused = 0, 0
	lookup := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		acct, err := a.Lookup(ctx, 1)
		if err == nil && acct.Name != "alice" {
			err = fmt.Errorf("named %q", acct.Name)
		}
		return err
	}
	if a.Ready(1) {
		t.Error("a uid is ready that was not looked up")
	}
	if err := lookup(); err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	for range 2 { // what has aged serves, and so it does while it is asked for again
		if !a.Ready(1) {
			t.Error("a stale name is not ready")
		}
		if err := lookup(); err != nil {
			t.Errorf("while the name is asked for again: %v", err)
		}
	}
	hangs.Store(false)
	fails.Store(true)
	close(release)
	settle := func(want func(error) bool) error { // lookups go on behind the answers
		var err error
		for range 500 {
			if err = lookup(); want(err) {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return err
	}
	for range 20 {
		if err := lookup(); err != nil {
			t.Errorf("while the database fails: %v", err)
		}
	}
	a.stale = 0
	if err := settle(func(err error) bool { return reason.Of(err) == reason.Internal }); err != nil {
		t.Errorf("a name serves without end: %v", err)
	}
	fails.Store(false)
	a.stale = time.Hour
	if err := settle(func(err error) bool { return err == nil }); err != nil {
		t.Fatal(err)
	}
	src.gone.Store(true)
	if err := settle(func(err error) bool { return reason.Of(err) == reason.LocalAccount }); err != nil {
		t.Errorf("an account that is gone still serves: %v", err)
	}
}

// changing is a user database with one account, for a time.
type changing struct {
	name   string
	before func() error
	gone   atomic.Bool
}

func (c *changing) byUID(context.Context, uint32) (userEntry, error) {
	if err := c.before(); err != nil {
		return userEntry{}, err
	}
	if c.gone.Load() {
		return userEntry{}, errNoUser
	}
	return userEntry{c.name, 1, 1}, nil
}

func (c *changing) uidOf(context.Context, string) (uint32, error) { return 1, nil }

func (c *changing) gidOf(context.Context, string) (uint32, error) { return 10, nil }

func (c *changing) gids(context.Context, userEntry) ([]uint32, error) {
	return []uint32{10}, c.before()
}

func (c *changing) lists(context.Context, userEntry, string) (bool, error) { return false, nil }
