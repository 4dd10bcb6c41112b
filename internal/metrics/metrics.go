// Package metrics counts what the daemon does and shows it in Prometheus' text format.
//
// It writes that format itself: it is a page of code that promtool checks in the tests, whereas the client library
// would bring half a dozen modules into the process that holds the machine's private key. A page has at most MaxSeries
// series, whatever the machine trusts and whatever happens to it, and no label is of anybody else's choice: what differs
// by account, by each reason and by each CA is in the Figures alone, which status shows.
package metrics

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// accepted is the reason of a handshake that was not refused.
var accepted = reason.Accepted.String()

// maxUIDs bounds the uids that are counted apart; those beyond are counted together.
const maxUIDs = 1024

// A Handshake is what is counted of one handshake.
type Handshake struct {
	Initiator bool
	UID       uint32 // of the local account
	Account   string // its name, empty if it has none
	// Reason is "accepted", the name of a reason code, or one of the daemon's own words for an end without a code.
	Reason   string
	ByPeer   bool   // the peer's daemon refused, not ours
	Would    bool   // permissive rules would have refused it
	CA       string // that vouched for the peer, empty if he is not verified
	Duration time.Duration
}

// A result is how a handshake ended.
type result int

const (
	wasAccepted result = iota
	refusedHere
	refusedByPeer
	givenUp // by an application, which is nobody's refusal
	numResults
)

func (r result) String() string {
	return [...]string{"accepted", "refused_here", "refused_by_peer", "given_up"}[r]
}

func (h *Handshake) result() result {
	switch {
	case h.Reason == accepted:
		return wasAccepted
	case h.Reason == reason.PeerClosedName || h.Reason == reason.CancelledName:
		return givenUp
	case h.ByPeer:
		return refusedByPeer
	}
	return refusedHere
}

// A Set is all that the daemon counts. Its methods may be called at the same time.
type Set struct {
	version, machine string
	started          time.Time

	mu       sync.Mutex
	results  [2][numResults]uint64 // by role
	reasons  [numResults]map[string]uint64
	accounts map[uint32]*AccountFigures
	others   AccountFigures // of the uids beyond maxUIDs
	cas      []string       // those that are counted apart, in their order
	byCA     map[string]uint64
	duration histogram // of those that were accepted
	would    uint64
	reloads  Reloads
}

// Reloads are what became of the reloads.
type Reloads struct {
	Succeeded, Failed uint64
	LastSuccess       time.Time // the start counts as one
	RefusedSince      time.Time // of what was refused and nothing has made good since, zero for nothing
}

// OtherCA stands for the CAs that are not counted apart, those of the system's pool.
const OtherCA = "other"

// New returns an empty Set of a machine's daemon that has just come up with all its files in force. Each sample bears the
// machine's name: the address at which they are read is the same on every machine.
func New(version, machine string) *Set {
	now := time.Now()
	s := &Set{version: version, machine: machine, started: now, reloads: Reloads{LastSuccess: now},
		accounts: make(map[uint32]*AccountFigures), duration: newHistogram()}
	for r := range s.reasons {
		s.reasons[r] = make(map[string]uint64)
	}
	s.SetCAs(nil)
	return s
}

// SetCAs says by which CAs handshakes are counted apart from now on. What was counted of others is let go.
func (s *Set) SetCAs(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cas = nil
	next := map[string]uint64{OtherCA: s.byCA[OtherCA]}
	for _, name := range names {
		if _, twice := next[name]; !twice {
			next[name] = s.byCA[name]
			s.cas = append(s.cas, name)
		}
	}
	s.byCA = next
}

// Handshake counts one handshake that has ended.
func (s *Set) Handshake(h Handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := h.result()
	s.results[role(h.Initiator)][r]++
	if h.Would {
		s.would++
	}
	account := s.account(h.UID, h.Account)
	if r != wasAccepted {
		account.Failed++
		s.reasons[r][reason.Fold(h.Reason)]++
		return
	}
	account.Accepted++
	s.duration.observe(h.Duration.Seconds())
	ca := h.CA
	if _, apart := s.byCA[ca]; !apart {
		ca = OtherCA
	}
	s.byCA[ca]++
}

// account returns where a uid is counted.
func (s *Set) account(uid uint32, name string) *AccountFigures {
	a := s.accounts[uid]
	if a == nil {
		if len(s.accounts) >= maxUIDs {
			return &s.others
		}
		a = &AccountFigures{UID: uid}
		s.accounts[uid] = a
	}
	if name != "" {
		a.Account = name
	}
	return a
}

func role(initiator bool) int {
	if initiator {
		return 1
	}
	return 0
}

// Handshakes returns how many handshakes in one role have ended, well and otherwise.
func (s *Set) Handshakes(initiator bool) (succeeded, failed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, n := range s.results[role(initiator)] {
		if result(r) == wasAccepted {
			succeeded += n
		} else {
			failed += n
		}
	}
	return succeeded, failed
}

// Figures are what is told apart further than a page of metrics has room for.
type Figures struct {
	RefusedHere, RefusedByPeer, GivenUp []Figure // by reason, the most frequent first
	ByCA                                []Figure // accepted ones, in the order in which CAs are trusted, OtherCA last
	Accounts                            []AccountFigures
	OtherAccounts                       AccountFigures // of those that are not in the list
}

// A Figure is how often something was.
type Figure struct {
	Name  string
	Count uint64
}

// An AccountFigures is how the handshakes of one local account ended.
type AccountFigures struct {
	UID              uint32
	Account          string // as it was last named, empty if it has no name
	Accepted, Failed uint64
}

// Figures returns those of now, with the accounts whose handshakes failed most often, at most so many.
func (s *Set) Figures(accounts int) Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Figures{RefusedHere: ranked(s.reasons[refusedHere]), RefusedByPeer: ranked(s.reasons[refusedByPeer]),
		GivenUp: ranked(s.reasons[givenUp]), OtherAccounts: s.others}
	for _, ca := range append(slices.Clip(s.cas), OtherCA) {
		f.ByCA = append(f.ByCA, Figure{ca, s.byCA[ca]})
	}
	for _, a := range s.accounts {
		f.Accounts = append(f.Accounts, *a)
	}
	slices.SortFunc(f.Accounts, func(a, b AccountFigures) int {
		return cmp.Or(cmp.Compare(b.Failed, a.Failed), cmp.Compare(b.Accepted, a.Accepted), cmp.Compare(a.UID, b.UID))
	})
	for _, a := range f.Accounts[min(accounts, len(f.Accounts)):] {
		f.OtherAccounts.Accepted += a.Accepted
		f.OtherAccounts.Failed += a.Failed
	}
	f.Accounts = f.Accounts[:min(accounts, len(f.Accounts))]
	return f
}

// ranked returns counts, the largest first.
func ranked(counts map[string]uint64) (figures []Figure) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		figures = append(figures, Figure{name, counts[name]})
	}
	slices.SortStableFunc(figures, func(a, b Figure) int { return cmp.Compare(b.Count, a.Count) })
	return figures
}

// Reload counts one reload and its outcome. refused says since when something stands refused, zero for nothing: that
// may be so after a reload that went well, of other files.
func (s *Set) Reload(err error, refused time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloads.RefusedSince = refused
	if err == nil {
		s.reloads.Succeeded++
		s.reloads.LastSuccess = time.Now()
	} else {
		s.reloads.Failed++
	}
}

// Reloads returns what became of the reloads.
func (s *Set) Reloads() Reloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

// Started returns when the Set was made.
func (s *Set) Started() time.Time { return s.started }
