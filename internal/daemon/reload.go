package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

const (
	// pollInterval is how often the files are looked at, without being read.
	pollInterval = time.Second
	// retryInterval is how often a set of files that was refused is tried again as it is: a certificate that was made a
	// little ahead of our clock becomes good without a change of its file.
	retryInterval = time.Minute
	// maxReload is how long a reload may take before it counts as one that hangs.
	maxReload = certbind.MaxPreparation + 2*time.Minute
)

// A reloader brings changed files into force: all of them together for the next handshake, or none.
type reloader struct {
	files    Files // in force, of mu
	wanted   Files // by the config file as it was read last, of mu
	settings *settings
	machine  *certbind.Machine
	policy   *standard
	memory   *listMemory // of mu
	log      *slog.Logger
	// observe is told the outcome of each reload, and what Refused returns then.
	observe  func(err error, refused *refusal)
	standing atomic.Pointer[refusal]
	began    atomic.Pointer[time.Time] // of the reload or poll that is under way

	mu      sync.Mutex // held through a reload, which may take minutes where the key is slow
	rules   *ruleSet   // in force
	seen    filesState // at the last poll
	tried   filesState // that were last read to the end, whether they came into force or not
	inForce filesState // when what is in force was read, or the credential handed over
	refused refusals
	lists   listWatch
}

// newReloader watches files that machine was made of in the given state.
func newReloader(files Files, state filesState, machine *certbind.Machine, p *standard, memory *listMemory, log *slog.Logger,
	observe func(error, *refusal)) *reloader {
	return &reloader{files: files, wanted: files, machine: machine, policy: p, rules: p.rules, memory: memory, log: log, observe: observe,
		seen: state, tried: state, inForce: state}
}

// Refused returns what was refused and has not been made good, nil for nothing.
func (r *reloader) Refused() *refusal { return r.standing.Load() }

// errChanging says that the files changed while they were being read; the next polls try again.
var errChanging = errors.New("the files changed while they were read: they are tried again when they are at rest")

// lock waits for the reload that is under way, if there is one.
func (r *reloader) lock() {
	r.mu.Lock()
	now := time.Now()
	r.began.Store(&now)
}

// tryLock takes the lock if no reload is under way.
func (r *reloader) tryLock() bool {
	if !r.mu.TryLock() {
		return false
	}
	now := time.Now()
	r.began.Store(&now)
	return true
}

func (r *reloader) unlock() {
	r.began.Store(nil)
	r.mu.Unlock()
}

// hangs reports whether what is under way will hardly end any more.
func (r *reloader) hangs() bool {
	began := r.began.Load()
	return began != nil && time.Since(*began) > maxReload
}

// poll is called at every pollInterval. Files that changed are read once two polls have seen the same, so that a set
// that is just being written is not read by halves.
func (r *reloader) poll() {
	if !r.tryLock() {
		return // the next poll sees what has changed
	}
	defer r.unlock()
	r.settings.look(time.Now())
	now := r.state()
	atRest := now == r.seen
	r.seen = now
	changed := now != r.tried
	// What was handed over is not here any more to be tried again: who has the file does that.
	retry := r.refused.files != nil && time.Since(r.refused.files.last) >= retryInterval
	if atRest && (changed || retry) {
		r.reload(reloadRequest{polled: true})
	}
	r.pollLists()
}

// Reload reads everything now. A credential that is not nil, a PEM with key and chain, takes the place of
// --credentials and --key, now and at later reloads until these files change; it is the reloader's from then on, and
// wiped if it is refused.
// changed returns in words what is another than before.
func (r *reloader) Reload(req reloadRequest) (changed []string, err error) {
	r.lock()
	defer r.unlock()
	return r.reload(req)
}

// remember notes how new the lists in force are, whose CAs peers have shown by now.
func (r *reloader) remember() {
	if !r.tryLock() {
		return // a reload remembers them itself
	}
	defer r.unlock()
	r.memory.add(r.machine.Trust())
}

// Refuse notes that a credential which was to be handed over could not even be read.
func (r *reloader) Refuse(why error) {
	r.lock()
	defer r.unlock()
	r.refuse(true, why)
	r.observe(why, r.Refused())
}

func (r *reloader) reload(req reloadRequest) (changed []string, err error) {
	changed, err = r.tryReload(req)
	handed := req.credential != nil
	if errors.Is(err, errChanging) && !handed {
		return nil, err
	}
	if err != nil {
		r.refuse(handed, err)
	}
	r.observe(err, r.Refused())
	return changed, err
}

