package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Bounds of the log, so that nobody fills the disk, and nobody's lines are lost in another's.
const (
	logWindow      = time.Minute
	refusalsLogged = 5    // in a window, of one account, peer machine and reason
	donesLogged    = 60   // the same of handshakes that went well
	keysKept       = 64   // peer machines and reasons told apart of one account
	accountsLogged = 4096 // accounts told apart; further ones count as one
)

// A windowKey tells apart what of an account's is counted: the peer's machine, by the first name of its certificate, if it
// was verified, the uid of one of many that count as one account, the reason, and whether permissive rules would have
// refused it. What an application says of the remote end does not count: it could make up a new one each time. Nor do the
// codes that this version does not know, which are the peer's free choice: all such are one.
type windowKey struct {
	machine, reason string
	uid             uint32
	would           bool
	stands          bool // of connections that stood, not of handshakes
}

// accountLines is what an account has said in the window that is open.
type accountLines struct {
	n     map[windowKey]int // lines and lines left out
	timer *time.Timer
}

func (k windowKey) done() bool { return k.reason == reason.Accepted.String() }

func (k windowKey) logged() int {
	if k.done() {
		return donesLogged
	}
	return refusalsLogged
}

// allow counts a line and reports whether it is to be written; a.mu is held.
func (a *auditor) allow(r Record) bool {
	who := r.share
	l := a.accounts[who]
	if l == nil && len(a.accounts) >= accountsLogged {
		who = share{}
		l = a.accounts[who]
	}
	if l == nil {
		l = &accountLines{n: make(map[windowKey]int)}
		l.timer = time.AfterFunc(a.window, func() { a.closeWindow(who) })
		a.accounts[who] = l
	}
	key := windowKey{machine: r.machine, reason: reason.Fold(r.Reason), would: r.Would, stands: r.stands}
	if who.kind != ofAccount {
		key.uid = r.UID
	}
	if l.n[key] == 0 && len(l.n) >= keysKept {
		key = windowKey{reason: key.reason, would: key.would, stands: key.stands} // there are only so many reasons
	}
	l.n[key]++
	return l.n[key] <= key.logged()
}

// closeWindow writes how many lines of an account's were left out.
func (a *auditor) closeWindow(who share) {
	a.mu.Lock()
	l := a.accounts[who]
	delete(a.accounts, who)
	a.mu.Unlock()
	if l == nil {
		return
	}
	for key, n := range l.n {
		if n <= key.logged() {
			continue
		}
		attrs := []slog.Attr{slog.Int("suppressed", n-key.logged()), slog.String("reason", key.reason)}
		if key.would {
			attrs = append(attrs, slog.String("would", reason.DeniedByPolicy.String()))
		}
		if who.kind == ofAccount {
			attrs = append(attrs, slog.Uint64("uid", uint64(who.id)))
		} else {
			attrs = append(attrs, slog.String("of", who.String()))
			if key.uid != 0 {
				attrs = append(attrs, slog.Uint64("uid", uint64(key.uid)))
			}
		}
		attrs = append(attrs, slog.String("peer_machine", key.machine))
		switch ctx := context.Background(); {
		case key.stands:
			a.log.LogAttrs(ctx, slog.LevelWarn, "connections that stood are refused now, not logged one by one", attrs...)
		case key.done():
			a.log.LogAttrs(ctx, slog.LevelInfo, "handshakes done that were not logged one by one", attrs...)
		default:
			a.log.LogAttrs(ctx, slog.LevelWarn, "handshakes failed that were not logged one by one", attrs...)
		}
	}
}

// flush writes the counts of all open windows.
func (a *auditor) flush() {
	a.mu.Lock()
	var open []share
	for who, l := range a.accounts {
		l.timer.Stop()
		open = append(open, who)
	}
	a.mu.Unlock()
	for _, who := range open {
		a.closeWindow(who)
	}
}

// keep keeps a failure among the last; where there are too many, the oldest of the account that has most goes. a.mu is
// held.
func (a *auditor) keep(r Record) {
	if len(a.last) == lastKept {
		count := map[share]int{r.share: 1}
		for _, old := range a.last {
			count[old.share]++
		}
		most := 0
		for i, old := range a.last {
			if count[old.share] > count[a.last[most].share] {
				most = i
			}
		}
		a.last = append(a.last[:most], a.last[most+1:]...)
	}
	a.last = append(a.last, r)
}
