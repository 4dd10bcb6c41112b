package fetchcrl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
)

const maxStateSize = 1 << 20

// A state is what one run knows of those before. Without it every list is fetched whole.
type state struct {
	Places map[string]*place `json:"places"` // by URL
}

// A place is what a URL gave last.
type place struct {
	File         string    `json:"file,omitempty"`
	SHA256       string    `json:"sha256,omitempty"` // of the list in DER
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	NextUpdate   time.Time `json:"next_update,omitzero"`
	Sent         time.Time `json:"sent,omitzero"` // when it was last sent whole
	Succeeded    time.Time `json:"succeeded,omitzero"`
	FailingSince time.Time `json:"failing_since,omitzero"` // zero if the last time went well
}

// is says that a place gave a list, which is in a file now.
func (p *place) is(file string, l *certbind.List, a answer, now time.Time) {
	p.File, p.SHA256, p.NextUpdate, p.Sent = file, digest(l.DER), l.NextUpdate, now
	p.ETag, p.LastModified = a.etag, a.modified
}

func parseState(data []byte) (state, error) {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, err
	}
	for u, p := range s.Places { // it goes into requests and paths
		if p == nil || checkURL(u, true) != nil || p.File != "" && !isListName(p.File) ||
			p.ETag != validator(p.ETag) || p.LastModified != validator(p.LastModified) {
			return state{}, errors.New("it is none that this program wrote")
		}
	}
	return s, nil
}

func (s *store) readState() (state, error) {
	path := filepath.Join(s.dir, stateName)
	data, err := readFile(path, maxStateSize)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	found, err := parseState(data)
	if err != nil {
		return state{}, fmt.Errorf("the memory of fetched lists, %s, is damaged (%w)", path, err)
	}
	return found, nil
}

func (s *store) writeState(now state) error {
	data, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	if err := s.write(stateName, append(data, '\n')); err != nil {
		return fmt.Errorf("%w: make room in %s, and let this account write there", err, s.dir)
	}
	return nil
}

// only lets go of what is known of other places than those that are asked.
func (s *state) only(sources []source) {
	kept := make(map[string]*place)
	for _, src := range sources {
		for _, u := range src.urls {
			if kept[u] = s.Places[u]; kept[u] == nil {
				kept[u] = new(place)
			}
		}
	}
	s.Places = kept
}

// came and failed note of a source what became of it.
func (s *state) came(src source, now time.Time) {
	for _, u := range src.urls {
		s.Places[u].Succeeded, s.Places[u].FailingSince = now, time.Time{}
	}
}

func (s *state) failed(src source, now time.Time) {
	for _, u := range src.urls {
		if s.Places[u].FailingSince.IsZero() {
			s.Places[u].FailingSince = now
		}
	}
}
