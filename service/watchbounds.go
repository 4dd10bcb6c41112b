package service

import (
	"fmt"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/standing"
)

// How many connections are watched, and who gives way where that is too many.

// register takes connections off and adds those that can be watched. Of the others it takes the record out of records.
func (c *watchCall) register(req *altspb.WatchRequest, records []*standing.Record, why []string) error {
	if c.over {
		return nil
	}
	for _, id := range req.Remove {
		if _, ok := c.records[id]; ok {
			delete(c.records, id)
			c.srv.watches.records.leave(c.share)
		}
	}
	unwatched := 0
	for i, w := range req.Add {
		if _, twice := c.records[w.Id]; twice {
			return badRequest("the ID %d is watched already", w.Id)
		}
		r := records[i]
		room := r != nil && c.srv.watches.records.enterFair(c.share)
		switch {
		case room:
			c.records[w.Id] = watched{record: string(w.Standing.Record)}
			continue
		case r != nil && !c.srv.cfg.KeepRevoked:
			c.giveUp(w.Id, r)
		default:
			if r != nil {
				why[i] = tooMany(c.share)
			}
			c.unwatched = append(c.unwatched, &altspb.Unwatched{Id: w.Id, Why: why[i]})
			unwatched++
		}
		records[i] = nil
	}
	c.srv.watches.countUnwatched(unwatched)
	if n, _ := c.srv.watches.records.over(); n > 0 {
		c.srv.watches.soon() // which has others give way
	}
	return nil
}

// tooMany says why a connection cannot be watched.
func tooMany(of share) string {
	return fmt.Sprintf("%s has %d connections open, or all together have %d and nobody has more", of, standingPerAccount, standingInAll)
}

// giveUp ends a connection that is not watched any more: what is not watched could not be ended later.
func (c *watchCall) giveUp(id uint64, r *standing.Record) {
	err := reason.Errorf(reason.Overloaded, "%s, and one more could not be ended when it is refused; close some", tooMany(c.share))
	c.srv.refusedNow(c, r, finding{err: err}, true)
	c.endings = append(c.endings, said{Ended: ending(id, r, err)})
}

// giveWay takes up to n connections off for others, and returns how many.
func (c *watchCall) giveWay(n int, whose share) (gone int) {
	if c.over || c.share != whose {
		return 0
	}
	for id, w := range c.records {
		if gone == n {
			break
		}
		gone++
		delete(c.records, id)
		c.srv.watches.records.leave(c.share)
		r, err := standing.Decode([]byte(w.record))
		if err != nil || c.srv.cfg.KeepRevoked {
			c.unwatched = append(c.unwatched, &altspb.Unwatched{Id: id, Why: tooMany(c.share)})
			c.srv.watches.countUnwatched(1)
			continue
		}
		c.giveUp(id, r)
	}
	c.say()
	return gone
}
