package certbind

import (
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync"
	"time"
)

// Bounds on the cache, in identities, the first where MachineConfig says none. One machine, however many statements it signs, has
// one of leafShare places, 256 at most and 16 at least, and pushes out its own beyond that; nor, where DNS vouches for it, has it more by
// certificates, which it signs itself.
const (
	DefaultCached    = 4096
	maxCachedPerLeaf = 256
	leafShare        = 16
)

// A cache keeps successful verifications under one trust: a reload makes a new cache with its new trust, so that
// nothing found under the old one can be used. The key is the SHA-256 of the whole identity; a key of less would mix
// up what differs in the rest (one static key, for instance, serves many accounts).
type cache struct {
	max     int
	mu      sync.Mutex
	entries map[[32]byte]*list.Element
	all     list.List // of *cached, oldest first
	groups  map[[32]byte]*list.List
}

type cached struct {
	key [32]byte
	*outcome
	inGroup *list.Element // its place in groups[group], also oldest first
}

func newCache(max int) *cache {
	return &cache{max: max, entries: make(map[[32]byte]*list.Element), groups: make(map[[32]byte]*list.List)}
}

func cacheKey(identity []byte) [32]byte { return sha256.Sum256(identity) }

// get returns the peer of an earlier success if it still holds: the same static key authenticated by Noise now, and the
// time within everything that was used. Otherwise nil; then a full verification finds the reason.
func (c *cache) get(key, static [32]byte, now time.Time) *Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	o := e.Value.(*cached).outcome
	if o.static != static || now.Before(o.notBefore) {
		return nil
	}
	if now.After(o.peer.NotAfter) {
		c.remove(e)
		return nil
	}
	p := o.peer
	p.Attributes = slices.Clone(p.Attributes)
	p.Cached = true
	return &p
}

// put keeps a success, and drops the oldest of the leaf's or of all if there are too many.
func (c *cache) put(key [32]byte, o *outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	group := c.groups[o.group]
	if group == nil {
		group = list.New()
		c.groups[o.group] = group
	} else if first := &group.Front().Value.(*list.Element).Value.(*cached).peer; first.Leaf.Equal(o.peer.Leaf) {
		// The same DER has the same meaning: one parsed certificate serves all accounts of a machine.
		o.peer.Leaf = first.Leaf
		if slices.EqualFunc(first.Path, o.peer.Path, (*x509.Certificate).Equal) {
			o.peer.Path = first.Path
		}
	}
	entry := &cached{key: key, outcome: o}
	e := c.all.PushBack(entry)
	entry.inGroup = group.PushBack(e)
	c.entries[key] = e
	if group.Len() > min(maxCachedPerLeaf, max(leafShare, c.max/leafShare)) {
		c.remove(group.Front().Value.(*list.Element))
	}
	if c.all.Len() > c.max {
		c.remove(c.all.Front())
	}
}

func (c *cache) remove(e *list.Element) {
	entry := c.all.Remove(e).(*cached)
	delete(c.entries, entry.key)
	group := c.groups[entry.group]
	group.Remove(entry.inGroup)
	if group.Len() == 0 {
		delete(c.groups, entry.group)
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Len()
}
