package daemon

import (
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// An Again reads once more what an administrator sets of a daemon.
type Again struct {
	Path string // of the config file
	// Read returns what is set now, and what each flag is given, by its name.
	Read func() (Config, map[string][]string, error)
}

// reloadable are the flags that a reload brings into force. Others are for the sockets, or for programs that are told
// of the daemon once.
var reloadable = []string{"ca", "crl", "crl-stale-ok", "policy", "require-eku"}

// untoldAfter is how long the config file may differ from what is in force before the log says so: whoever changes it has the
// daemon reload.
const untoldAfter = 15 * time.Second

// settings are what is set of a daemon that runs. The methods are good for nil, where that cannot change.
type settings struct {
	Again
	log   *slog.Logger
	begun map[string][]string // at the start
	given map[string][]string // in force, as far as a reload may change it
	owed  bool                // a reload that was asked for was refused: it is tried again when files change
	next  atomic.Pointer[string]

	read  string    // state of the files that were last read
	seen  string    // at the last look
	since time.Time // when that was seen first
	said  string    // of which state the log has told
}

// newSettings notes what c is made of, and reads that anew, so that no change is missed.
func newSettings(c *Config, log *slog.Logger) (*settings, error) {
	if c.Again == nil {
		return nil, nil
	}
	s := &settings{Again: *c.Again, log: log}
	s.read = s.state()
	next, given, err := s.Read()
	if err != nil {
		return nil, err
	}
	next.Again = c.Again
	*c, s.begun, s.given = next, given, given
	return s, nil
}

// state tells one state of the config files from another.
func (s *settings) state() string {
	if s == nil {
		return ""
	}
	return pathsState([]string{s.Path}) + confDir.state(besideConfig(s.Path))
}

// again returns files as the config file has them now, what of it is another than in force, and what to call once it is in force.
func (s *settings) again(files Files) (_ Files, changed []string, done func(), err error) {
	state := s.state()
	c, given, err := s.Read()
	if err != nil {
		return files, nil, nil, err
	}
	if s.state() != state {
		return files, nil, nil, errChanging
	}
	was := s.given
	c.Files.findListDirs()
	for i, list := range c.Files.CRLs {
		c.Files.CRLs[i].Dir = list.Dir || files.isListDir(list.File)
	}
	now, later := c.Files, differing(s.begun, given, func(name string) bool { return !slices.Contains(reloadable, name) })
	if now.trustsDNS() && !files.trustsDNS() {
		// Who asks DNS is there from the start, or not at all.
		now.CAs, later = files.CAs, append(later, "ca")
		given["ca"] = was["ca"]
	}
	files.CAs, files.CRLs, files.CRLStaleOK = now.CAs, now.CRLs, now.CRLStaleOK
	files.Policy, files.RequireEKU = now.Policy, now.RequireEKU
	for _, name := range differing(was, given, func(name string) bool { return slices.Contains(reloadable, name) }) {
		changed = append(changed, "configuration: "+name)
	}
	return files, changed, func() {
		s.given, s.read, s.owed = given, state, false
		s.setLater(later)
	}, nil
}

// differing returns the flags that are not given alike, of those that are asked for, in the order of their names.
func differing(a, b map[string][]string, of func(name string) bool) (names []string) {
	for _, m := range []map[string][]string{a, b} {
		for name := range m {
			if of(name) && !slices.Equal(a[name], b[name]) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// setLater notes which flags come into force at the next start.
func (s *settings) setLater(names []string) {
	text := ""
	if len(names) > 0 {
		text = "in force after a restart: " + strings.Join(names, ", ")
	}
	if was := s.next.Swap(&text); text != "" && (was == nil || *was != text) {
		s.log.Warn("settings changed that come into force at the next start", "settings", strings.Join(names, ", "))
	}
}

// note says which flags come into force at the next start, "" for none.
func (s *settings) note() string {
	if s == nil {
		return ""
	}
	if text := s.next.Load(); text != nil {
		return *text
	}
	return ""
}

// look says once that the files are others than those in force. They are not read by themselves: a directory that is just being
// filled anew would be one without the line that limits a CA.
func (s *settings) look(now time.Time) {
	if s == nil {
		return
	}
	state := s.state()
	if state != s.seen {
		s.seen, s.since = state, now
	}
	if state != s.read && state != s.said && now.Sub(s.since) >= untoldAfter {
		s.said = state
		s.log.Warn("the config file has changed, and is in force after a reload", "file", s.Path)
	}
}
