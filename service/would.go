package service

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Bounds of what is kept of would-be refusals. Which accounts a peer's machine has is its own word, so that an account's
// table can be filled by its peers, and no other's: where there is no room for all, the account that has most gives up one.
const (
	wouldKept      = 256 // pairs and rules of one account's
	wouldKeptInAll = 4096
	wouldShown     = 256
)

// A WouldRefuse counts connections of one pair that one rule would refuse if rules were enforced.
type WouldRefuse struct {
	Rule  string // FILE:LINE, or the default
	Role  Role
	Local string // account@machine
	Peer  string
	Count uint64
	Last  time.Time

	share share
}

type wouldKey struct {
	rule        string
	role        Role
	local, peer string
}

// A wouldTable sums up what permissive rules would refuse.
type wouldTable struct {
	mu      sync.Mutex
	pairs   map[wouldKey]*WouldRefuse
	of      map[share]int // entries of each account
	leftOut uint64
}

// add counts a handshake that went well and would not have.
func (t *wouldTable) add(r *Record) {
	key := wouldKey{r.Rule, r.Role, r.Local, r.Peer}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.pairs[key]
	if w == nil {
		if t.of[r.share] >= wouldKept || len(t.pairs) >= wouldKeptInAll && !t.makeRoom(r.share) {
			t.leftOut++
			return
		}
		if t.pairs == nil {
			t.pairs, t.of = make(map[wouldKey]*WouldRefuse), make(map[share]int)
		}
		w = &WouldRefuse{Rule: r.Rule, Role: r.Role, Local: r.Local, Peer: r.Peer, share: r.share}
		t.pairs[key] = w
		t.of[r.share]++
	}
	w.Count++
	w.Last = r.Time
}

// makeRoom takes an entry from the account that has most, and reports false if that has no more than this one would; t.mu
// is held.
func (t *wouldTable) makeRoom(of share) bool {
	most := of
	for who, n := range t.of {
		if n > t.of[most] {
			most = who
		}
	}
	if t.of[most] <= t.of[of]+1 {
		return false
	}
	for key, w := range t.pairs {
		if w.share == most {
			t.leftOut += w.Count
			delete(t.pairs, key)
			t.of[most]--
			return true
		}
	}
	return false
}

// WouldRefuse returns what permissive rules would have refused since the start or ForgetWould: the most frequent first, and
// how many handshakes are not among them. Of more than wouldShown, each account has its most frequent.
func (s *Server) WouldRefuse() (list []WouldRefuse, more uint64) {
	t := &s.audit.would
	t.mu.Lock()
	more = t.leftOut
	for _, w := range t.pairs {
		list = append(list, *w)
	}
	t.mu.Unlock()
	slices.SortFunc(list, moreFrequent)
	if len(list) <= wouldShown {
		return list, more
	}
	rank, of := make(map[wouldKey]int), make(map[share]int)
	for _, w := range list {
		rank[wouldKey{w.Rule, w.Role, w.Local, w.Peer}] = of[w.share]
		of[w.share]++
	}
	slices.SortStableFunc(list, func(a, b WouldRefuse) int {
		return rank[wouldKey{a.Rule, a.Role, a.Local, a.Peer}] - rank[wouldKey{b.Rule, b.Role, b.Local, b.Peer}]
	})
	for _, w := range list[wouldShown:] {
		more += w.Count
	}
	list = list[:wouldShown]
	slices.SortFunc(list, moreFrequent)
	return list, more
}

func moreFrequent(a, b WouldRefuse) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Role, b.Role),
		cmp.Compare(a.Local, b.Local), cmp.Compare(a.Peer, b.Peer))
}

// ForgetWould begins to count anew, as for other rules.
func (s *Server) ForgetWould() {
	t := &s.audit.would
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pairs, t.of, t.leftOut = nil, nil, 0
}
