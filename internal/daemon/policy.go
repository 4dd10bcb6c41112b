package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
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

// policyNames returns the names of the files of rules in a directory, in byte order.
func policyNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), policyEnding) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if err == nil && len(names) > maxPolicyFiles {
		err = fmt.Errorf("%s has %d files of rules; it may have %d", dir, len(names), maxPolicyFiles)
	}
	return names, err
}

// readRules reads all files of rules of a directory, as they are there together. It is nothing more than a directory on a
// safe way (rule 32).
func readRules(dir string) (files []policy.File, err error) {
	const tries = 3
	for range tries {
		if files, err = readRulesOnce(dir); !errors.Is(err, errChanging) {
			break
		}
	}
	return files, err
}

// readRulesOnce returns errChanging if a file has come or gone meanwhile: what is there for a moment only is neither a
// mistake nor a rule.
func readRulesOnce(dir string) ([]policy.File, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := safepath.Dir(abs, "its files"); err != nil {
		return nil, err
	}
	names, err := policyNames(abs)
	if err != nil {
		return nil, err
	}
	files := make([]policy.File, 0, len(names))
	size := 0
	for _, name := range names {
		path := filepath.Join(abs, name)
		data, err := readOwnFile(path, policy.MaxBytes, "could change who may talk to whom")
		if err != nil {
			info, _ := os.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) && (info == nil || info.Mode()&fs.ModeSymlink == 0) { // no symlink that leads nowhere
				return nil, errChanging
			}
			return nil, err
		}
		files = append(files, policy.File{Name: filepath.Join(filepath.Base(abs), name), Data: data})
		if size += len(data); size > policy.MaxBytes {
			break // which is refused when they are parsed, with what to do
		}
	}
	if now, err := policyNames(abs); err != nil || !slices.Equal(now, names) {
		return nil, errors.Join(errChanging, err)
	}
	return files, nil
}

// rulesState is pathsState of the files of rules in a directory, and of which there are.
func rulesState(dir string) string {
	names, err := policyNames(dir)
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	if err != nil {
		return pathsState(append(names, dir)) + err.Error()
	}
	return pathsState(names)
}

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
