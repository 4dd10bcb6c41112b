package service

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Rule 38: a machine whose certificate has many names is one in the limits of the log.
func TestRule38ManyNames(t *testing.T) {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test", "b.test"}}
	for _, name := range leaf.DNSNames {
		h := session{peer: &certbind.Peer{Machine: name, Account: "mallory", Leaf: leaf}}
		if r := h.record(); r.machine != "a.test" || r.Peer != "mallory@"+name {
			t.Errorf("%s: counted as %q, logged as %s", name, r.machine, r.Peer)
		}
	}
}

// Refusals are limited for each peer and reason, and those left out are counted.
func TestRule25(t *testing.T) {
	logs := new(testprog.Log)
	counts := map[string]int{}
	a := newAuditor(slog.New(slog.NewTextHandler(logs, nil)), func(r Record) { counts[r.Reason]++ })
	of := func(uid uint32, r Record) Record {
		r.UID, r.share = uid, share{ofAccount, uid}
		return r
	}
	for range 20 {
		a.finish(of(1, Record{Reason: "unknown_ca", Detail: "why"}))
	}
	a.finish(of(1, Record{Reason: "timed_out"}))
	a.finish(of(2, Record{Reason: "unknown_ca"}))
	for i := range 20 { // one machine under many names
		a.finish(of(1, Record{Reason: "unknown_ca", Peer: fmt.Sprintf("a%d@evil.test", i), machine: "evil.test"}))
	}
	for range 20 {
		a.finish(of(1, Record{Reason: "accepted"}))
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
	if len(a.accounts) != 0 || counts["unknown_ca"] != 41 || len(a.last) != lastKept {
		t.Errorf("%d windows, counts %v, last %d", len(a.accounts), counts, len(a.last))
	}

	// A window closes by itself; a flood of different accounts is counted together.
	a.window = time.Millisecond
	for range 10 {
		a.finish(of(3, Record{Reason: "malformed"}))
	}
	for !strings.Contains(logs.String(), "uid=3 peer_machine") && !strings.Contains(logs.String(),
		"reason=malformed uid=3") {
		time.Sleep(time.Millisecond)
	}
	a.window = time.Hour
	for uid := range uint32(accountsLogged + 100) {
		a.finish(of(uid, Record{Reason: "bad_choice"}))
	}
	if n := len(a.accounts); n > accountsLogged+1 {
		t.Errorf("%d windows are kept", n)
	}
	a.flush()
}

// Rule 38: whatever one account makes the daemon log is bounded, its successes and the codes that its peers make up
// included, and no line of another account is lost for it.
func TestRule38OneLoudAccount(t *testing.T) {
	logs := new(testprog.Log)
	a := newAuditor(slog.New(slog.NewTextHandler(logs, nil)), nil)
	a.window = time.Hour
	const reasonsKnown = 30
	loud := share{ofAccount, 1}
	for code := range 65536 {
		a.finish(Record{share: loud, Reason: reason.Code(code).String(), ByPeer: true})
	}
	for i := range 10_000 {
		a.finish(Record{share: loud, Reason: "unknown_ca", machine: fmt.Sprintf("m%d.evil.test", i)})
		a.finish(Record{share: loud, Reason: "accepted", machine: "evil.test"})
		a.finish(Record{share: share{}, UID: uint32(100_000 + i), Reason: "local_account"})
	}
	if n, most := strings.Count(logs.String(), "\n"), 2*(keysKept+reasonsKnown)*refusalsLogged+donesLogged; n > most {
		t.Errorf("%d lines, want at most %d", n, most)
	}
	if n := len(a.accounts[loud].n); n > 2*keysKept {
		t.Errorf("%d keys are kept of one account", n)
	}
	a.finish(Record{share: share{ofAccount, 2}, Reason: "unknown_ca", Detail: "of another"})
	a.finish(Record{share: share{ofAccount, 2}, Reason: "accepted", Peer: "bob@other"})
	if !strings.Contains(logs.String(), "of another") || !strings.Contains(logs.String(), "bob@other") {
		t.Error("lines of another account are lost")
	}
	for range 1000 {
		a.finish(Record{share: loud, Reason: "malformed"})
	}
	if !slices.ContainsFunc(a.last, func(r Record) bool { return r.Detail == "of another" }) {
		t.Error("the last failures are those of one account alone")
	}
	a.flush()
	for _, want := range []string{fmt.Sprintf("suppressed=%d reason=accepted uid=1 peer_machine=evil.test", 10_000-donesLogged),
		"reason=unknown uid=1", fmt.Sprintf(`suppressed=%d reason=local_account of="the whole of uids`, 10_000-keysKept-refusalsLogged)} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("the log does not have %s", want)
		}
	}
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
