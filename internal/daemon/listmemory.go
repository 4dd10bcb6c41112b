package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A listMemory holds how new the newest revocation list of each CA and scope was, over restarts if it has a directory. Whoever
// may write there is root or the daemon, and could say what he likes.
type listMemory struct {
	dir   string // "" for none
	log   *slog.Logger
	marks certbind.Marks
	saved []byte // what the file holds
}

const (
	memoryFile    = "revocation-lists.json"
	maxMemorySize = 4 << 20
)

// A savedMark is a certbind.Mark in the file.
type savedMark struct {
	Issuer     string    `json:"issuer"`
	File       string    `json:"file"`
	Only       string    `json:"only,omitempty"`   // certbind.Scope
	Names      []string  `json:"names,omitempty"`  // certbind.Scope
	Number     string    `json:"number,omitempty"` // decimal
	ThisUpdate time.Time `json:"this_update"`
	Key        []byte    `json:"key"`
}

// errDamaged says that the memory is there and holds nothing that can be read.
var errDamaged = errors.New("the memory of revocation lists is damaged")

// stateDir returns where the daemon's memory is: what was given, else systemd's, "" for nowhere.
func (f *Files) stateDir() string {
	if f.StateDir != "" {
		return f.StateDir
	}
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return dir
}

// readMarks returns what is remembered in dir, nothing if there is no file yet.
func readMarks(dir string) (certbind.Marks, error) {
	marks := make(certbind.Marks)
	if dir == "" {
		return marks, nil
	}
	if _, _, err := safepath.Dir(dir, "the memory of revocation lists"); err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	path := filepath.Join(dir, memoryFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return marks, nil
	}
	data, err := readOwnFile(path, maxMemorySize, "could bring older revocation lists back")
	if err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	var saved []savedMark
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, path, err)
	}
	for _, s := range saved {
		m := certbind.Mark{Key: s.Key, Scope: certbind.Scope{Only: s.Only, Names: s.Names}, Issuer: s.Issuer, Source: s.File,
			ThisUpdate: s.ThisUpdate}
		if s.Number != "" {
			var ok bool
			if m.Number, ok = new(big.Int).SetString(s.Number, 10); !ok || len(s.Number) > 50 {
				return nil, fmt.Errorf("%w: %s: %.60q is not a list's number", errDamaged, path, s.Number)
			}
		}
		if len(m.Key) == 0 || m.ThisUpdate.IsZero() {
			return nil, fmt.Errorf("%w: %s: a list without key or time", errDamaged, path)
		}
		marks.Add(m)
	}
	return marks, nil
}

// openListMemory reads what is remembered. A damaged file is put aside and begun anew, with an error in the log: a
// daemon that does not start would be worse than what a restart without a memory risks.
func openListMemory(dir string, log *slog.Logger) (*listMemory, error) {
	m := &listMemory{dir: dir, log: log}
	var err error
	if m.marks, err = readMarks(dir); errors.Is(err, errDamaged) {
		aside := filepath.Join(dir, memoryFile+".damaged")
		log.Error("which revocation lists were the newest is not known, and is remembered anew", "error", err, "kept", aside)
		if err := os.Rename(filepath.Join(dir, memoryFile), aside); err != nil {
			log.Error("the damaged memory of revocation lists could not be put aside", "error", err)
		}
		m.marks, err = make(certbind.Marks), nil
	}
	return m, err
}

// demand returns the trust with the demand that its lists be as new as those remembered. An administrator who names no
// list at all wants none.
func (f *Files) demand(t *certbind.Trust, marks certbind.Marks) *certbind.Trust {
	if len(f.CRLs) == 0 {
		return t
	}
	return t.Demanding(marks)
}

// add remembers the lists of a trust that is in force, in the file as well if that changes anything. A file that cannot
// be written is logged: the lists in force stay in force.
func (m *listMemory) add(t *certbind.Trust) {
	for _, mark := range t.Marks(time.Now()) {
		m.marks.Add(mark)
	}
	if m.dir == "" {
		return
	}
	if err := m.save(); err != nil {
		m.log.Error("which revocation lists are the newest could not be written down, and a restart will not know it",
			"error", err)
	}
}

// save writes the file anew, beside the old one, and renames it into place.
func (m *listMemory) save() error {
	saved := make([]savedMark, 0, len(m.marks))
	for _, key := range sortedKeys(m.marks) {
		mark := m.marks[key]
		s := savedMark{Issuer: mark.Issuer, File: mark.Source, Only: mark.Scope.Only, Names: mark.Scope.Names,
			ThisUpdate: mark.ThisUpdate, Key: mark.Key}
		if mark.Number != nil {
			s.Number = mark.Number.String()
		}
		saved = append(saved, s)
	}
	data, err := json.MarshalIndent(saved, "", "\t")
	if err != nil || bytes.Equal(data, m.saved) {
		return err
	}
	path := filepath.Join(m.dir, memoryFile)
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	m.saved = data
	dir, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
