package service

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// Refusals are limited for each peer and reason, and those left out are counted.
func TestRule25(t *testing.T) {
	logs := new(logBuffer)
	counts := map[string]int{}
	a := newAuditor(slog.New(slog.NewTextHandler(logs, nil)), func(r Record) { counts[r.Reason]++ })
	for range 20 {
		a.finish(Record{UID: 1, Reason: "unknown_ca", Detail: "why"})
	}
	a.finish(Record{UID: 1, Reason: "timed_out"})
	a.finish(Record{UID: 2, Reason: "unknown_ca"})
	for i := range 20 { // one machine under many names
		a.finish(Record{UID: 1, Reason: "unknown_ca", Peer: fmt.Sprintf("a%d@evil.test", i), machine: "evil.test"})
	}
	for range 20 {
		a.finish(Record{UID: 1, Reason: "accepted"})
	}
	if n, want := strings.Count(logs.String(), "handshake failed"), 2*refusalsLogged+2; n != want {
		t.Errorf("%d lines of refusals, want %d", n, want)
	}
	if n := strings.Count(logs.String(), "handshake done"); n != 20 {
		t.Errorf("%d lines of successes, want 20", n)
	}
	a.flush()
	if n := strings.Count(logs.String(), "suppressed=15"); n != 2 {
		t.Errorf("%d lines with the count 15, want 2:\n%s", n, logs)
	}
	if len(a.windows) != 0 || counts["unknown_ca"] != 41 || len(a.last) != lastKept {
		t.Errorf("%d windows, counts %v, last %d", len(a.windows), counts, len(a.last))
	}

	// A window closes by itself; a flood of different peers is counted together.
	a.window = time.Millisecond
	for range 10 {
		a.finish(Record{UID: 3, Reason: "malformed"})
	}
	for !strings.Contains(logs.String(), "uid=3 peer_machine") && !strings.Contains(logs.String(),
		"reason=malformed uid=3") {
		time.Sleep(time.Millisecond)
	}
	a.window = time.Hour
	for uid := range uint32(windowsKept + 100) {
		a.finish(Record{UID: uid, Reason: "bad_choice"})
	}
	if n := len(a.windows); n > windowsKept+1 {
		t.Errorf("%d windows are kept", n)
	}
	a.flush()
}

// The line of a handshake has what an administrator asks for, and nothing that a peer or application sent raw.
func TestAuditLine(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	s := open(t, d, "")
	_, err := s.do(serverStart([]byte("evil\nlevel=ERROR msg=forged"), nil))
	wantErr(t, err, codes.Unauthenticated, "malformed")
	d.record(t)
	for { // the line is written after the record is given out
		if strings.Contains(d.logs.String(), "handshake failed") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	line := d.logs.String()
	for _, want := range []string{"level=WARN", "role=responder", "reason=malformed", "local=", "@beta.test", "uid=",
		"pid=", "duration=", "received=", "by_peer=false", "detail="} {
		if !strings.Contains(line, want) {
			t.Errorf("the line does not have %s: %s", want, line)
		}
	}
	if strings.Contains(line, "forged") || strings.Count(line, "\n") != 1 {
		t.Errorf("the line has the peer's text: %q", line)
	}
}
