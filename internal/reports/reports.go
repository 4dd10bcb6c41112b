// Package reports keeps what is said of failures that others cause at will from growing with them.
package reports

import (
	"errors"
	"sync"
)

// maxOthers bounds the refused accounts that are reported one by one: an account may have 65536 subordinate ones.
const maxOthers = 8

// A Once makes each report once. Its methods are safe for concurrent use.
type Once struct {
	report func(error)

	mu     sync.Mutex
	seen   map[string]bool // reports made
	others map[uint32]bool // accounts that were refused, as many as are told apart
}

// New returns a Once that hands its reports to report, one at a time.
func New(report func(error)) *Once {
	return &Once{report: report, seen: map[string]bool{}, others: map[uint32]bool{}}
}

// Say reports err, once for each kind.
func (o *Once) Say(kind string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.seen[kind] {
		o.seen[kind] = true
		o.report(err)
	}
}

// Refused reports err, that another account was refused, once for each of the first maxOthers.
func (o *Once) Refused(uid uint32, err error) {
	o.mu.Lock()
	told := o.others[uid]
	more := !told && len(o.others) == maxOthers
	if !told && !more {
		o.others[uid] = true
		o.report(err)
	}
	o.mu.Unlock()
	if more {
		o.Say("others", errors.New("connections of further accounts are refused, and not reported one by one"))
	}
}

// Again lets a kind of failure be reported anew, after it has passed.
func (o *Once) Again(kind string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.seen, kind)
}
