package systemd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// NewHandler returns what newHandler makes, a handler that writes one line a record, for writing to f. Where f leads to
// the journal, each line begins with its priority (sd-daemon(3)), by which journalctl -p chooses.
func NewHandler(f *os.File, newHandler func(io.Writer) slog.Handler) slog.Handler {
	if !isJournal(f) {
		return newHandler(f)
	}
	w := &priorityWriter{w: f}
	return &handler{newHandler(w), w}
}

// Writer returns a writer to f, each of whose writes is a line of that level, for what is not logged.
func Writer(f *os.File, level slog.Level) io.Writer {
	if !isJournal(f) {
		return f
	}
	return &priorityWriter{w: f, prefix: prefix(level)}
}

// isJournal reports whether f leads to the journal: JOURNAL_STREAM has its device and inode (systemd.exec(5)). The
// variable alone says nothing, since whoever redirects f leaves it as it is.
func isJournal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st := info.Sys().(*syscall.Stat_t)
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// prefix returns what a line of a level begins with: the priority of syslog(3) for debug, info, warning or error.
func prefix(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "<7>"
	case level < slog.LevelWarn:
		return "<6>"
	case level < slog.LevelError:
		return "<4>"
	}
	return "<3>"
}

// A priorityWriter begins each write with a prefix.
type priorityWriter struct {
	w      io.Writer
	mu     sync.Mutex // held while a handler writes a record, because of prefix
	prefix string
}

func (w *priorityWriter) Write(line []byte) (int, error) {
	n, err := w.w.Write(append([]byte(w.prefix), line...))
	return max(0, n-len(w.prefix)), err
}

// A handler has another one write to a priorityWriter.
type handler struct {
	slog.Handler
	w *priorityWriter
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.prefix = prefix(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.w}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.w}
}
