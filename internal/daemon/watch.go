package daemon

import (
	"log/slog"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// watchInterval is how often the files of the sockets are looked at: what happens to one is known within a second, which
// applications with altscreds wait for.
const watchInterval = 500 * time.Millisecond

// troubleAgain is how long a socket that cannot be reached is not spoken of again, whatever else is wrong with it by then.
const troubleAgain = time.Minute

// A watched is a socket whose file may be removed while it is served: by systemd-tmpfiles, which removes what is old, or
// by somebody's rm.
type watched struct {
	*localsock.Listener
	trouble string // what was said last, "" if it can be reached
	said    time.Time
}

// watchAll makes the list of what is to be watched.
func (s *sockets) watchAll() {
	for _, l := range s.local {
		s.watched = append(s.watched, &watched{Listener: l.Listener})
	}
	if l, ok := s.metrics.(*localsock.Listener); ok {
		s.watched = append(s.watched, &watched{Listener: l})
	}
}

// watch is called at every watchInterval. It has those served that were bound again.
func (s *sockets) watch(log *slog.Logger, serve func(*servedSocket) error) error {
	for _, w := range s.watched {
		before := w.Unix()
		w.look(log)
		if w.Unix() == before {
			continue
		}
		for _, l := range s.local {
			if l.Listener == w.Listener {
				if err := serve(l); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// look looks at one socket, and logs what is new.
func (w *watched) look(log *slog.Logger) {
	done, err := w.Watch()
	if done != "" {
		log.Warn("a socket was mended", "what", done, "socket", w.Path, "cure", "keep what cleans up away from its directory: systemd-tmpfiles by the line "+
			"'x "+w.Path+"*' in a file of /etc/tmpfiles.d")
	}
	switch {
	case err == nil && w.trouble != "":
		log.Info("the socket can be reached again", "socket", w.Path)
		w.trouble = ""
	case err != nil && err.Error() != w.trouble && (w.trouble == "" || time.Since(w.said) >= troubleAgain):
		log.Error("applications cannot reach the socket", "socket", w.Path, "error", err)
		w.trouble, w.said = err.Error(), time.Now()
	}
}
