package service

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// TestRule49AnswerIsLast: a request is answered when all is said that it brought, so that what is not read cannot grow by
// the next.
func TestRule49AnswerIsLast(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	w := watch(t, alpha.socket)
	for requests := range 20 {
		req := new(altspb.WatchRequest)
		for i := range uint64(maxWatchedAtOnce) {
			req.Add = append(req.Add, &altspb.Watched{Id: uint64(requests)*maxWatchedAtOnce + i})
		}
		w.send(req)
	}
	for n := uint64(0); w.answered < w.sent; n = w.answered {
		if !w.recv() {
			t.Fatal(w.err)
		}
		if got := len(w.unwatched); w.answered > n && got != int(w.answered)*maxWatchedAtOnce {
			t.Fatalf("%d requests are answered, and of %d connections it was said", w.answered, got)
		}
	}
}

// TestRule49RecordThatIsNone: a record that cannot be read any more, which should not be, ends none and no daemon.
func TestRule49RecordThatIsNone(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	w := watch(t, alpha.socket)
	const n = 20
	for id := range uint64(n) {
		w.add(id, synthetic(t, "eve"))
	}
	for _, c := range alpha.watches.all() {
		c.st.Do(func() { c.records[3] = watched{record: "x"} })
	}
	alpha.SetPolicy(rules(t, "deny any * eve@peer.test\n", ""))
	var ids []uint64
	for id := range uint64(n) {
		if id != 3 {
			ids = append(ids, id)
		}
	}
	w.want(reason.DeniedByPolicy, ids...)
}

// TestRule49NobodyAsksForWhoLeft: with a call ends what asks for its account's groups.
func TestRule49NobodyAsksForWhoLeft(t *testing.T) {
	var lookups atomic.Int64
	asked, why := make(chan struct{}), make(chan error, 1)
	alpha := startDaemon(t, "alpha.test", Config{Accounts: accountsFunc(func(ctx context.Context, uid uint32) (Account, error) {
		if lookups.Add(1) == 2 {
			close(asked)
			<-ctx.Done()
			why <- ctx.Err()
		}
		return Account{UID: uid, Name: "alice"}, nil
	})})
	alpha.SetPolicy(rules(t, "", enforcing+"allow any %staff *@*\n"))
	w := watch(t, alpha.socket)
	w.add(1, synthetic(t, "eve"))
	<-asked
	if err := w.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := <-why; !errors.Is(err, context.Canceled) {
		t.Errorf("it was asked until %v", err)
	}
}

// TestRule49NobodyWaitsForAnother: an account whose connections cannot be judged holds up nobody else's, at the next change
// neither.
func TestRule49NobodyWaitsForAnother(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{Accounts: named("alice")})
	watch(t, alpha.socket).add(1, synthetic(t, "eve"))
	held, release := make(chan struct{}), make(chan struct{})
	c := alpha.watches.all()[0]
	go c.st.Do(func() { close(held); <-release })
	defer close(release)
	<-held
	w := watch(t, alpha.listen(t, UIDRanges{{0, 1<<32 - 2}}))
	w.add(1, synthetic(t, "eve"))
	w.add(2, synthetic(t, "mallory"))
	alpha.SetPolicy(rules(t, "deny any * eve@peer.test\n", ""))
	w.want(reason.DeniedByPolicy, 1)
	alpha.SetPolicy(rules(t, "deny any * *@peer.test\n", ""))
	w.want(reason.DeniedByPolicy, 1, 2)
}
