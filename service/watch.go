package service

import (
	"bytes"
	"context"
	"io"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localgrpc"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/standing"
)

const (
	maxWatchedAtOnce = 1024 // connections in a request
	saidAtOnce       = 256  // in an answer: 64 KiB

	costWatch   = 10 // a request
	costWatched = 15 // and each connection in it
)

// A watchCall is one call of Standing/Watch: the connections of one application. Its methods, and all of its fields but
// those that say so, are used under the lock of the stream's connection. A request is worked on by a goroutine of its
// own, in the account's turn.
type watchCall struct {
	st      *localgrpc.Stream
	srv     *Server
	caller  Caller
	stream  share // to which the stream counts
	refusal error // why nothing is watched
	entered bool  // the stream counts

	share    share // to which the connections count
	cancel   context.CancelFunc
	over     bool
	records  map[uint64]watched
	next     int64  // none is due before, as in watched.until
	answered uint64 // requests
	owed     bool   // the answer to one more, which comes after all that is to be said: so that cannot grow
	// What is to be said. An ended connection counts until it is.
	endings   []said
	unwatched []*altspb.Unwatched
	move      bool

	ctx            context.Context          // until close
	leave          context.CancelFunc       // of ctx
	asking, unsure atomic.Bool              // the account's groups are asked for, or were
	found          atomic.Pointer[identity] // by asking
}

// A said is a connection that is to be closed.
type said struct {
	*altspb.Ended
	counted bool // in watches.records
}

// A watched is one connection.
type watched struct {
	record string
	until  int64 // seconds since 1970; 0 until it was judged
	noted  bool  // it was logged that it would be refused
}

const never = math.MaxInt64

func (s *Server) newWatch(caller Caller, st *localgrpc.Stream) *watchCall {
	c := &watchCall{st: st, srv: s, caller: caller, stream: caller.share, share: caller.share, refusal: caller.refusal,
		records: make(map[uint64]watched), next: never}
	c.ctx, c.leave = context.WithCancel(s.draining)
	if c.refusal != nil {
		return c
	}
	if c.entered = s.watches.streams.enter(c.stream); !c.entered {
		c.refusal = reason.Errorf(reason.Overloaded, "%s has %d streams open by which connections are watched; run fewer "+
			"processes, or raise the limit of connections", c.stream, s.watches.streams.perAccount)
		return c
	}
	s.watchMore(c)
	return c
}

// Message takes a request.
func (c *watchCall) Message(b []byte) {
	if c.refusal != nil {
		c.finish(asFailure(c.refusal))
		return
	}
	message := bytes.Clone(b)
	ctx, cancel := c.st.Context()
	c.cancel = cancel
	c.st.Go(func() {
		err := c.take(ctx, message)
		c.st.Do(func() {
			cancel()
			c.cancel = nil
			switch {
			case c.over:
			case err != nil:
				c.finish(asFailure(err))
			default:
				c.owed = true
				c.say()
			}
		})
	})
}

// End says that no request comes any more.
func (c *watchCall) End(err error) {
	if c.cancel != nil {
		c.cancel()
	}
	c.close()
	if err == io.EOF {
		c.st.Finish(nil)
	}
}

// Drain ends the call: the connections are for the next daemon to watch.
func (c *watchCall) Drain() { c.finish(asFailure(errStopping)) }

// GrowOld has the application begin another stream.
func (c *watchCall) GrowOld() {
	c.move = true
	c.say()
}

// Sent goes on with what is to be said.
func (c *watchCall) Sent() { c.say() }

func (c *watchCall) finish(f *failure) {
	c.close()
	c.st.Finish(withRefusal(status.New(f.rpc, f.message("")), f.refusal("")))
}

// close lets go of all that the call holds.
func (c *watchCall) close() {
	if c.over {
		return
	}
	c.over = true
	c.leave()
	c.srv.watches.leave(c)
	c.count(c.endings, len(c.records))
	c.records, c.endings, c.unwatched = nil, nil, nil
	if c.entered {
		c.srv.watches.streams.leave(c.stream)
	}
}

// say sends what is to be said, and then the answer that is owed, unless the client has not taken what was said before.
func (c *watchCall) say() {
	for !c.over && !c.st.Waits() && (c.owed || c.move || len(c.endings)+len(c.unwatched) > 0) {
		n := min(len(c.endings), saidAtOnce)
		u := min(len(c.unwatched), saidAtOnce)
		send := c.st.Tell
		if c.owed && n == len(c.endings) && u == len(c.unwatched) {
			send, c.owed = c.st.Send, false
			c.answered++
		}
		answer := &altspb.WatchAnswer{Answered: c.answered, Unwatched: c.unwatched[:u], Move: c.move}
		for _, e := range c.endings[:n] {
			answer.Ended = append(answer.Ended, e.Ended)
		}
		c.count(c.endings[:n], 0)
		c.endings, c.unwatched, c.move = c.endings[n:], c.unwatched[u:], false
		if !send(answer) {
			return
		}
	}
}

// count takes off what no longer counts: connections that it was said of, and n others.
func (c *watchCall) count(endings []said, n int) {
	for _, e := range endings {
		if e.counted {
			n++
		}
	}
	if n > 0 {
		c.srv.watches.records.add(c.share, -n)
	}
}

