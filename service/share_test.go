package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Rule 37: a socket that is limited to uids is one account, whoever of them calls.
func TestRule37LimitedSocket(t *testing.T) {
	if !isRoot() {
		t.Skip("only root can start callers with other uids")
	}
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Connections: 2}, Accounts: named("somebody")})
	me := uint32(os.Geteuid())
	limited := &daemon{Server: d.Server, socket: d.listen(t, UIDRanges{{me, me + 10}})}
	for range 2 {
		open(t, limited, "").must(t, clientStart(nil))
	}
	if got := as(t, me+1, limited.socket); !strings.Contains(got, "holds 2 connections") {
		t.Errorf("another uid of the socket is told %q", got)
	}
	if got := as(t, me+1, d.socket); !strings.Contains(got, "<nil>") {
		t.Errorf("it is told %q at the socket for all", got)
	}
	open(t, d, "").must(t, clientStart(nil))
}

// Rule 37: all uids without a name are one account, and one who has a name by now is his own.
func TestRule37Strangers(t *testing.T) {
	has := false
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Streams: 2}, Accounts: accountsFunc(
		func(_ context.Context, uid uint32) (Account, error) {
			if !has {
				return Account{}, reason.Errorf(reason.LocalAccount, "uid %d has no name", uid)
			}
			return Account{UID: uid, Name: "late"}, nil
		})})
	sessions := []*session{d.newSession(Caller{UID: 1001}, func() {}, func() {}), d.newSession(Caller{UID: 1002}, func() {}, func() {})}
	if h := d.newSession(Caller{UID: 1003}, func() {}, func() {}); h.holds != nothing {
		t.Error("a third uid without a name has a stream of its own")
	}
	_, err := sessions[0].step(t.Context(), clientStart(nil))
	if f := asFailure(err); f.name != reason.LocalAccount.String() {
		t.Errorf("a uid without a name: %v", err)
	}
	has = true
	if _, err := sessions[1].step(t.Context(), clientStart(nil)); err != nil {
		t.Fatal(err)
	}
	if want := (share{ofAccount, 1002}); sessions[1].share != want || d.idleStreams.sum() != 0 {
		t.Errorf("counts as %v; %d streams are counted", sessions[1].share, d.idleStreams.sum())
	}
	sessions[1].end(cancelled())
	if in, _ := counts(d.gate); in != [2]int{} || len(d.idleStreams.n) != 0 {
		t.Errorf("left behind: %v, %v", in, d.idleStreams.n)
	}
}

// Rule 37: what subordinate uids do is not charged to other uids without a name, such as those of a directory that have not
// been looked up yet; nor is what somebody does at a socket that is not for him.
func TestRule37SubordinatesApart(t *testing.T) {
	a := NewAccounts(AccountOptions{})
	dir := t.TempDir()
	a.files = &userFiles{passwd: filepath.Join(dir, "passwd"), subuid: filepath.Join(dir, "subuid")}
	if err := errors.Join(os.WriteFile(a.files.passwd, []byte("bob:x:61002:61002::/:/bin/sh\n"), 0o600),
		os.WriteFile(a.files.subuid, []byte("bob:700000:65536\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "beta.test", Config{Accounts: a})
	open, limited := &listener{srv: d.Server}, &listener{srv: d.Server, socket: 1, allowed: UIDRanges{{800000, 800001}}}
	for _, c := range []struct {
		l    *listener
		uid  uint32
		want share
	}{
		{open, 61002, share{ofAccount, 61002}},
		{open, 700000, share{kind: ofSubordinates}},
		{open, 765535, share{kind: ofSubordinates}},
		{open, 765536, share{}}, // of a directory, perhaps
		{open, 65534, share{}},
		{limited, 800001, share{ofSocket, 1}},
		{limited, 61002, share{ofAccount, 61002}},
		{limited, 700000, share{kind: ofSubordinates}},
	} {
		if got := c.l.guess(c.uid); got != c.want {
			t.Errorf("uid %d, socket %d: %v, want %v", c.uid, c.l.socket, got, c.want)
		}
	}
}
