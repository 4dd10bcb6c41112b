package daemon

import "time"

// A refusal is a set that a reload refused, and that nothing has made good since.
type refusal struct {
	what  string    // which set, for people
	since time.Time // when the first was refused, where one followed another
	last  time.Time
	err   error // of the last
}

// refusals are those that stand. What was handed over is apart from the files that the daemon reads: these hold another
// credential, a copy of systemd's for instance that never changes, so that reading them again says nothing of it.
type refusals struct{ handed, files *refusal }

// add notes a refusal and returns it, and whether it is the one of before once more.
func (r *refusals) add(handed bool, err error, now time.Time) (added *refusal, again bool) {
	place, what := &r.files, "the files"
	if handed {
		place, what = &r.handed, "the certificate handed over"
	}
	added = &refusal{what: what, since: now, last: now, err: err}
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
	if r.handed != nil {
		return r.handed
	}
	return r.files
}
