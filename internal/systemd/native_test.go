package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// setJournal has the journal of the test at a path.
func setJournal(t *testing.T, path string) {
	before := journalSocket
	t.Cleanup(func() { journalSocket = before })
	journalSocket = path
}

// A testJournal takes entries as systemd-journald does.
type testJournal struct {
	*net.UnixConn
	path string
}

func newJournal(t *testing.T) *testJournal {
	t.Helper()
	j := &testJournal{path: filepath.Join(testprog.Dir(t), "journal")}
	j.begin(t)
	setJournal(t, j.path)
	return j
}

func (j *testJournal) begin(t *testing.T) {
	t.Helper()
	os.Remove(j.path)
	var err error
	if j.UnixConn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	conn := j.UnixConn
	t.Cleanup(func() { conn.Close() })
}

// next returns the fields of the next entry; what is no entry fails the test.
func (j *testJournal) next(t *testing.T) map[string][]string {
	t.Helper()
	b := make([]byte, 256<<10)
	j.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := j.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return parseEntry(t, b[:n])
}

// parseEntry reads the form with lengths alone, which systemd documents.
func parseEntry(t *testing.T, b []byte) map[string][]string {
	t.Helper()
	fields := map[string][]string{}
	for len(b) > 0 {
		name, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok || bytes.ContainsRune(name, '=') || len(rest) < 8 {
			t.Fatalf("no entry: %.100q", b)
		}
		size := binary.LittleEndian.Uint64(rest)
		if rest = rest[8:]; uint64(len(rest)) <= size || rest[size] != '\n' {
			t.Fatalf("the field %q has no end: %.100q", name, rest)
		}
		fields[string(name)] = append(fields[string(name)], string(rest[:size]))
		b = rest[size+1:]
	}
	return fields
}

func (j *testJournal) logger(t *testing.T) *slog.Logger {
	t.Helper()
	path := journalSocket
	f, variable := stream(t)
	journalSocket = path
	t.Setenv("JOURNAL_STREAM", variable)
	h := NewHandler(f, formats["text"])
	t.Cleanup(func() {
		if out := content(t, f); out != "" {
			t.Errorf("to standard error: %q", out)
		}
	})
	return slog.New(h)
}

