package service

import (
	"context"
	"os"
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
	if in, _ := d.gate.counts(); in != [2]int{} || len(d.idleStreams.n) != 0 {
		t.Errorf("left behind: %v, %v", in, d.idleStreams.n)
	}
}
