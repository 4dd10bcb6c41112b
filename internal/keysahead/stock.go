package keysahead

import (
	"sync"
	"time"
)

// A stock is the keys of one kind.
type stock[K any] struct {
	fresh func() (K, error)
	wipe  func(K)              // a key that nobody gets
	now   func() time.Duration // since boot

	mu     sync.Mutex
	keys   [maxKept]kept[K] // a ring
	first  int              // the oldest
	n      int              // how many
	owed   int              // how many were used and not made up for
	making int              // how many are being made; all three together are at most maxKept
	used   time.Duration    // when one was last asked for; 0: never
	expiry *time.Timer      // nil while there are no keys
	closed bool
}

type kept[K any] struct {
	key K
	at  time.Duration // since boot, before it was made
}

// take returns the oldest key that is young enough, or makes one.
func (s *stock[K]) take() (K, error) {
	s.mu.Lock()
	now := s.now()
	s.drop(now)
	busy := s.used != 0 && now-s.used < maxAge
	s.used = now
	var key K
	had := s.n > 0
	if had {
		key = s.pop()
	}
	if busy && !s.closed && s.n+s.owed+s.making < maxKept {
		s.owed++
	}
	s.mu.Unlock()
	if had {
		return key, nil
	}
	return s.fresh()
}

// pop takes out the oldest key. There is one.
func (s *stock[K]) pop() K {
	key := s.keys[s.first].key
	s.keys[s.first] = kept[K]{}
	s.first = (s.first + 1) % maxKept
	s.n--
	return key
}

// drop lets go of the keys that are too old.
func (s *stock[K]) drop(now time.Duration) {
	for s.n > 0 && now-s.keys[s.first].at >= maxAge {
		s.wipe(s.pop())
	}
}

func (s *stock[K]) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owed > 0
}

// piece makes up for one key that was used, and reports whether there was one. One that cannot be made is left out: who
// needs it will be told why.
func (s *stock[K]) piece() bool {
	s.mu.Lock()
	due := s.owed > 0
	if due {
		s.owed--
		s.making++
	}
	s.mu.Unlock()
	if !due {
		return false
	}
	at := s.now()
	key, err := s.fresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making--
	switch {
	case err != nil:
		return true
	case s.closed:
		s.wipe(key)
		return true
	}
	s.keys[(s.first+s.n)%maxKept] = kept[K]{key, at}
	s.n++
	if s.expiry == nil {
		s.expiry = time.AfterFunc(maxAge, s.expire)
	}
	return true
}

// expire drops what is too old, and comes again for the rest.
func (s *stock[K]) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.drop(now)
	s.expiry = nil
	if s.n > 0 {
		s.expiry = time.AfterFunc(s.keys[s.first].at+maxAge-now, s.expire)
	}
}

func (s *stock[K]) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func (s *stock[K]) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.owed = true, 0
	for s.n > 0 {
		s.wipe(s.pop())
	}
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
}
