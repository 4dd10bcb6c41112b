package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
)

// A reloader brings changed files into force: all of them together for the next handshake, or none.
type reloader struct {
	files   Files
	machine *certbind.Machine
	memory  *listMemory // of mu
	log     *slog.Logger
	observe func(error) // is told the outcome of each reload that read the files to the end

	mu      sync.Mutex
	seen    string    // state of the files at the last poll
	tried   string    // state of the files that were last read to the end, whether they came into force or not
	failed  time.Time // when a set was refused, zero if the last one came into force
	lastErr string
}

// newReloader watches files that machine was made of in the given state.
func newReloader(files Files, state string, machine *certbind.Machine, memory *listMemory, log *slog.Logger,
	observe func(error)) *reloader {
	return &reloader{files: files, machine: machine, memory: memory, log: log, observe: observe, seen: state, tried: state}
}

// errChanging says that the files changed while they were being read; the next polls try again.
var errChanging = errors.New("the files changed while they were read: they are tried again when they are at rest")

// poll is called at every pollInterval. Files that changed are read once two polls have seen the same, so that a set
// that is just being written is not read by halves.
func (r *reloader) poll() {
	now := r.files.state()
	r.mu.Lock()
	defer r.mu.Unlock()
	atRest := now == r.seen
	r.seen = now
	changed := now != r.tried
	retry := !r.failed.IsZero() && time.Since(r.failed) >= retryInterval
	if atRest && (changed || retry) {
		r.reload(reloadRequest{})
	}
}

// Reload reads everything now. A credential that is not nil, a PEM with key and chain, takes the place of
// --credentials and --key, now and at later reloads; it is the reloader's from then on, and wiped if it is refused.
func (r *reloader) Reload(req reloadRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reload(req)
}

// remember notes how new the lists in force are, whose CAs peers have shown by now.
func (r *reloader) remember() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory.add(r.machine.Trust())
}

func (r *reloader) reload(req reloadRequest) error {
	err := r.tryReload(req)
	if !errors.Is(err, errChanging) {
		r.observe(err)
	}
	return err
}

func (r *reloader) tryReload(req reloadRequest) error {
	state := r.files.state()
	files := r.files
	if req.credential != nil {
		files.given = req.credential
	}
	next, err := files.load(r.machine.Name())
	if err == nil && r.files.state() != state {
		err = errChanging
	} else {
		r.tried = state
	}
	var marks certbind.Marks
	var let []string
	if err == nil {
		err = r.noWorse(next)
	}
	if err == nil {
		marks, let, err = r.noOlderLists(next.trust, req)
	}
	old := r.machine.Credential()
	if err == nil {
		next.trust = r.files.demand(next.trust, marks)
		err = r.machine.Reload(next.credential, next.trust)
	}
	if err != nil {
		clear(req.credential)
		if next != nil {
			wipeCredential(next.credential)
		}
		r.failed = time.Now()
		// A set that is refused again for the same reason is not logged again.
		if text := err.Error(); text != r.lastErr {
			r.lastErr = text
			r.log.Error("reload refused, the old certificates stay in force", "error", cli.OneLine(text))
		}
		return err
	}
	r.failed, r.lastErr = time.Time{}, ""
	wipeCredential(old)
	if req.credential != nil {
		clear(r.files.given)
	}
	r.files.given = files.given
	r.memory.marks = marks
	r.memory.add(next.trust)
	for _, l := range let {
		r.log.Warn("let by the administrator: " + l)
	}
	for _, w := range next.warnings {
		r.log.Warn(w)
	}
	r.log.Info("reloaded", credentialAttrs(next)...)
	logFaults(r.log, next)
	return nil
}

// noWorse refuses a new certificate that peers would refuse, where they would accept the one in force. Both are
// judged by the new CAs and revocation lists: these must not wait because they turn against this machine itself. It
// also refuses lists that are out of date already, or that leave out the certificate in force, as when a CA begins to
// divide its list, where those in force do not: peers' certificates would be left out as well.
func (r *reloader) noWorse(next *loaded) error {
	now := time.Now()
	if stale := staleList(next.trust, now); stale != "" && !r.files.CRLStaleOK && staleList(r.machine.Trust(), now) == "" {
		return fmt.Errorf("the revocation list %s is past its next update: fetch a new one from the CA", stale)
	}
	before := firstFault(certbind.Check(r.machine.Credential(), next.name, next.trust, now))
	if before != nil && (before.Setting == certbind.SettingLists || before.Setting == certbind.SettingCompleteList) &&
		firstFault(certbind.Check(r.machine.Credential(), next.name, r.machine.Trust(), now)) == nil {
		return errors.New(faultWithFlag(*before).String())
	}
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