// take does what a request asks. It runs beside the connection.
func (c *watchCall) take(ctx context.Context, message []byte) error {
	me, err := c.srv.identityOf(ctx, c.caller)
	if err != nil {
		return err
	}
	c.st.Do(func() {
		if c.share.kind == ofStrangers || c.share.kind == ofSubordinates {
			if len(c.records)+len(c.endings) == 0 {
				c.share = share{ofAccount, c.caller.UID} // he has a name by now
			}
		}
	})
	// About as many as there are, before they are decoded: a record has some 300 bytes.
	if err := c.srv.budget.Charge(ctx, c.share, costWatch+costWatched*(1+len(message)/300)); err != nil {
		return c.srv.gone(err)
	}
	groups := c.srv.groupsOf(c)
	c.srv.turns.Do(c.share, func() { err = c.work(message, me, groups) })
	return err
}

// work decodes a request, one at a time as far as processors go: decoded it may take up many times its size.
func (c *watchCall) work(message []byte, me, groups *identity) error {
	req := new(altspb.WatchRequest)
	if err := proto.Unmarshal(message, req); err != nil {
		return badRequest("the request is no WatchRequest: %v", err)
	}
	if len(req.Add) > maxWatchedAtOnce {
		return badRequest("a request with %d connections; send at most %d", len(req.Add), maxWatchedAtOnce)
	}
	records := make([]*standing.Record, len(req.Add))
	why := make([]string, len(req.Add))
	for i, w := range req.Add {
		r, err := standing.Decode(w.GetStanding().GetRecord())
		switch {
		case err != nil:
			why[i] = "the record is not this daemon's: " + err.Error()
		case r.Connection.Account != me.account.Name:
			why[i] = "the record is of another account than " + me.account.Name
		default:
			records[i] = r
		}
	}
	var err error
	c.st.Do(func() { err = c.register(req, records, why) })
	if err != nil {
		return err
	}
	// Not before they are registered, so that a change from now on finds them.
	_, generation := c.srv.inForce()
	j := c.srv.newJudge(groups)
	findings := make([]finding, len(records))
	for i, r := range records {
		if r != nil {
			findings[i] = j.find(r, req.Add[i].Standing.Generation == generation)
		}
	}
	c.st.Do(func() {
		for i, r := range records {
			if r != nil {
				c.apply(req.Add[i].Id, string(req.Add[i].Standing.Record), r, findings[i])
			}
		}
	})
	return nil
}

func ending(id uint64, r *standing.Record, err error) *altspb.Ended {
	return &altspb.Ended{Id: id, Reason: reason.Of(err).String(), Text: err.Error(), HandshakeId: r.ID}
}

// apply does what was found of a connection.
func (c *watchCall) apply(id uint64, record string, r *standing.Record, f finding) {
	w, ok := c.records[id]
	if !ok || w.record != record || r == nil {
		return // it was closed meanwhile
	}
	ends := f.err != nil && !f.would && !c.srv.cfg.KeepRevoked
	if f.err != nil && (ends || !w.noted) {
		c.srv.refusedNow(c, r, f, ends)
	}
	if ends {
		delete(c.records, id)
		c.endings = append(c.endings, said{ending(id, r, f.err), true})
		return
	}
	w.noted = f.err != nil
	switch {
	case r.Path.DNS != nil:
		c.askWhenDue(id, &w, r)
	case f.until.IsZero():
		w.until = never
	default:
		c.due(&w, f.until)
	}
	c.records[id] = w
}

// due has a connection judged at a time.
func (c *watchCall) due(w *watched, at time.Time) {
	w.until = at.Unix()
	c.next = min(c.next, w.until)
	c.srv.watches.until(at)
}

// judgeAgain judges the connections once more, or those that are due. It runs beside the connection.
func (c *watchCall) judgeAgain(all bool) {
	if c.unsure.Swap(false) {
		all = true
	}
	type entry struct {
		id     uint64
		record string
	}
	var due []entry
	var whose share
	now := time.Now().Unix()
	c.st.Do(func() {
		whose = c.share
		if all || c.next <= now {
			c.next = never
			for id, w := range c.records {
				if all || w.until <= now {
					due = append(due, entry{id, w.record})
				} else {
					c.next = min(c.next, w.until)
				}
			}
		}
		if c.next != never {
			c.srv.watches.until(time.Unix(c.next, 0))
		}
	})
	if len(due) == 0 {
		return
	}
	j := c.srv.newJudge(c.srv.groupsOf(c))
	records := make([]*standing.Record, 0, judgedInARow)
	findings := make([]finding, 0, judgedInARow)
	for len(due) > 0 {
		n := min(len(due), judgedInARow)
		records, findings = records[:0], findings[:0]
		c.srv.turns.Do(whose, func() {
			for _, e := range due[:n] {
				var f finding
				r, err := standing.Decode([]byte(e.record))
				if err == nil { // as it was when it came
					f = j.find(r, false)
				}
				records, findings = append(records, r), append(findings, f)
			}
		})
		c.st.Do(func() {
			for i, e := range due[:n] {
				c.apply(e.id, e.record, records[i], findings[i])
			}
			c.say()
		})
		due = due[n:]
	}
}
