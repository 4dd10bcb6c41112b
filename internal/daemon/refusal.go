package daemon

import (
	"cmp"
	"errors"
	"time"
)

// A refusal is a set that a reload refused, and that nothing has made good since.
type refusal struct {
	what  string    // which set, for people
	since time.Time // when the first was refused, where one followed another
	last  time.Time
	err   error // of the last
}

// refusals are those that stand. What was handed over is apart from the files that the daemon reads: these hold another
// credential, a copy of systemd's for instance that never changes, so that reading them again says nothing of it.
// Those of directories of lists are apart too: whose these are holds up nothing else.
type refusals struct{ handed, files, lists *refusal }

// A listsError says that the lists of directories are not taken, and those in force stay.
type listsError struct{ error }

func (e listsError) Unwrap() error { return e.error }

// add notes a refusal and returns it, and whether it is the one of before once more.
func (r *refusals) add(handed bool, err error, now time.Time) (added *refusal, again bool) {
	place, what := &r.files, "the files"
	if handed {
		place, what = &r.handed, "the certificate handed over"
	}
	added = &refusal{what: what, since: now, last: now, err: err}
	if errors.As(err, new(listsError)) {
		place, what = &r.lists, "the lists of a directory"
	}
	if before := *place; before != nil {
		added.since, again = before.since, before.err.Error() == err.Error()
	}
	*place = added
	return added, again
}

// lift notes that a set came into force. credential says that its credential is none that was in force before.
func (r *refusals) lift(credential bool) {
	r.files = nil
	if credential {
		r.handed = nil
	}
}

// standing returns the refusal to tell of, nil for none.
func (r *refusals) standing() *refusal {
	return cmp.Or(r.handed, r.files, r.lists)
}
