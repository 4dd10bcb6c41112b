package systemd

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// stream returns a file and what JOURNAL_STREAM says where it is the journal, which takes no entries otherwise.
func stream(t *testing.T) (f *os.File, variable string) {
	t.Helper()
	setJournal(t, filepath.Join(t.TempDir(), "none"))
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return f, fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// formats are the two of the program, without the time.
var formats = map[string]func(io.Writer) slog.Handler{
	"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, options) },
	"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, options) },
}

var options = &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

// Each line has the priority of its level, and is otherwise as without the journal.
func TestHandlerPriorities(t *testing.T) {
	say := func(h slog.Handler) {
		log := slog.New(h)
		log.Debug("d")
		log.Info("i\n<0>of a peer")
		log.With("a", 1).Warn("w")
		log.WithGroup("g").Error("e", "b", "two\nlines")
	}
	for name, newHandler := range formats {
		f, variable := stream(t)
		t.Setenv("JOURNAL_STREAM", variable)
		say(NewHandler(f, newHandler))
		var plain strings.Builder
		say(newHandler(&plain))
		want := ""
		for i, line := range strings.Split(strings.TrimSuffix(plain.String(), "\n"), "\n") {
			want += []string{"<7>", "<6>", "<4>", "<3>"}[i] + line + "\n"
		}
		if got := content(t, f); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestNoPrioritiesElsewhere(t *testing.T) {
	f, variable := stream(t)
	_, other := stream(t)
	for _, v := range []string{"", other, "x", variable + "1"} {
		t.Setenv("JOURNAL_STREAM", v)
		slog.New(NewHandler(f, formats["text"])).Error("e")
		fmt.Fprintln(Writer(f, slog.LevelError), "failed")
	}
	if got := content(t, f); strings.Contains(got, "<") {
		t.Errorf("got %q", got)
	}
}

func TestWriter(t *testing.T) {
	f, variable := stream(t)
	t.Setenv("JOURNAL_STREAM", variable)
	n, err := fmt.Fprintf(Writer(f, slog.LevelError), "serve: %s\n", "no file")
	if n != len("serve: no file\n") || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	fmt.Fprintln(Writer(f, slog.LevelWarn), "warning: the key")
	if got := content(t, f); got != "<3>serve: no file\n<4>warning: the key\n" {
		t.Errorf("got %q", got)
	}
}

// Lines that are written at the same time keep their own priorities.
func TestHandlerConcurrency(t *testing.T) {
	f, variable := stream(t)
	t.Setenv("JOURNAL_STREAM", variable)
	log := slog.New(NewHandler(f, formats["text"]))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				log.Info("x")
				log.With("a", 1).Error("x")
			}
		})
	}
	wg.Wait()
	line := regexp.MustCompile(`^(<6>level=INFO msg=x|<3>level=ERROR msg=x a=1)$`)
	lines := strings.Split(strings.TrimSuffix(content(t, f), "\n"), "\n")
	for _, l := range lines {
		if !line.MatchString(l) {
			t.Errorf("got %q", l)
		}
	}
	if len(lines) != 400 {
		t.Errorf("%d lines", len(lines))
	}
}
