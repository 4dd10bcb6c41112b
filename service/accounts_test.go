package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// tableUsers is a user database of passwd lines, so that a test can have entries that no system should have.
type tableUsers struct {
	lines []userEntry
	fold  bool // names are the same in any case, as SSSD and winbind have them
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

func (u *tableUsers) uidOf(_ context.Context, name string) (uint32, error) {
	e, err := u.find(func(e userEntry) bool { return e.name == name || u.fold && strings.EqualFold(e.name, name) })
	return e.uid, err
}

// The groups g and h are 10 and 11; everybody but noGroups is in g and, by its own list, in "by list".
func (u *tableUsers) gidOf(_ context.Context, group string) (uint32, error) {
	if gid := slices.Index([]string{"g", "h", "by list"}, group); gid >= 0 {
		return uint32(10 + gid), nil
	}
	return 0, errNoUser
}

func (u *tableUsers) gids(_ context.Context, e userEntry) ([]uint32, error) {
	if e.name == "nogroups" {
		return nil, errors.New("broken")
	}
	return []uint32{10}, nil
}

func (u *tableUsers) lists(_ context.Context, _ userEntry, group string) (bool, error) {
	return group == "by list", nil
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
		uid           uint32
		domains, fold bool
		name          string // empty: refused
		text          string
	}{
		{0, false, false, "root", ""},
		{5000, false, false, "", `uid 5000 is named "root", but that name is uid 0`},
		{1001, false, false, "alice", ""},
		{1002, false, false, "", `"Bob" of uid 1002 has capitals, and in lower case, as peers see it, it is the name of uid 1003; rename`},
		{1003, false, false, "bob", ""},
		{1004, false, false, "", `"Carol" of uid 1004 has capitals, and the user database`},
		{1005, false, false, "", "cannot be used"},
		{1006, false, false, "", "cannot be used"},
		{1006, true, false, `corp\dave`, ""},
		{1007, false, false, "", "cannot be used"},
		{1007, true, false, "eve@corp", ""},
		{1008, true, false, "", "cannot be used"},
		{4242, false, false, "", "uid 4242 has no name"},
		// Where the database takes names in any case, the lower-case name is that of one uid all the same.
		{1004, false, true, "carol", ""},
		{1006, true, true, `corp\dave`, ""},
		{1002, false, true, "bob", ""},
		{1003, false, true, "", `uid 1003 is named "bob", but that name is uid 1002`},
		{5000, false, true, "", `uid 5000 is named "root", but that name is uid 0`},
	} {
		a := newAccounts(AccountOptions{AllowDomainAccounts: test.domains}, &tableUsers{lines: lines, fold: test.fold})
		acct, err := a.Lookup(t.Context(), test.uid)
		if acct.Name != test.name {
			t.Errorf("uid %d is %q, want %q: %v", test.uid, acct.Name, test.name, err)
		}
		if test.name == "" {
			wantReason(t, err, reason.LocalAccount, test.text)
		}
	}
	a := newAccounts(AccountOptions{Groups: []string{"By List", "G", "h", "none"}}, &tableUsers{lines: lines})
	if acct, err := a.Lookup(t.Context(), 0); err != nil || !slices.Equal(acct.Groups, []string{"by list", "g"}) {
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

func (o oneWay) uidOf(context.Context, string) (uint32, error) {
	if o.err != nil {
		return 0, o.err
	}
	return 0, errNoUser
}

func (oneWay) gidOf(context.Context, string) (uint32, error)          { return 0, errNoUser }
func (oneWay) gids(context.Context, userEntry) ([]uint32, error)      { return nil, nil }
func (oneWay) lists(context.Context, userEntry, string) (bool, error) { return false, nil }

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
	a.entries[1].ends.Store(0)
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
		a.entries[uid+200_000] = &accountEntry{done: make(chan struct{})}
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

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Each query of a lookup has its own time; and a lookup that takes long is for nothing but the first handshake, since
// what was found serves, groups and all, while it is asked for again.
func TestRule36SlowDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &slowUsers{tableUsers: tableUsers{lines: []userEntry{{"alice", 1, 1}}}, takes: 3 * time.Second}
		a := newAccounts(AccountOptions{Groups: []string{"g", "h"}}, src)
		a.files = new(userFiles)
		first := time.Now()
		for round := range 5 {
			began := time.Now()
			acct, err := a.Lookup(t.Context(), 1)
			if err != nil || acct.Name != "alice" || !slices.Equal(acct.Groups, []string{"g"}) {
				t.Fatalf("round %d: %v, %v", round, acct, err)
			}
			if took := time.Since(began); round > 0 && took > 0 {
				t.Errorf("round %d took %v", round, took)
			}
			time.Sleep(40 * time.Second)
		}
		if src.calls.Load() < 4 || time.Since(first) < 200*time.Second {
			t.Errorf("%d lookups", src.calls.Load())
		}
		synctest.Wait()
		src.takes = 6 * time.Second
		time.Sleep(time.Minute)
		_, err := a.Lookup(t.Context(), 1)
		wantReason(t, err, reason.Internal, "did not name uid 1 within 5s")
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

// slowUsers takes its time for each query.
type slowUsers struct {
	tableUsers
	takes time.Duration
}

func (s *slowUsers) wait(ctx context.Context) error {
	select {
	case <-time.After(s.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	if err := s.wait(ctx); err != nil {
		return userEntry{}, err
	}
	return s.tableUsers.byUID(ctx, uid)
}

func (s *slowUsers) uidOf(ctx context.Context, name string) (uint32, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.tableUsers.uidOf(ctx, name)
}

func (s *slowUsers) gids(ctx context.Context, u userEntry) ([]uint32, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.tableUsers.gids(ctx, u)
}
