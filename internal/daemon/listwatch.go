package daemon

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

const (
	// restless is how long a directory of lists that is never at rest is waited for.
	restless = 10 * time.Second
	// listsShare is which part of the time the reading of such directories may take at most, one in so many.
	listsShare = 10
	// maxPassedOver bounds how many files status names that are passed over, maxWhy what is said of each, and passedAgain
	// how often the log names others.
	maxPassedOver, maxWhy = 32, 400
	passedAgain           = time.Minute
)

// A listWatch is what is known of the directories of lists.
type listWatch struct {
	seen, tried string    // listDirsState, at the last poll and when they were last read
	last        time.Time // when that was
	next        time.Time // before which they are not read by themselves
	passed      atomic.Pointer[[]certbind.PassedOver]
	said        string // of passed, in the log
	saidAt      time.Time
	refusal     string // that the log and the metrics told of last, "" if that it is mended as well
	refusalAt   time.Time
}

// Passed returns what is passed over in the directories of lists.
func (r *reloader) Passed() []certbind.PassedOver {
	if p := r.lists.passed.Load(); p != nil {
		return *p
	}
	return nil
}

// beginLists notes what was read at the start.
func (r *reloader) beginLists(state string, passed []certbind.PassedOver) {
	r.lists.seen, r.lists.tried, r.lists.last = state, state, time.Now()
	r.setPassed(passed)
}

// setPassed notes what is passed over.
func (r *reloader) setPassed(passed []certbind.PassedOver) {
	for i := range passed {
		passed[i].Why = cli.OneLine(strings.ToValidUTF8(passed[i].Why[:min(len(passed[i].Why), maxWhy)], ""))
	}
	r.lists.passed.Store(&passed)
	r.sayPassed()
}

// sayPassed logs what is passed over, if it is other than before; r.mu is held.
func (r *reloader) sayPassed() {
	var said []string
	for _, p := range r.Passed() {
		said = append(said, fmt.Sprintf("%s: %s", p.Source, p.Why))
	}
	text := strings.Join(few(said), "; ")
	if text == r.lists.said || time.Since(r.lists.saidAt) < passedAgain {
		return
	}
	r.lists.said, r.lists.saidAt = text, time.Now()
	if text != "" {
		r.log.Warn("files among the revocation lists are passed over", "files", text, "count", len(said))
	}
}

// pollLists reads the directories of lists if they changed, apart from all else: what is wrong with a certificate, or just
// being written, keeps no list out. r.mu is held.
func (r *reloader) pollLists() {
	if len(r.files.listDirs()) == 0 {
		return
	}
	r.sayPassed()
	now := time.Now()
	if now.Before(r.lists.next) {
		return
	}
	state := r.files.listDirsState(r.machine.Trust())
	atRest := state == r.lists.seen
	r.lists.seen = state
	retry := (r.refused.lists != nil || len(r.Passed()) > 0) && now.Sub(r.lists.last) >= retryInterval
	if state == r.lists.tried && !retry || !atRest && now.Sub(r.lists.last) < restless {
		return
	}
	changed, err := r.reloadLists(state)
	told := err != nil && r.refuse(false, err)
	if told || len(changed) > 0 {
		r.observe(err, r.Refused())
	}
}

// reloadLists brings the lists of the directories into force, those of one CA together or not at all, and nothing else.
func (r *reloader) reloadLists(state string) (changed []string, err error) {
	defer r.listsRead(state, time.Now())
	old := force{r.machine.Credential(), r.machine.Trust(), r.rules}
	next := &loaded{credential: old.credential, trust: old.trust, rules: old.rules, name: r.machine.Name()}
	judged, err := r.judge(next, reloadRequest{}, false)
	if err != nil {
		return nil, err
	}
	if !next.trust.SameLists(old.trust) {
		next.trust = r.files.demand(next.trust, judged.marks)
		if err := r.machine.Reload(next.credential, next.trust); err != nil {
			return nil, err
		}
		r.policy.setRules(r.rules) // which has what stands judged again
		r.memory.marks = judged.marks
		r.memory.add(next.trust)
		changed = changes(old, force{next.credential, next.trust, next.rules})
	}
	if judged.kept == nil && r.lists.refusal != "" && len(changed) == 0 {
		changed = []string{"the lists are again those in force"}
	}
	if judged.kept == nil {
		r.lists.refusal = ""
	}
	r.standing.Store(r.refused.standing())
	if len(changed) > 0 {
		r.log.Info("revocation lists reloaded", "changed", changedText(changed))
	}
	return changed, judged.kept
}

// mayRefuse reports whether a refusal of lists is to be logged and counted: whoever's the directory is could have it said
// at each poll, now of this list and now of that.
func (r *reloader) mayRefuse(err error) bool {
	if text := err.Error(); text != r.lists.refusal && time.Since(r.lists.refusalAt) >= passedAgain {
		r.lists.refusal, r.lists.refusalAt = text, time.Now()
		return true
	}
	return false
}

// listsRead notes that the directories were read from begun on.
func (r *reloader) listsRead(state string, begun time.Time) {
	now := time.Now()
	r.lists.tried, r.lists.last, r.lists.next = state, now, now.Add((listsShare-1)*now.Sub(begun))
}
