package forward

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// NewLogger returns the log of a forward, lines of text to standard error.
func NewLogger(level slog.Level) *slog.Logger {
	return slog.New(systemd.NewHandler(os.Stderr, func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}))
}

// attrs returns facts as the log has them.
func (f Facts) attrs() (list []any) {
	for _, a := range []struct{ key, value string }{
		{"handshake", f.Handshake}, {"peer", f.Peer}, {"service", f.Service}, {"account", f.Account}, {"from", f.From},
	} {
		if a.value != "" {
			list = append(list, a.key, cli.OneLine(a.value))
		}
	}
	return list
}

// Bounds of the lines about connections that were refused: of each peer, and of all without a name together.
const (
	linesBurst  = 20
	linesEach   = 200 * time.Millisecond
	linesPeers  = 256 // peers that are counted apart
	linesOthers = "others"
)

// refusals lets so many lines through, and counts what it leaves out.
type refusals struct {
	mu sync.Mutex
	of map[string]*allowance
}

type allowance struct {
	left    float64
	filled  time.Time
	skipped int
}

// may reports whether a line about holder may be written now, and how many were left out since the last one.
func (r *refusals) may(holder string, now time.Time) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = make(map[string]*allowance)
	}
	if r.of[holder] == nil && len(r.of) >= linesPeers {
		r.forget(now)
	}
	if r.of[holder] == nil && len(r.of) >= linesPeers {
		holder = linesOthers
	}
	a := r.of[holder]
	if a == nil {
		a = &allowance{left: linesBurst, filled: now}
		r.of[holder] = a
	}
	a.left = min(linesBurst, a.left+float64(now.Sub(a.filled))/float64(linesEach))
	a.filled = now
	if a.left < 1 {
		a.skipped++
		return 0, false
	}
	a.left--
	skipped, a.skipped = a.skipped, 0
	return skipped, true
}

// forget drops those of whom nothing is left out.
func (r *refusals) forget(now time.Time) {
	for holder, a := range r.of {
		if a.skipped == 0 && now.Sub(a.filled) > linesBurst*linesEach {
			delete(r.of, holder)
		}
	}
}
