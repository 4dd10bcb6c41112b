package service

import (
	"context"
	"time"
)

// When connections that stand are judged again, and whose at a time.

// watchMore adds a call, and starts keepJudging for the first.
func (s *Server) watchMore(c *watchCall) {
	w := &s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[c] = struct{}{}
	if !w.judging {
		w.judging = true
		go s.keepJudging()
	}
}

// leave takes a call off.
func (w *watches) leave(c *watchCall) {
	w.mu.Lock()
	delete(w.calls, c)
	last := len(w.calls) == 0
	w.mu.Unlock()
	if last {
		w.soon()
	}
}

// idle reports whether there are no calls, after which the next one starts keepJudging again.
func (w *watches) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judging = len(w.calls) > 0
	return !w.judging
}

// keepJudging judges what is watched, until nothing is, or the daemon stops.
func (s *Server) keepJudging() {
	timer := time.NewTimer(standingLook)
	defer timer.Stop()
	changed := s.changes()
	for all := true; ; all = false { // what was watched before may not have been judged by all that is in force
		select {
		case <-changed:
			all = true
		default:
		}
		if all {
			changed = s.changes() // before anything is judged
		}
		s.makeRoom()
		s.judgeAgain(all)
		if s.watches.idle() {
			return
		}
		timer.Reset(s.watches.wait())
		select {
		case <-s.draining.Done():
			return
		case <-changed:
		case <-s.watches.sooner:
		case <-timer.C:
		}
	}
}

// wait returns how long there is nothing to do.
func (w *watches) wait() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := standingLook
	if !w.next.IsZero() {
		wait = min(max(time.Until(w.next), 0)+time.Millisecond, standingLook)
	}
	w.armed = time.Now().Add(wait)
	return wait
}

// makeRoom has those give way who have most, while there are too many.
func (s *Server) makeRoom() {
	for {
		n, whose := s.watches.records.over()
		if n <= 0 {
			return
		}
		gone := 0
		for _, c := range s.watches.all() {
			c.st.Do(func() { gone += c.giveWay(min(n, judgedInARow)-gone, whose) })
			if gone >= min(n, judgedInARow) {
				break
			}
		}
		if gone == 0 {
			return // they are on their way out
		}
	}
}

// A pass is the judging of an account's calls, under way.
type pass struct {
	again, all bool // once more, and of all or of what is due
}

// judgeAgain has all that is watched judged, or what is due: accounts beside each other, since each waits for turns of its
// own, and who has much to do must not hold up the rest.
func (s *Server) judgeAgain(all bool) {
	w := &s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = time.Time{}
	if !w.next.After(time.Now()) {
		w.next = time.Time{}
	}
	for c := range w.calls {
		p := w.passes[c.stream]
		if p == nil {
			p = new(pass)
			w.passes[c.stream] = p
			go s.pass(c.stream, p)
		}
		p.again, p.all = true, p.all || all
	}
}

// pass judges an account's calls, until nobody asks for it any more.
func (s *Server) pass(of share, p *pass) {
	w := &s.watches
	for {
		var calls []*watchCall
		w.mu.Lock()
		if !p.again || s.draining.Err() != nil {
			delete(w.passes, of)
			w.mu.Unlock()
			return
		}
		for c := range w.calls {
			if c.stream == of {
				calls = append(calls, c)
			}
		}
		all := p.all
		p.again, p.all = false, false
		w.mu.Unlock()
		for _, c := range calls {
			if s.draining.Err() == nil {
				c.judgeAgain(all)
			}
		}
	}
}

// groupsOf returns the account of a call as far as it is known at once; where groups have to be asked for, they are, and the
// call is judged again then.
func (s *Server) groupsOf(c *watchCall) *identity {
	p, _ := s.inForce()
	if p == nil || len(p.LocalGroups()) == 0 {
		return nil
	}
	if me := c.found.Swap(nil); me != nil && me.knowsGroups(p.LocalGroups()) {
		return me
	}
	if s.ready(c.caller) {
		if me, err := s.identityOf(s.draining, c.caller); err == nil && me.knowsGroups(p.LocalGroups()) {
			return me
		}
	}
	if c.asking.Swap(true) {
		return nil
	}
	go func() {
		ctx, cancel := context.WithTimeout(c.ctx, 2*groupsAgain)
		me, err := s.identityOf(ctx, c.caller)
		cancel()
		if err != nil || !me.knowsGroups(p.LocalGroups()) {
			select {
			case <-time.After(groupsAgain):
			case <-c.ctx.Done():
				return
			}
		} else {
			c.found.Store(me)
		}
		c.asking.Store(false)
		c.unsure.Store(true)
		s.watches.soon()
	}()
	return nil
}
