package service

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// as runs a caller with another uid, and gives what it was told.
func as(t *testing.T, uid uint32, socket string) string {
	t.Helper()
	bin := filepath.Join(testprog.Dir(t), "caller") // go test's own directory is closed to other uids
	if err := testprog.CopySelf(bin); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Dir = "/"
	cmd.Env = []string{helperSocket + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("caller: %v: %s", err, out)
	}
	return string(out)
}

// The identity is the effective uid at connect; the overflow uid and one without a name are refused, and each is told.
func TestRule21And18Callers(t *testing.T) {
	if !isRoot() {
		t.Skip("only root can start callers with other uids")
	}
	nameless := uint32(54321)
	for {
		if _, err := user.LookupId(fmt.Sprint(nameless)); err != nil {
			break
		}
		nameless++
	}
	d := startDaemon(t, "beta.test", Config{})
	for uid, want := range map[uint32]string{
		0:        "<nil>",
		1:        "<nil>",
		65534:    "overflow uid (nobody)",
		nameless: "has no name in the user database",
	} {
		if got := as(t, uid, d.socket); !strings.Contains(got, want) {
			t.Errorf("uid %d is told %q, want %q", uid, got, want)
		}
	}
}

// A listener that is limited to uids refuses others, with the reason.
func TestRule22(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	me := uint32(os.Geteuid())
	mine := &daemon{Server: d.Server, socket: d.listen(t, UIDRanges{{me, me}})}
	others := &daemon{Server: d.Server, socket: d.listen(t, UIDRanges{{me + 1, me + 10}, {me + 100, me + 100}})}
	open(t, mine, "").must(t, clientStart(nil))
	_, err := open(t, others, "").do(clientStart(nil))
	wantErr(t, err, codes.PermissionDenied, "local_account", "may not use this socket")
	resp, err := open(t, others, "grpc-c/29").do(clientStart(nil))
	if err != nil || !strings.Contains(resp.Status.GetDetails(), "may not use this socket") {
		t.Errorf("C-core: %v, %v", resp, err)
	}
	if isRoot() {
		if got := as(t, me+1, others.socket); !strings.Contains(got, "<nil>") {
			t.Errorf("uid %d: %s", me+1, got)
		}
	}
}

func TestParseUIDRanges(t *testing.T) {
	r, err := ParseUIDRanges("0+100000-165535")
	if err != nil || len(r) != 2 || r[1] != (UIDRange{100000, 165535}) {
		t.Errorf("%v, %v", r, err)
	}
	if !r.contains(0) || !r.contains(165535) || r.contains(165536) || r.contains(1) || !UIDRanges(nil).contains(7) {
		t.Error("contains")
	}
	for _, s := range []string{"", "a", "5-4", "1-", "-1", "4294967296", "1,2"} {
		if _, err := ParseUIDRanges(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestRule18RefusedUIDs(t *testing.T) {
	for _, uid := range []uint32{1234, 65534, 1<<32 - 1} {
		wantReason(t, refusedUIDs{1234}.check(uid), reason.LocalAccount, fmt.Sprint(uid))
	}
	if r := readRefusedUIDs(); r.overflow == 0 || r.check(0) != nil {
		t.Errorf("overflow uid %d", r.overflow)
	}
	s := &Server{accounts: accountsFunc(func(context.Context, uint32) (Account, error) { return Account{UID: 7, Name: "x"}, nil })}
	_, err := s.identityOf(t.Context(), Caller{UID: 8})
	wantReason(t, err, reason.Internal, "uid 7 instead of 8")
	s.accounts = named("Somebody")
	_, err = s.identityOf(t.Context(), Caller{UID: 8})
	wantReason(t, err, reason.LocalAccount, "cannot be used")
}

// Rule 24: uids without a name share the few connections on which they are told so, and take none of the others'.
func TestRule24NamelessUIDs(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Accounts: accountsFunc(func(_ context.Context, uid uint32) (Account, error) {
		return Account{}, reason.Errorf(reason.LocalAccount, "uid %d has no name", uid)
	})})
	_, err := open(t, d, "").do(clientStart(nil))
	wantErr(t, err, codes.PermissionDenied, "local_account")
	if d.nameless(0) || d.nameless(uint32(os.Geteuid())) || !d.nameless(12345) {
		t.Error("root and the daemon's own uid are to have places of their own, and others without a name are not")
	}
	refused := newTally[uint32](refusedConnections, refusedConnectionsInAll)
	entered := 0
	for uid := range uint32(65536) {
		if refused.enter(uid) {
			entered++
		}
	}
	if entered != refusedConnectionsInAll {
		t.Errorf("65536 uids got %d connections, want %d", entered, refusedConnectionsInAll)
	}
}