// refuse notes and logs a refusal; the same once more is not logged again. It reports whether it did.
func (r *reloader) refuse(handed bool, err error) bool {
	refused, again := r.refused.add(handed, err, time.Now())
	r.standing.Store(r.refused.standing())
	if refused == r.refused.lists {
		again = !r.mayRefuse(err)
	}
	if !again {
		leaf := r.machine.Credential().Leaf
		what := "reload refused, the old certificates stay in force"
		if refused == r.refused.lists {
			what = "revocation lists refused, those in force stay"
		}
		r.log.Error(what, "error", cli.OneLine(err.Error()), "refused",
			refused.what, "since", refused.since.UTC().Format(time.RFC3339), "serial", fmt.Sprintf("%x", leaf.SerialNumber),
			"expires", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return !again
}

// state returns what tells one state of the files from another, with that of the config file while it is to be read.
func (r *reloader) state() filesState {
	s := r.wanted.state()
	if r.settings != nil && r.settings.owed {
		s.config = r.settings.state()
	}
	return s
}

// configure reads the config file again if a reload was asked for, and until what it says has come into force, which done is to
// note. r.files are the new ones then.
func (r *reloader) configure(req reloadRequest) (changed []string, done func(), err error) {
	if r.settings == nil || req.polled && !r.settings.owed {
		return nil, func() {}, nil
	}
	r.settings.owed = true
	files, changed, done, err := r.settings.again(r.files)
	if err != nil {
		r.tried = r.state()
		return nil, nil, err
	}
	r.files, r.wanted = files, files
	return changed, done, nil
}

func (r *reloader) tryReload(req reloadRequest) (changed []string, err error) {
	before := r.files
	defer func() {
		if err != nil {
			r.files = before
		}
	}()
	changed, configured, err := r.configure(req)
	if err != nil {
		clear(req.credential)
		return nil, err
	}
	state := r.state()
	files := r.files
	renewed := req.credential != nil || state.credential != r.inForce.credential
	if renewed {
		// A file that changed since goes before what was handed over.
		files.given = req.credential
	}
	files.sameKey = req.polled && !renewed
	next, err := files.load(r.machine.Name())
	switch {
	case errors.Is(err, errChanging), err == nil && r.state() != state:
		err = errChanging
	case req.credential == nil: // else the files may be good without what was handed over
		r.tried = state
	}
	var judged judgement
	if err == nil {
		judged, err = r.judge(next, req, renewed || len(changed) > 0 || state.trust != r.inForce.trust)
	}
	old := force{r.machine.Credential(), r.machine.Trust(), r.rules}
	if err == nil {
		next.trust = r.files.demand(next.trust, judged.marks)
		err = r.machine.Reload(next.credential, next.trust)
	}
	if err != nil {
		clear(req.credential)
		if next != nil {
			wipeCredential(next.credential)
		}
		return nil, err
	}
	configured()
	r.rules = next.rules
	r.policy.setRules(next.rules) // also where they are as they were, since the trust is another
	state.config = ""
	r.tried, r.inForce = state, state
	r.refused.lift(renewed)
	if judged.kept != nil {
		r.refuse(false, judged.kept)
	}
	r.standing.Store(r.refused.standing())
	wipeCredential(old.credential)
	if renewed {
		clear(r.files.given)
	}
	r.files.given = files.given
	r.memory.marks = judged.marks
	r.memory.add(next.trust)
	for _, l := range judged.let {
		r.log.Warn("let by the administrator", "what", l)
	}
	for _, w := range next.warnings {
		r.log.Warn("warning", "what", w)
	}
	changed = append(changed, changes(old, force{next.credential, next.trust, next.rules})...)
	attrs := append(credentialAttrs(next), "changed", changedText(changed))
	if s := r.refused.standing(); s != nil {
		attrs = append(attrs, "still_refused", s.what, "since", s.since.UTC().Format(time.RFC3339))
	}
	r.log.Info("reloaded", attrs...)
	logFaults(r.log, next)
	return changed, nil
}

// noWorse refuses a new certificate that peers would refuse, where they would accept the one in force. Both are
// judged by the new CAs and revocation lists: these must not wait because they turn against this machine itself.
func (r *reloader) noWorse(next *loaded) error {
	now := time.Now()
	before := firstFault(certbind.Check(r.machine.Credential(), next.name, next.trust, now))
	fault := firstFault(certbind.Check(next.credential, next.name, next.trust, now))
	if fault == nil || before != nil {
		return nil
	}
	return errors.New(faultWithFlag(*fault).String())
}

// staleList returns the file of a revocation list that is past its next update, "" if there is none.
func staleList(t *certbind.Trust, now time.Time) string {
	for _, l := range t.CRLs() {
		if now.After(l.NextUpdate) {
			return l.Source
		}
	}
	return ""
}

func firstFault(faults []certbind.Fault) *certbind.Fault {
	for i := range faults {
		if !faults[i].Warning {
			return &faults[i]
		}
	}
	return nil
}
