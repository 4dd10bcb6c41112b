package forward

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/names"
)

// Bounds of connections at whose other end nobody is proved yet.
const (
	maxUnproven   = 1024 // more than altscreds keeps of the silent and of handshakes under way
	fewestFilesOf = 4    // of all descriptors these may be one part
)

// A crowd is the connections that have not proved who they are: bounded, and for one more the oldest of the network that
// has most of them goes.
type crowd struct {
	max int

	mu     sync.Mutex
	list   list.List // of *stranger, the oldest first
	of     map[netip.Prefix]*network
	closed error // why nobody is let in any more
}

// A network is one that has connections in the crowd.
type network struct {
	prefix netip.Prefix
	n      int // of them
}

type stranger struct {
	network *network
	end     context.CancelCauseFunc
	element *list.Element // nil once it is not of the crowd any more
}

func newCrowd(most int) *crowd { return &crowd{max: most, of: make(map[netip.Prefix]*network)} }

// enter takes one more in, and has another give way if they are too many.
func (c *crowd) enter(prefix netip.Prefix, end context.CancelCauseFunc) *stranger {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		end(c.closed)
		return &stranger{}
	}
	if c.list.Len() >= c.max {
		oldest := c.list.Front()
		for e := oldest.Next(); e != nil; e = e.Next() {
			if e.Value.(*stranger).network.n > oldest.Value.(*stranger).network.n {
				oldest = e
			}
		}
		gone := oldest.Value.(*stranger)
		c.remove(gone)
		gone.end(errGaveWay)
	}
	n := c.of[prefix]
	if n == nil {
		n = &network{prefix: prefix}
		c.of[prefix] = n
	}
	n.n++
	s := &stranger{network: n, end: end}
	s.element = c.list.PushBack(s)
	return s
}

// leave reports whether s was of the crowd still.
func (c *crowd) leave(s *stranger) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remove(s)
}

func (c *crowd) remove(s *stranger) bool {
	if s.element == nil {
		return false
	}
	c.list.Remove(s.element)
	s.element = nil
	if s.network.n--; s.network.n == 0 {
		delete(c.of, s.network.prefix)
	}
	return true
}

// close ends all of the crowd, and whoever comes later.
func (c *crowd) close(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = why
	for c.list.Len() > 0 {
		s := c.list.Front().Value.(*stranger)
		c.remove(s)
		s.end(why)
	}
}

func (c *crowd) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list.Len()
}

// Places are those of connections whose other end is proved. A machine that lies has as many accounts as it likes, so the
// accounts of one machine have a bound together as well.
type places struct {
	mu      sync.Mutex
	taken   int
	holder  map[string]int
	machine map[string]int
}

// take takes one of max places, of which no holder may have more than half, and those of one machine three quarters.
func (p *places) take(holder string, most int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= most {
		return Refuse(Full, fmt.Errorf("all %d places are taken (--max-conns)", most))
	}
	if half := (most + 1) / 2; holder != "" && p.holder[holder] >= half {
		return Refuse(Full, fmt.Errorf("%s has %d connections, half of all places, and nobody has more (--max-conns)", holder, half))
	}
	_, machine := names.SplitAccount(holder)
	if many := (most*3 + 3) / 4; machine != "" && p.machine[machine] >= many {
		return Refuse(Full, fmt.Errorf("accounts of %s have %d connections, three quarters of all places, and no machine has more "+
			"(--max-conns)", machine, many))
	}
	if p.holder == nil {
		p.holder, p.machine = make(map[string]int), make(map[string]int)
	}
	p.taken++
	p.holder[holder]++
	p.machine[machine]++
	return nil
}

func (p *places) leave(holder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.holder[holder]--; p.holder[holder] == 0 {
		delete(p.holder, holder)
	}
	_, machine := names.SplitAccount(holder)
	if p.machine[machine]--; p.machine[machine] == 0 {
		delete(p.machine, machine)
	}
}

func (p *places) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

var errGaveWay = Refuse(GaveWay, errors.New("gave way to newer connections, since too many are not proved and this one had "+
	"been so for longest"))
