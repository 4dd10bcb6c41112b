package dane

import (
	"container/list"
)

// A share is whose a lookup is: of an account, or what else the service counts by, in one direction.
type share struct {
	who       string
	initiator bool
}

// A bound is how many places there are, for one share, for one branch within a share, and for one branch in all.
type bound struct{ places, share, shareBranch, branch int }

// A lane is a number of places for lookups. The shares take turns at them, and the branches of DNS within a share; none has more
// than its part. A branch is what stands right below a name of --ca: whoever runs a zone of his own there can make each lookup in
// it slow, and is one.
type lane struct {
	bound
	used     int
	lines    map[share]*line
	turns    list.List      // of *line, all that wait or have a place
	branches map[string]int // places in use
}

// A line is what of a lane is one share's.
type line struct {
	lane     *lane
	share    share
	used     int
	branches map[string]*branch
	turns    list.List // of *branch, all that wait or have a place
	element  *list.Element
}

// A branch is what of a line is for names of one branch.
type branch struct {
	line    *line
	name    string
	used    int
	waiting list.List // of *want, the oldest first
	element *list.Element
}

// A want is that a share waits for a lookup to begin. Several shares may want the same one: the first that has a place
// pays.
type want struct {
	inquiry *inquiry
	branch  *branch
	waiters int // how many handshakes of the share wait
	element *list.Element
}

// A place is that of a lookup under way.
type place struct{ branch *branch }

func newLane(b bound) *lane {
	return &lane{bound: b, lines: make(map[share]*line), branches: make(map[string]int)}
}

// enter has one more handshake of a share wait for a lookup that has not begun.
func (l *lane) enter(i *inquiry, who share) {
	if w := i.wants[who]; w != nil {
		w.waiters++
		return
	}
	ln := l.lines[who]
	if ln == nil {
		ln = &line{lane: l, share: who, branches: make(map[string]*branch)}
		ln.element = l.turns.PushBack(ln)
		l.lines[who] = ln
	}
	b := ln.branches[i.branch]
	if b == nil {
		b = &branch{line: ln, name: i.branch}
		b.element = ln.turns.PushBack(b)
		ln.branches[i.branch] = b
	}
	w := &want{inquiry: i, branch: b, waiters: 1}
	w.element = b.waiting.PushBack(w)
	i.wants[who] = w
}

// leave has one handshake wait no more.
func (w *want) leave() {
	if w.waiters--; w.waiters == 0 {
		w.remove()
	}
}

func (w *want) remove() {
	delete(w.inquiry.wants, w.branch.line.share)
	w.branch.waiting.Remove(w.element)
	w.branch.settle()
}

// next takes a place for the lookup whose turn it is, which begins now. It returns nil if none can.
func (l *lane) next() (*inquiry, *place) {
	if l.used >= l.places {
		return nil, nil
	}
	for e := l.turns.Front(); e != nil; e = e.Next() {
		if ln := e.Value.(*line); ln.used < l.share {
			for f := ln.turns.Front(); f != nil; f = f.Next() {
				if b := f.Value.(*branch); b.waiting.Len() > 0 && b.used < l.shareBranch && l.branches[b.name] < l.bound.branch {
					return b.begin()
				}
			}
		}
	}
	return nil, nil
}

// begin takes a place for the first lookup that waits there; the others' turn is next.
func (b *branch) begin() (*inquiry, *place) {
	ln := b.line
	i := b.waiting.Front().Value.(*want).inquiry
	i.running = true
	b.used++
	ln.used++
	ln.lane.used++
	ln.lane.branches[b.name]++
	for _, w := range i.wants {
		w.remove()
	}
	ln.turns.MoveToBack(b.element)
	ln.lane.turns.MoveToBack(ln.element)
	return i, &place{b}
}

func (p *place) giveBack() {
	b, ln := p.branch, p.branch.line
	b.used--
	ln.used--
	ln.lane.used--
	if ln.lane.branches[b.name]--; ln.lane.branches[b.name] == 0 {
		delete(ln.lane.branches, b.name)
	}
	b.settle()
}

// settle forgets a branch, and a line, of which nothing is left.
func (b *branch) settle() {
	ln := b.line
	if b.waiting.Len() > 0 || b.used > 0 || ln.branches[b.name] != b {
		return
	}
	delete(ln.branches, b.name)
	ln.turns.Remove(b.element)
	if len(ln.branches) == 0 {
		delete(ln.lane.lines, ln.share)
		ln.lane.turns.Remove(ln.element)
	}
}
