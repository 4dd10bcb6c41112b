package service

import (
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/policy"
)

// A standard is what connections are judged by beside certificates: the policy in force, and the generation of policy
// and trust together, which counts their changes.
type standard struct {
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
	s.standard.mu.Lock()
	s.standard.policy = p
	s.standard.mu.Unlock()
	s.Changed()
}

// Changed says that policy or trust is another now, so that what stands is judged again.
func (s *Server) Changed() {
	s.standard.mu.Lock()
	defer s.standard.mu.Unlock()
	s.standard.generation++
	if s.standard.changed != nil {
		close(s.standard.changed)
		s.standard.changed = nil
	}
}

// inForce returns the policy and the generation of now.
func (s *Server) inForce() (*policy.Policy, uint64) {
	s.standard.mu.Lock()
	defer s.standard.mu.Unlock()
	return s.standard.policy, s.standard.generation
}

// changes returns what is closed at the next change.
func (s *Server) changes() <-chan struct{} {
	s.standard.mu.Lock()
	defer s.standard.mu.Unlock()
	if s.standard.changed == nil {
		s.standard.changed = make(chan struct{})
	}
	return s.standard.changed
}
