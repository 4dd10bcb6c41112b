package service

import (
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
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
