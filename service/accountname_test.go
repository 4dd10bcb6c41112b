package service

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestAccountNamed(t *testing.T) {
	me, g := currentUser(t)
	uid, _ := strconv.ParseUint(me.Uid, 10, 32)
	acct, err := AccountNamed(t.Context(), strings.ToUpper(me.Username[:1])+me.Username[1:], AccountOptions{Groups: []string{g.Name, "no-such-group"}})
	if err != nil || acct.UID != uint32(uid) || acct.Name != me.Username || len(acct.Groups) != 1 || acct.Groups[0] != g.Name {
		t.Errorf("%+v, %v", acct, err)
	}
	if _, err := AccountNamed(t.Context(), "no-such-user", AccountOptions{}); !errors.Is(err, ErrNoAccount) ||
		!strings.Contains(err.Error(), `no account "no-such-user" in the user database (`) {
		t.Error(err)
	}
	for name, want := range map[string]bool{g.Name: true, "no-such-group": false} {
		if has, err := HasGroup(name); has != want || err != nil {
			t.Errorf("group %q: %v, %v", name, has, err)
		}
	}
	src := &tableUsers{lines: []userEntry{{"alice", 7, 7}, {"second", 7, 7}}}
	if _, err := accountNamed(t.Context(), "second", AccountOptions{}, src); err == nil ||
		!strings.Contains(err.Error(), `"second" is another name of "alice", by which peers know uid 7: use that`) {
		t.Error(err)
	}
	if _, err := accountNamed(t.Context(), "alice", AccountOptions{}, &tableUsers{err: os.ErrClosed}); err == nil || errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
}
