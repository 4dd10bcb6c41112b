package certbind

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Bounds on the statements kept. One account, however many sets of attributes it has, can push out only its own.
const (
	maxStatements           = 4096
	maxStatementsPerAccount = 16
)

// inUse is how long after its last use a statement is made anew before a static key or certificate takes its place.
const inUse = time.Hour

// statements are those about one static key under one leaf, by account and attributes.
type statements struct {
	mu       sync.Mutex
	entries  map[statementKey]*list.Element
	all      list.List // of *keptStatement, longest unused first
	accounts map[string]*list.List
}

type statementKey struct{ account, attributes string }

// A keptStatement is the current statement about an account with certain attributes, and the signature of the next one while
// it is made: concurrent callers wait for one signature, and those of others do not wait.
type keptStatement struct {
	statementKey
	attrs     []Attribute
	used      time.Time     // of statements.mu
	inAccount *list.Element // its place in accounts[account], also longest unused first

	mu                         sync.Mutex
	identity                   []byte
	notBefore, renew, notAfter time.Time
	signing                    *signing  // nil if no signature is being made
	failure                    error     // of the last signature
	failed                     time.Time // when that was
}

func newStatements() *statements {
	return &statements{entries: make(map[statementKey]*list.Element), accounts: make(map[string]*list.List)}
}

// holds reports whether there is a statement, in its time.
func (k *keptStatement) holds(now time.Time) bool {
	return k.identity != nil && !now.Before(k.notBefore) && !now.After(k.notAfter)
}

// use finds or makes room for a statement, now in use. If there are too many, of the account or in all, the one
// longest unused is dropped: it costs one more signature, no more.
func (s *statements) use(account string, encoded []byte, attrs []Attribute, now time.Time) *keptStatement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[statementKey{account, string(encoded)}]; e != nil {
		k := e.Value.(*keptStatement)
		k.used = now
		s.all.MoveToBack(e)
		s.accounts[account].MoveToBack(k.inAccount)
		return k
	}
	return s.add(&keptStatement{statementKey: statementKey{account, string(encoded)}, attrs: slices.Clone(attrs), used: now})
}

func (s *statements) add(k *keptStatement) *keptStatement {
	own := s.accounts[k.account]
	if own == nil {
		own = new(list.List)
		s.accounts[k.account] = own
	}
	e := s.all.PushBack(k)
	k.inAccount = own.PushBack(e)
	s.entries[k.statementKey] = e
	if own.Len() > maxStatementsPerAccount {
		s.remove(own.Front().Value.(*list.Element))
	}
	if s.all.Len() > maxStatements {
		s.remove(s.all.Front())
	}
	return k
}

func (s *statements) remove(e *list.Element) {
	k := e.Value.(*keptStatement)
	s.all.Remove(e)
	own := s.accounts[k.account]
	own.Remove(k.inAccount)
	if own.Len() == 0 {
		delete(s.accounts, k.account)
	}
	delete(s.entries, k.statementKey)
}

// get returns what is kept, nil for nothing.
func (s *statements) get(account string, encoded []byte) *keptStatement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[statementKey{account, string(encoded)}]; e != nil {
		return e.Value.(*keptStatement)
	}
	return nil
}

func (s *statements) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Len()
}

// follow makes room for what is in use in old and not here yet, and returns it: the last used of each account first, then the
// last but one, so that no account gets ahead of others by many sets of attributes.
func (s *statements) follow(old *statements, now time.Time) []*keptStatement {
	var used []*keptStatement // longest unused first
	old.mu.Lock()
	for e := old.all.Front(); e != nil; e = e.Next() {
		if k := e.Value.(*keptStatement); now.Sub(k.used) <= inUse {
			used = append(used, &keptStatement{statementKey: k.statementKey, attrs: k.attrs, used: k.used})
		}
	}
	old.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var fresh []*keptStatement
	for _, k := range used {
		if e := s.entries[k.statementKey]; e != nil {
			e.Value.(*keptStatement).used = k.used
			continue
		}
		fresh = append(fresh, s.add(k))
	}
	var turns [][]*keptStatement
	turn := make(map[string]int)
	for _, k := range slices.Backward(fresh) {
		n := turn[k.account]
		turn[k.account]++
		if n == len(turns) {
			turns = append(turns, nil)
		}
		turns[n] = append(turns[n], k)
	}
	return slices.Concat(turns...)
}
