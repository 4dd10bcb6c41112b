package daemon

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// DefaultDeniedDir is where what is denied is read from if --denied does not say, and it is there.
const DefaultDeniedDir = "/etc/shared-altsd"

// The files below --denied: the first is written by `shared-altsd deny`, those of the directory by whatever configures a
// fleet.
const (
	DeniedFile = "denied.policy"
	DeniedMore = "denied.d"
)

// DeniedFiles are the files of what is denied, as they were read together.
type DeniedFiles struct {
	Files []policy.File // denied.policy first, if it is there
	Own   bool          // it is
	More  bool          // denied.d is there
}

// Sum returns the SHA-256 of denied.policy, of nothing if it is not there.
func (d *DeniedFiles) Sum() [32]byte {
	if !d.Own {
		return sha256.Sum256(nil)
	}
	return sha256.Sum256(d.Files[0].Data)
}

// hasMore reports whether there are files of denied.d.
func (d *DeniedFiles) hasMore() bool { return len(d.Files) > 1 || len(d.Files) == 1 && !d.Own }

// ReadDenied reads what is denied below a directory, which has to be there: denied.policy and denied.d/*.policy, each if
// it is there.
func ReadDenied(dir string) (*DeniedFiles, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := safepath.Dir(dir, DeniedFile); err != nil {
		return nil, err
	}
	d := new(DeniedFiles)
	path := filepath.Join(dir, DeniedFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		data, err := readOwnFile(path, policy.MaxBytes, "could deny, or let again, whom they like")
		if err != nil {
			return nil, err
		}
		d.Own, d.Files = true, []policy.File{{Name: DeniedFile, Data: data}}
	}
	more := filepath.Join(dir, DeniedMore)
	if _, err := os.Lstat(more); errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	d.More = true
	files, err := readRules(more)
	d.Files = append(d.Files, files...)
	return d, err
}

// deniedState tells one state of the files from another.
func deniedState(dir string) string {
	return pathsState([]string{filepath.Join(dir, DeniedFile)}) + rulesState(filepath.Join(dir, DeniedMore))
}

// A deniedStore keeps what is denied in force, apart from everything else that the daemon reads: what is wrong with a
// certificate, a list or the rules keeps no denial out.
type deniedStore struct {
	dir    string // "" for none
	policy *standard
	log    *slog.Logger

	standing atomic.Pointer[refusal] // of the files, nil for none

	mu      sync.Mutex
	files   *DeniedFiles // in force
	entries []string     // of files
	seen    string       // deniedState at the last poll
	tried   string       // that was last read to the end
}

// openDenied reads what is denied for the first time. dir is "" for DefaultDeniedDir, if that is there.
func openDenied(dir string, p *standard, log *slog.Logger) (*deniedStore, error) {
	s := &deniedStore{policy: p, log: log}
	if dir == "" {
		if _, err := os.Lstat(DefaultDeniedDir); errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		dir = DefaultDeniedDir
	}
	var err error
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("--denied: %w", err)
	}
	s.seen = deniedState(s.dir)
	s.tried = s.seen
	files, denied, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("--denied: %w", err)
	}
	s.files, s.entries, p.denied = files, deniedEntries(files), denied
	return s, nil
}

// read reads and understands the files.
func (s *deniedStore) read() (*DeniedFiles, *policy.Denied, error) {
	files, err := ReadDenied(s.dir)
	if err != nil {
		return nil, nil, err
	}
	denied, err := policy.ParseDenied(files.Files)
	return files, denied, err
}

// watch polls until done is closed. It is a goroutine of its own: whatever holds up the reading of other files does not
// hold up a denial.
func (s *deniedStore) watch(done <-chan struct{}) {
	if s.dir == "" {
		return
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.poll()
		case <-done:
			return
		}
	}
}