// Each key is a field, and the line is as it was.
func TestJournalFields(t *testing.T) {
	j := newJournal(t)
	log := j.logger(t)
	log.Warn("handshake failed", "id", "b4f03d9c5c1f6a22", "uid", uint64(1001), "peer", "", "error", errors.New("no"), "duration", time.Second,
		"machine", []string{"a.test", "b.test"})
	got := j.next(t)
	for name, want := range map[string]string{
		"MESSAGE":  `level=WARN msg="handshake failed" id=b4f03d9c5c1f6a22 uid=1001 peer="" error=no duration=1s machine="[a.test b.test]"`,
		"PRIORITY": "4", "SYSLOG_IDENTIFIER": "systemd.test", "SYSLOG_FACILITY": "3", "ALTSD_EVENT": "handshake failed",
		"ALTSD_HANDSHAKE": "b4f03d9c5c1f6a22", "ALTSD_UID": "1001", "ALTSD_ERROR": "no", "ALTSD_DURATION": "1s", "ALTSD_MACHINE": "a.test b.test",
		"ALTSD_PEER": "",
	} {
		if got := strings.Join(got[name], " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("further fields: %v", got)
	}
	log.With("a", 1).WithGroup("g").With("b", 2).Error("e", "c", 3, slog.Group("h", "d", 4))
	got = j.next(t)
	for name, want := range map[string]string{"ALTSD_A": "1", "ALTSD_G_B": "2", "ALTSD_G_C": "3", "ALTSD_G_H_D": "4", "PRIORITY": "3"} {
		if len(got[name]) != 1 || got[name][0] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// Rule 66: no value makes another field or line, or moves a terminal, and no record makes an entry without bound.
func TestRule66ValuesMakeNoFields(t *testing.T) {
	j := newJournal(t)
	log := j.logger(t)
	for _, evil := range []string{"x\nALTSD_PEER=root@a.test", "x\nALTSD_PEER\n\x04\x00\x00\x00\x00\x00\x00\x00root\n", "\x1b[2J", "\u202egnp.exe", "\xff\x00",
		strings.Repeat("\x1b", 1<<16), strings.Repeat("é", 1<<16)} {
		log.Info(evil, "program", evil, "error", errors.New(evil), "bad key=\n"+evil[:min(len(evil), 999)], 1)
		got := j.next(t)
		if got["ALTSD_PEER"] != nil {
			t.Errorf("%.40q made a field: %v", evil, got["ALTSD_PEER"])
		}
		if len(got["ALTSD_PROGRAM"]) != 1 {
			t.Errorf("%.40q: the programs %.200q", evil, got["ALTSD_PROGRAM"])
		}
		for name, values := range got {
			for _, v := range values {
				if len(name) > 64 || name != "MESSAGE" && (len(v) > maxValue || v != visible(v)) || strings.ContainsAny(v, "\n\x1b") {
					t.Errorf("%.40q: %s is %.80q, %d bytes", evil, name, v, len(v))
				}
			}
		}
	}
	var many []any
	for i := range 1000 {
		many = append(many, fmt.Sprint("k", i), strings.Repeat("v", maxValue*2))
	}
	log.Info("many", many...)
	if got := j.next(t); len(got) != maxFields || len(got["MESSAGE"][0]) != maxText {
		t.Errorf("%d fields, a line of %d bytes", len(got), len(got["MESSAGE"][0]))
	}
}

// Rule 66: a journal that takes nothing makes nobody wait. Lines come later, in their order, and those that are lost are counted.
func TestRule66JournalHangs(t *testing.T) {
	j := newJournal(t)
	log := j.logger(t)
	const n = 2 * maxWaiting
	for i := range n {
		log.Info("line", "n", i)
	}
	last := -1
	for {
		got := j.next(t)
		if lost := got["ALTSD_LOST"]; lost != nil {
			if k, err := strconv.Atoi(lost[0]); err != nil || last+1+k != n || last < maxWaiting || got["PRIORITY"][0] != "4" {
				t.Errorf("after %d of %d lines: %v", last+1, n, got)
			}
			break
		}
		if k, err := strconv.Atoi(got["ALTSD_N"][0]); err != nil || k != last+1 {
			t.Fatalf("after line %d there is %v", last, got)
		}
		last++
	}
	log.Info("line", "n", n)
	if got := j.next(t); got["ALTSD_N"][0] != strconv.Itoa(n) {
		t.Errorf("afterwards %v", got)
	}
	Flush(log.Handler())
}

// A journal that starts again gets what comes then; meanwhile lines go to standard error.
func TestJournalRestarts(t *testing.T) {
	j := newJournal(t)
	path := j.path
	f, variable := stream(t)
	journalSocket = path
	t.Setenv("JOURNAL_STREAM", variable)
	log := slog.New(NewHandler(f, formats["text"]))
	log.Info("a")
	if got := j.next(t); got["ALTSD_EVENT"][0] != "a" {
		t.Errorf("got %v", got)
	}
	j.Close()
	log.Warn("b")
	j.begin(t)
	log.Info("c")
	if got := j.next(t); got["ALTSD_EVENT"][0] != "c" {
		t.Errorf("got %v", got)
	}
	if got := content(t, f); got != "<4>level=WARN msg=b\n" {
		t.Errorf("to standard error: %q", got)
	}
}

// One brings what waits, also where lines come in the moment in which nothing waits any more and the journal is full still.
func TestRule66OneDrain(t *testing.T) {
	j := newJournal(t)
	log := j.logger(t)
	to := log.Handler().(*handler).to
	const pause = 50 * time.Millisecond
	lines := 0
	for waiting := 0; waiting == 0; lines++ {
		log.Info("line", "n", lines)
		to.mu.Lock()
		waiting = len(to.waiting)
		to.mu.Unlock()
	}
	time.Sleep(pause) // until it is being sent
	to.mu.Lock()
	came := map[string]bool{j.next(t)["ALTSD_N"][0]: true} // there is a place for what waits, which is to be taken out now
	time.Sleep(pause)
	for range 8 {
		n := lines
		lines++
		go log.Info("line", "n", n)
	}
	time.Sleep(pause)
	to.mu.Unlock()
	to.mu.Lock() // who waits for long and does not get it has it handed over then, and so do those behind him
	time.Sleep(pause)
	to.mu.Unlock()
	for len(came) < lines {
		time.Sleep(pause / 10)
		n := j.next(t)["ALTSD_N"][0]
		if came[n] {
			t.Fatalf("line %s comes again", n)
		}
		came[n] = true
	}
}
