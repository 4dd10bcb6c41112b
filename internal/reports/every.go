package reports

import (
	"sync"
	"time"
)

// An Every has a kind of failure told, and not again for a while. Its kinds are the program's own words, few. Its methods are safe
// for concurrent use.
type Every struct {
	quiet time.Duration

	mu    sync.Mutex
	kinds map[string]*told
}

// told is a kind that was told.
type told struct {
	at     time.Time
	unsaid int // since then
}

// NewEvery returns an Every that is quiet for so long after each report.
func NewEvery(quiet time.Duration) *Every { return &Every{quiet: quiet, kinds: map[string]*told{}} }

// Say calls say, with how many reports of the kind were not made since the last one, or counts one more of these.
func (e *Every) Say(kind string, say func(unsaid int)) {
	e.mu.Lock()
	k, now := e.kinds[kind], time.Now()
	if k != nil && now.Sub(k.at) < e.quiet {
		k.unsaid++
		e.mu.Unlock()
		return
	}
	unsaid := 0
	if k != nil {
		unsaid = k.unsaid
	}
	e.kinds[kind] = &told{at: now}
	e.mu.Unlock()
	say(unsaid)
}
