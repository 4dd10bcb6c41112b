package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// A judgement is by which marks lists go, what of them the administrator let go, and why CAs' lists of directories that are
// in force stay, nil if none do.
type judgement struct {
	marks certbind.Marks
	let   []string
	kept  error
}

// judge adds the lists of the directories to what was read from files, and refuses what may not come into force. A CA whose
// lists of directories may not come keeps those that are in force, and keeps nothing else out; more says that there is
// something beside such lists to bring.
func (r *reloader) judge(next *loaded, req reloadRequest, more bool) (j judgement, err error) {
	inForce := r.machine.Trust()
	state, begun := r.files.listDirsState(inForce), time.Now()
	trust, passed, err := r.files.offer(next.trust, next.credential.Chain, r.memory.marks, inForce)
	if err != nil {
		return j, err
	}
	if len(r.files.listDirs()) > 0 {
		r.listsRead(state, begun)
		r.setPassed(passed)
	}
	next.trust = trust
	var kept []error
	for {
		if j.marks, j.let, err = r.noWorseLists(next, req); err == nil {
			break
		}
		cas := r.atFault(err, next)
		if len(cas) == 0 {
			return j, err
		}
		for _, ca := range cas {
			next.trust = next.trust.WithOfferedOf(inForce, ca)
		}
		kept = append(kept, because(err, passed))
	}
	if err := r.noWorse(next); err != nil {
		return j, err
	}
	if len(kept) == 0 {
		r.refused.lists = nil
		return j, nil
	}
	j.kept = listsError{errors.Join(kept...)}
	if !more && next.trust.SameLists(inForce) {
		return j, j.kept
	}
	return j, nil
}

// because adds to an error what is wrong with the file that it names, if that is passed over.
func because(err error, passed []certbind.PassedOver) error {
	i := slices.IndexFunc(passed, func(p certbind.PassedOver) bool { return strings.Contains(err.Error(), p.Source) })
	if i < 0 {
		return err
	}
	return fmt.Errorf("%w (passed over: %s: %s)", err, passed[i].Source, passed[i].Why)
}

// A behindError is of one CA's lists.
type behindError struct {
	error
	ca []byte // its key
}

// A leftOutError says that lists leave out a certificate of this machine.
type leftOutError struct{ error }

// atFault returns the CAs whose lists of directories an error of noWorseLists is about, by their keys, as far as others than
// these are in force.
func (r *reloader) atFault(err error, next *loaded) [][]byte {
	inForce := r.machine.Trust()
	cas := next.trust.OfferedAnew(inForce)
	if b, ok := errors.AsType[behindError](err); ok {
		return slices.DeleteFunc(cas, func(ca []byte) bool { return !slices.Equal(ca, b.ca) })
	}
	if _, ok := errors.AsType[leftOutError](err); !ok {
		return nil
	}
	for _, ca := range cas {
		if r.leftOut(next.credential, next.trust.WithOfferedOf(inForce, ca)) == nil {
			return [][]byte{ca}
		}
	}
	return cas
}

// noWorseLists refuses lists that are out of date already, or that leave out a certificate of this machine, as when a CA
// begins to divide its list, where those in force do not: peers' certificates would be left out as well. Then it does what
// noOlderLists does.
func (r *reloader) noWorseLists(next *loaded, req reloadRequest) (marks certbind.Marks, let []string, err error) {
	now := time.Now()
	if stale := staleList(next.trust, now); stale != "" && !r.files.CRLStaleOK && staleList(r.machine.Trust(), now) == "" {
		return nil, nil, fmt.Errorf("the revocation list %s is past its next update: fetch a new one from the CA", stale)
	}
	for _, c := range []*certbind.Credential{r.machine.Credential(), next.credential} {
		if err := r.leftOut(c, next.trust); err != nil {
			return nil, nil, err
		}
	}
	return r.noOlderLists(next.trust, req)
}

// leftOut returns why lists leave out a certificate of this machine, nil if those in force do as well.
func (r *reloader) leftOut(c *certbind.Credential, t *certbind.Trust) error {
	now, name := time.Now(), r.machine.Name()
	fault := firstFault(certbind.Check(c, name, t, now))
	if fault == nil || fault.Setting != certbind.SettingLists && fault.Setting != certbind.SettingCompleteList ||
		firstFault(certbind.Check(c, name, r.machine.Trust().Demanding(nil), now)) != nil {
		return nil
	}
	return leftOutError{errors.New(faultWithFlag(*fault).String())}
}
