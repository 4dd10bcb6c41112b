package dane

import "container/list"

// A cache keeps so many verdicts. Each is counted to a share, and where one has to go for another it is the least recently
// used of the share that has the most: whoever fills the cache fills it with his own.
type cache struct {
	max     int
	entries map[string]*entry
	shares  map[share]*list.List // of *entry, the most recently used first
}

type entry struct {
	machine string
	share   share
	verdict verdict
	element *list.Element
}

func newCache(max int) *cache {
	return &cache{max: max, entries: make(map[string]*entry), shares: make(map[share]*list.List)}
}

func (c *cache) len() int { return len(c.entries) }

func (c *cache) has(machine string) bool { return c.entries[machine] != nil }

// get returns the verdict about a machine, which may be over. It is counted from then on to who has the fewest of those
// that use it, so that nobody can make another's verdicts go by using them himself.
func (c *cache) get(machine string, who share) (verdict, bool) {
	e := c.entries[machine]
	if e == nil {
		return verdict{}, false
	}
	c.use(e, who)
	return e.verdict, true
}

// put keeps a verdict.
func (c *cache) put(machine string, who share, v verdict) {
	if e := c.entries[machine]; e != nil {
		e.verdict = v
		c.use(e, who)
		return
	}
	if len(c.entries) >= c.max {
		c.drop(c.fullest().Back().Value.(*entry).machine)
	}
	e := &entry{machine: machine, verdict: v}
	c.entries[machine] = e
	c.give(e, who)
}

func (c *cache) drop(machine string) {
	if e := c.entries[machine]; e != nil {
		delete(c.entries, machine)
		c.take(e)
	}
}

// use makes e the most recently used of the share to which it is counted.
func (c *cache) use(e *entry, who share) {
	if who != e.share && c.count(who)+1 < c.count(e.share) {
		c.take(e)
		c.give(e, who)
		return
	}
	c.shares[e.share].MoveToFront(e.element)
}

func (c *cache) count(who share) int {
	if l := c.shares[who]; l != nil {
		return l.Len()
	}
	return 0
}

func (c *cache) give(e *entry, who share) {
	l := c.shares[who]
	if l == nil {
		l = list.New()
		c.shares[who] = l
	}
	e.share, e.element = who, l.PushFront(e)
}

func (c *cache) take(e *entry) {
	l := c.shares[e.share]
	if l.Remove(e.element); l.Len() == 0 {
		delete(c.shares, e.share)
	}
}

func (c *cache) fullest() (fullest *list.List) {
	for _, l := range c.shares {
		if fullest == nil || l.Len() > fullest.Len() {
			fullest = l
		}
	}
	return fullest
}
