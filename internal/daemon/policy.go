package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/policy"
)

// maxPolicyFiles bounds the files of rules in a directory, those of what is denied included.
const maxPolicyFiles = 1024

// policyEnding ends the names of files of rules; others, those of editors for instance, are not read.
const policyEnding = ".policy"

// A ruleSet is what --policy says.
type ruleSet struct {
	rules *policy.Rules
	sum   [32]byte // tells it from others
	text  string   // how many rules, in which mode
}

// ReadPolicy returns the files of rules in a directory, in byte order of their names. An error names the directory and what
// to do.
func ReadPolicy(dir string) ([]policy.File, error) {
	files, err := readRules(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; make it with files of rules, %s, or leave --policy out, which lets everybody", err,
			filepath.Join(dir, "*"+policyEnding))
	case err == nil && len(files) == 0:
		return nil, fmt.Errorf("%s has no file of rules, *%s: put one there (the line 'default in allow' lets everybody in), or "+
			"leave --policy out", dir, policyEnding)
	}
	return files, err
}

// rulesDir is what a directory of rules is.
var rulesDir = ownDir{ending: policyEnding, what: "files of rules", max: maxPolicyFiles, bytes: policy.MaxBytes,
	harm: "could change who may talk to whom"}

// readRules reads all files of rules of a directory, as they are there together.
func readRules(dir string) (files []policy.File, err error) {
	parts, err := rulesDir.read(dir)
	for _, p := range parts {
		files = append(files, policy.File{Name: filepath.Join(filepath.Base(filepath.Dir(p.Path)), filepath.Base(p.Path)), Data: p.Data})
	}
	return files, err
}

// rulesState is pathsState of the files of rules in a directory, and of which there are.
func rulesState(dir string) string { return rulesDir.state(dir) }

// loadRules reads the rules, nil if there are to be none.
func (f *Files) loadRules() (*ruleSet, error) {
	if f.Policy == "" {
		return nil, nil
	}
	files, err := ReadPolicy(f.Policy)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	s := new(ruleSet)
	if s.rules, err = policy.ParseRules(files); err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	s.sum = sumOf(files)
	p := policy.New(nil, s.rules)
	n, _ := p.Count()
	s.text = fmt.Sprintf("%d rules, %s", n, p.Mode())
	return s, nil
}

// sumOf tells files of rules from others, by names and contents.
func sumOf(files []policy.File) [32]byte {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d\n", f.Name, len(f.Data))
		h.Write(f.Data)
	}
	return [32]byte(h.Sum(nil))
}

// A standard is the policy in force: rules, and what is denied before them, which change apart from each other.
type standard struct {
	apply  func(*policy.Policy) // puts a policy in force
	forget func()               // what was counted by rules that are others now

	mu     sync.Mutex
	rules  *ruleSet
	denied *policy.Denied
	now    *policy.Policy
}

// setRules puts rules in force, nil for none, and has what stands judged again.
func (s *standard) setRules(r *ruleSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == nil || s.rules == nil || r.sum != s.rules.sum {
		defer s.forget()
	}
	s.rules = r
	s.set()
}

// setDenied puts in force what is denied.
func (s *standard) setDenied(d *policy.Denied) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = d
	s.set()
}

// start puts in force what was read at the start.
func (s *standard) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set()
}

func (s *standard) set() {
	var rules *policy.Rules
	if s.rules != nil {
		rules = s.rules.rules
	}
	s.now = policy.New(s.denied, rules)
	if _, denied := s.now.Count(); rules == nil && denied == 0 {
		s.now = nil // which costs nothing
	}
	s.apply(s.now)
}

// inForce returns the policy of now.
func (s *standard) inForce() *policy.Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}
