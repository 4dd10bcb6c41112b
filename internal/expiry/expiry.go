// Package expiry says ahead of time what will end, and tells a clock that is plainly wrong from a certificate that is.
package expiry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// The kinds of Item.
const (
	Leaf  = "leaf"  // the machine's own certificate
	Chain = "chain" // an intermediate that is sent with it
	CA    = "ca"    // a trusted CA
	CRL   = "crl"   // a revocation list, from its thisUpdate to its nextUpdate
)

// An Item is something that handshakes depend on for a time.
type Item struct {
	Kind string
	// Name tells one of a kind from another: a certificate's names, or a list's file and issuer.
	Name                string
	NotBefore, NotAfter time.Time
}

func (i Item) String() string {
	switch i.Kind {
	case Leaf:
		return "this machine's certificate"
	case Chain:
		return fmt.Sprintf("the intermediate CA %q of this machine's certificate", i.Name)
	case CA:
		return fmt.Sprintf("the trusted CA %q", i.Name)
	}
	return fmt.Sprintf("the revocation list %s", i.Name)
}

// cure returns what to do about an Item that ends.
func (i Item) cure() string {
	switch i.Kind {
	case Leaf, Chain:
		return "renew it, then reload the daemon"
	case CA:
		return "get the CA's successor, trust both while machines move, then reload the daemon"
	}
	return "fetch its successor from the CA, then reload the daemon, or accept lists that are out of date"
}

// Day is the unit in which expiry is announced.
const Day = 24 * time.Hour

// clockTolerance is by how much clocks of machines may differ.
const clockTolerance = 5 * time.Minute

// warnings are the times ahead of an end at which it is announced, each only where the Item lives more than three times
// as long; one that lives at most three days is announced when a quarter of its life is left.
var warnings = []time.Duration{30 * Day, 7 * Day, Day}

// A Notice is an Item that has ended or will soon.
type Notice struct {
	Item
	// Level rises as the end comes near: the number of warnings that are past. Ended is one more than all.
	Level int
	// Ended is true if the Item is past its end, and NotYet if it is before its start.
	Ended, NotYet bool
	// What and Cure are clauses for people.
	What, Cure string
}

// Judge returns a Notice for each item that is about to end, has ended, or has not begun, in the order of items.
func Judge(items []Item, now time.Time) []Notice {
	var notices []Notice
	for _, i := range items {
		n := Notice{Item: i, Cure: i.cure()}
		left := i.NotAfter.Sub(now)
		for _, w := range warnings {
			if ahead := i.ahead(w); ahead != 0 && left <= ahead {
				n.Level++
			}
		}
		end := i.NotAfter.UTC().Format("2006-01-02 15:04 UTC")
		switch {
		case now.Before(i.NotBefore):
			n.NotYet, n.Level = true, len(warnings)+1
			n.What = fmt.Sprintf("%s is not valid before %s", i, i.NotBefore.UTC().Format("2006-01-02 15:04 UTC"))
			n.Cure = "check the clock of this machine and of the CA"
		case left < 0:
			n.Ended, n.Level = true, len(warnings)+1
			n.What = fmt.Sprintf("%s ended %s ago, on %s", i, Span(-left), end)
		case n.Level > 0:
			n.What = fmt.Sprintf("%s ends in %s, on %s", i, Span(left), end)
			if i.Kind == Leaf && left < clockTolerance {
				n.What += "; peers whose clocks are ahead by as much refuse it already"
			}
		default:
			continue
		}
		notices = append(notices, n)
	}
	return notices
}

// clockSlack is how far ahead of ours the clock of a CA may run without ours being called wrong.
const clockSlack = time.Hour

// ClockFault returns why now cannot be the time, or nothing if it may be: it is before the program was built (zero: not
// known), before a trusted CA's certificate began, or before a revocation list was made. All of these existed when they
// came to this machine. Only a certificate of the machine's own may be made ahead of its time.
func ClockFault(items []Item, now, built time.Time) string {
	const layout = "2006-01-02 15:04 UTC"
	tell := func(when time.Time, what string) string {
		return fmt.Sprintf("this machine's clock says %s, which is before %s (%s), so it is plainly wrong: set it, and keep "+
			"it right with NTP (timedatectl set-ntp true)", now.UTC().Format(layout), what, when.UTC().Format(layout))
	}
	if now.Before(built.Add(-clockSlack)) {
		return tell(built, "this program was built")
	}
	for _, i := range items {
		if i.Kind != Leaf && now.Before(i.NotBefore.Add(-clockSlack)) {
			return tell(i.NotBefore, i.String()+" was made")
		}
	}
	return ""
}

// An Announcer logs each Notice once at each of its levels.
type Announcer struct {
	log   *slog.Logger
	built time.Time
	judge func([]Item, time.Time) []Notice

	mu    sync.Mutex
	clock bool
	level map[Item]int
}

// NewAnnouncer returns an Announcer of a program that was built at a time (zero: not known). judge is Judge, to whose
// cures the program may add how its own settings are changed.
func NewAnnouncer(log *slog.Logger, built time.Time, judge func([]Item, time.Time) []Notice) *Announcer {
	return &Announcer{log: log, built: built, judge: judge}
}

// Announce logs what is new since the last call. While the clock is plainly wrong it logs that and nothing else: what a
// wrong clock says of a certificate would send its reader the wrong way.
func (a *Announcer) Announce(items []Item, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fault := ClockFault(items, now, a.built)
	switch {
	case fault != "" && !a.clock:
		a.log.Error("clock", "fault", fault)
	case fault == "" && a.clock:
		a.log.Info("clock is right again")
	}
	if a.clock = fault != ""; a.clock {
		return
	}
	level := make(map[Item]int)
	for _, n := range a.judge(items, now) {
		level[n.Item] = n.Level
		if n.Level <= a.level[n.Item] {
			continue
		}
		level := slog.LevelWarn
		if n.Ended || n.NotYet {
			level = slog.LevelError
		}
		a.log.Log(context.Background(), level, "expiry", "what", n.What, "cure", n.Cure, "kind", n.Kind, "not_after", n.NotAfter.UTC().Format(time.RFC3339))
	}
	a.level = level
}