// poll reads files that changed, once two polls have seen the same, and tries again from time to time what was refused.
func (s *deniedStore) poll() {
	now := deniedState(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	atRest := now == s.seen
	s.seen = now
	refused := s.standing.Load()
	if atRest && (now != s.tried || refused != nil && time.Since(refused.last) >= retryInterval) {
		_ = s.reload("") // which has logged it
	}
}

// errNoStore says that this daemon reads no denials.
var errNoStore = errors.New("the daemon reads no denials: make " + DefaultDeniedDir + ", or give it another directory with " +
	"--denied, and start it again")

// Read reads the files now, for by, as the log says it, and returns the state that is in force then.
func (s *deniedStore) Read(by string) (sum [32]byte, entries int, err error) {
	if s.dir == "" {
		return sum, 0, errNoStore
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	const tries = 3
	for i := 0; ; i++ {
		if err = s.reload(by); !errors.Is(err, errChanging) || i == tries-1 {
			break
		}
	}
	if err != nil {
		return sum, 0, err
	}
	return s.files.Sum(), len(s.entries), nil
}

// reload brings the files into force, all or none; s.mu is held.
func (s *deniedStore) reload(by string) error {
	state := deniedState(s.dir)
	files, denied, err := s.read()
	if errors.Is(err, errChanging) || deniedState(s.dir) != state {
		return errChanging
	}
	s.tried = state
	if err == nil {
		err = s.lost(files)
	}
	if err != nil {
		s.refuse(err)
		return err
	}
	if s.standing.Swap(nil) != nil {
		s.log.Info("what is denied is read again, and in force")
	}
	entries := deniedEntries(files)
	changed := !slices.EqualFunc(files.Files, s.files.Files, func(a, b policy.File) bool {
		return a.Name == b.Name && bytes.Equal(a.Data, b.Data)
	})
	if changed {
		s.policy.setDenied(denied)
		s.logChange("denied", withoutEach(entries, s.entries), by)
		s.logChange("denial lifted", withoutEach(s.entries, entries), by)
	}
	s.files, s.entries = files, entries
	return nil
}

// lost refuses files that have gone as a whole while what they denied is in force: a disk that is away lets nobody in.
func (s *deniedStore) lost(files *DeniedFiles) error {
	denied := func(by string) bool {
		return slices.ContainsFunc(s.entries, func(e string) bool { return strings.HasPrefix(e, by) })
	}
	gone := ""
	switch {
	case s.files.Own && !files.Own && denied(DeniedFile+": "):
		gone = DeniedFile
	case !denied(DeniedMore + "/"):
		return nil
	case !files.More:
		gone = DeniedMore
	case !files.hasMore():
		return fmt.Errorf("%s has no file *%s any more, and denied somebody: put them back, or an empty one to lift all that they "+
			"denied", filepath.Join(s.dir, DeniedMore), policyEnding)
	default:
		return nil
	}
	return fmt.Errorf("%s is gone, and denied somebody: put it back, or an empty one to lift all that it denied",
		filepath.Join(s.dir, gone))
}

// refuse notes and logs a refusal; the same once more is not logged again.
func (s *deniedStore) refuse(err error) {
	now := time.Now()
	r := &refusal{what: "what is denied", since: now, last: now, err: err}
	before := s.standing.Load()
	if before != nil {
		r.since = before.since
	}
	s.standing.Store(r)
	if before == nil || before.err.Error() != err.Error() {
		s.log.Error("what is denied was not read: what was denied before stays denied, and nothing is added", "error",
			cli.OneLine(err.Error()), "since", r.since.UTC().Format(time.RFC3339))
	}
}

const (
	maxEntryShown = 512 // bytes of a denial in the log
	entriesLogged = 16  // of one change
)

// deniedEntries returns the denials of files, as "FILE: line".
func deniedEntries(d *DeniedFiles) (entries []string) {
	for _, f := range d.Files {
		for line := range strings.Lines(string(f.Data)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				entries = append(entries, f.Name+": "+line)
			}
		}
	}
	return entries
}

// withoutEach returns what a has more than b.
func withoutEach(a, b []string) (more []string) {
	has := make(map[string]int)
	for _, e := range b {
		has[e]++
	}
	for _, e := range a {
		if has[e]--; has[e] < 0 {
			more = append(more, e)
		}
	}
	return more
}

// logChange logs entries that came or went.
func (s *deniedStore) logChange(what string, entries []string, by string) {
	for _, e := range entries[:min(len(entries), entriesLogged)] {
		if len(e) > maxEntryShown {
			e = strings.ToValidUTF8(e[:maxEntryShown], "") + "..."
		}
		attrs := []any{"entry", e}
		if by != "" {
			attrs = append(attrs, "by", by)
		}
		s.log.Warn(what, attrs...)
	}
	if more := len(entries) - entriesLogged; more > 0 {
		s.log.Warn(what, "more", more)
	}
}
