package service

import (
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/policy"
)

// A measure is what connections are judged by beside certificates: the policy in force, and the generation of policy
// and trust together, which counts their changes.
type measure struct {
	mu         sync.Mutex
	policy     *policy.Policy
	generation uint64
	changed    chan struct{} // closed at the next change
}

// SetPolicy puts a policy in force for the next judgement; nil is none.
func (s *Server) SetPolicy(p *policy.Policy) {
	var groups []string
	if p != nil {
		groups = p.LocalGroups()
	}
	if a, ok := s.accounts.(interface{ LookFor(groups []string) }); ok {
		a.LookFor(groups) // before there is a rule that asks for one
	}
	s.measure.mu.Lock()
	s.measure.policy = p
	s.measure.mu.Unlock()
	s.Changed()
}

// Changed says that policy or trust is another now, so that what stands is judged again.
func (s *Server) Changed() {
	s.measure.mu.Lock()
	defer s.measure.mu.Unlock()
	s.measure.generation++
	if s.measure.changed != nil {
		close(s.measure.changed)
		s.measure.changed = nil
	}
}

// inForce returns the policy and the generation of now.
func (s *Server) inForce() (*policy.Policy, uint64) {
	s.measure.mu.Lock()
	defer s.measure.mu.Unlock()
	return s.measure.policy, s.measure.generation
}

// changes returns what is closed at the next change.
func (s *Server) changes() <-chan struct{} {
	s.measure.mu.Lock()
	defer s.measure.mu.Unlock()
	if s.measure.changed == nil {
		s.measure.changed = make(chan struct{})
	}
	return s.measure.changed
}
