package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// A reloadRequest is what one reload does beyond reading the files.
type reloadRequest struct {
	credential []byte // PEM with key and chain, nil for the files
	// acceptOlder are files of lists that may be older than before, forget the names of CAs, or files, whose lists may
	// be gone.
	acceptOlder, forget []string
	polled              bool // it was not asked for: a file has changed
}

func sortedKeys(marks certbind.Marks) [][32]byte {
	return slices.SortedFunc(maps.Keys(marks), func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
}

// noOlderLists refuses lists that are older than those that were in force, gone, or from the future, where those in
// force are not so already, and returns the marks by which the others go: all that are remembered, but for what the
// administrator lets go, which is named in let.
func (r *reloader) noOlderLists(next *certbind.Trust, req reloadRequest) (marks certbind.Marks, let []string, err error) {
	if file := next.FromFuture(time.Now()); file != "" {
		return nil, nil, fmt.Errorf("the revocation list %s was made more than 5 minutes from now: set this machine's "+
			"clock, or fetch the right list", file)
	}
	for _, file := range req.acceptOlder {
		if !among(r.files.listFiles(), file) && !r.files.inListDir(file) {
			var all []string
			for _, list := range r.files.CRLs {
				all = append(all, list.File)
			}
			return nil, nil, fmt.Errorf("--accept-older-list %s: that is none of the lists of --crl (%s)", file,
				strings.Join(all, ", "))
		}
	}
	r.memory.add(r.machine.Trust()) // a peer may have shown since who signed a list
	marks = maps.Clone(r.memory.marks)
	behind := next.Behind(marks)
	forgotten, err := r.forget(marks, behind, req.forget)
	if err != nil {
		return nil, nil, err
	}
	let = append(let, forgotten...)
	if len(r.files.CRLs) == 0 {
		return marks, let, nil
	}
	was := make(map[[32]byte]bool) // what is so already, and refused handshake by handshake
	for _, b := range r.machine.Trust().Behind(marks) {
		was[b.Mark.ID()] = true
	}
	for _, b := range behind {
		_, remembered := marks[b.Mark.ID()]
		switch {
		case !remembered:
		case b.Found != nil && among(req.acceptOlder, b.Found.Source):
			delete(marks, b.Mark.ID())
			marks[b.Found.ID()] = *b.Found
			let = append(let, b.String())
		case was[b.Mark.ID()]:
		case b.Found != nil:
			return nil, nil, behindError{fmt.Errorf("%v: fetch the newest one from the CA, over HTTPS if it can be had, or, if the CA "+
				"means the older one, 'shared-altsd reload --accept-older-list %s'", b, b.Found.Source), b.Mark.Key}
		default:
			return nil, nil, behindError{fmt.Errorf("%v: put it back, or, if the CA, or this part of its list, is used no more, "+
				"'shared-altsd reload --forget-list %q'", b, b.Mark.Issuer), b.Mark.Key}
		}
	}
	return marks, let, nil
}

// forget takes from marks those of the CAs or files of names whose list is gone, by behind, and returns which. A part of
// a CA's list that is there goes on being compared with what it was.
func (r *reloader) forget(marks certbind.Marks, behind []certbind.Behind, names []string) (let []string, err error) {
	gone := make(map[[32]byte]bool)
	for _, b := range behind {
		gone[b.Mark.ID()] = b.Found == nil
	}
	for _, name := range names {
		found, before := false, len(let)
		for key, m := range marks {
			if m.Issuer != name && !sameFile(m.Source, name) {
				continue
			}
			found = true
			if gone[key] || len(r.files.CRLs) == 0 {
				delete(marks, key)
				let = append(let, fmt.Sprintf("the list of the CA %q (%v) is forgotten", m.Issuer, m))
			}
		}
		switch {
		case !found:
			return nil, fmt.Errorf("--forget-list %s: no list of that CA or file is remembered", name)
		case len(let) == before:
			return nil, fmt.Errorf("--forget-list %s: its list is there, so that nothing need be forgotten; if it is older than "+
				"one before, and the CA means it, give --accept-older-list and its file", name)
		}
	}
	return let, nil
}

// among reports whether file is one of files.
func among(files []string, file string) bool {
	return slices.ContainsFunc(files, func(f string) bool { return sameFile(f, file) })
}

// sameFile reports whether two paths are the same text, made absolute.
func sameFile(a, b string) bool {
	x, errX := filepath.Abs(a)
	y, errY := filepath.Abs(b)
	return errors.Join(errX, errY) == nil && x == y
}
