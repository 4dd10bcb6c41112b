package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// NewHandler returns what newHandler makes, a handler that writes one line a record, for writing to f. Where f leads to
// the journal, each record goes there by itself, with a field of each key (native.go). Where that cannot be reached, the
// line is written to f and begins with its priority (sd-daemon(3)), by which journalctl -p chooses.
func NewHandler(f *os.File, newHandler func(io.Writer) slog.Handler) slog.Handler {
	if !isJournal(f) {
		return newHandler(f)
	}
	line := new(bytes.Buffer)
	return &handler{Handler: newHandler(line), line: line, mu: new(sync.Mutex), to: newNative(f)}
}

// Flush waits a little for what a handler of NewHandler still has to bring to the journal.
func Flush(h slog.Handler) {
	if h, ok := h.(*handler); ok {
		h.to.flush()
	}
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

// priority returns that of syslog(3) for debug, info, warning or error.
func priority(level slog.Level) byte {
	switch {
	case level < slog.LevelInfo:
		return '7'
	case level < slog.LevelWarn:
		return '6'
	case level < slog.LevelError:
		return '4'
	}
	return '3'
}

// prefix returns what a line of a level begins with.
func prefix(level slog.Level) string { return "<" + string(priority(level)) + ">" }

// A priorityWriter begins each write with a prefix.
type priorityWriter struct {
	w      io.Writer
	prefix string
}

func (w *priorityWriter) Write(line []byte) (int, error) {
	n, err := w.w.Write(append([]byte(w.prefix), line...))
	return max(0, n-len(w.prefix)), err
}

// A handler has another one write a line, and brings it and its keys to the journal.
type handler struct {
	slog.Handler
	to     *native
	mu     *sync.Mutex // held while a line is made
	line   *bytes.Buffer
	within string      // of WithGroup, as names of fields have it
	fields []slog.Attr // of WithAttrs
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	h.line.Reset()
	err := h.Handler.Handle(ctx, r)
	e := newEntry(r.Level, bytes.TrimSuffix(h.line.Bytes(), []byte("\n")))
	h.mu.Unlock()
	if err != nil {
		return err
	}
	e.text("ALTSD_EVENT", r.Message)
	for _, a := range h.fields {
		e.attr("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		e.attr(h.within, a)
		return true
	})
	h.to.write(e)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.Handler = h.Handler.WithAttrs(attrs)
	with.fields = append([]slog.Attr(nil), h.fields...)
	for _, a := range attrs {
		a.Key = h.within + a.Key
		with.fields = append(with.fields, a)
	}
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	with := *h
	with.Handler, with.within = h.Handler.WithGroup(name), h.within+name+"_"
	return &with
}
