package service

import (
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// varies matches what differs from one handshake to the next.
var varies = regexp.MustCompile(`\b(time|id|uid|pid|program|peer_serial|duration|sent|received)=\S+|_address=\S+|peer_issuer="[^"]*"`)

func withoutValues(line string) string {
	return varies.ReplaceAllStringFunc(line, func(s string) string { return s[:strings.Index(s, "=")] })
}

// The lines that docs/log.md shows are those of a real handshake, but for what differs from one to the next.
func TestDocumentedLines(t *testing.T) {
	doc, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "    time=") && strings.Contains(line, `msg="handshake`) {
			want = append(want, withoutValues(strings.TrimSpace(line)))
		}
	}
	alpha := startDaemon(t, "alpha.example.com", Config{Accounts: named("alice")})
	beta := startDaemon(t, "beta.example.com", Config{Accounts: named("bob")})
	start := clientStart(func(r *clientReq) { r.TargetIdentities = []*altspb.Identity{hostnameID("beta.example.com")} })
	both(t, greet(t, alpha.socket), greet(t, beta.socket), start, serverStart(nil, nil))
	var got, ends []string
	for _, d := range []*daemon{alpha, beta} {
		r := d.record(t)
		if r.Serial == "" || r.Issuer != "CN=test CA" || !r.Proved || r.Program != "service.test" {
			t.Errorf("record %+v", r)
		}
		ends = append(ends, r.Near.String(), r.Remote.String())
		for !strings.Contains(d.logs.String(), "\n") { // the line is written after the record is given out
			time.Sleep(time.Millisecond)
		}
		got = append(got, withoutValues(strings.TrimSpace(d.logs.String())))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the lines are\n%s\nin the document\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if ends[0] != ends[3] || ends[1] != ends[2] || ends[0] == ends[1] {
		t.Errorf("the ends are %v", ends)
	}
}

// What an application says of its connection is marked as its word. Who says nothing has no addresses.
func TestSaidAddresses(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	end := &altspb.Endpoint{IpAddress: "192.0.2.1", Port: 443}
	for _, r := range []*altspb.HandshakerReq{
		clientStart(func(r *clientReq) { r.LocalEndpoint = end }), clientStart(nil),
	} {
		p := open(t, d, "")
		p.must(t, r)
		_, _ = p.do(next([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")))
		d.record(t)
	}
	for strings.Count(d.logs.String(), "\n") < 2 {
		time.Sleep(time.Millisecond)
	}
	lines := strings.Split(d.logs.String(), "\n")
	if !strings.Contains(lines[0], " local_address=192.0.2.1:443 addresses_by=application peer=") || strings.Contains(lines[0], "remote_address") {
		t.Errorf("an address that was said: %s", lines[0])
	}
	if strings.Contains(lines[1], "address") {
		t.Errorf("nothing was said: %s", lines[1])
	}
}

// Rule 66: lines in JSON are of the same events, keys and forms, whatever came of a handshake.
func TestRule66LinesInJSON(t *testing.T) {
	logs := new(testprog.Log)
	a := newAuditor(slog.New(slog.NewJSONHandler(logs, nil)), nil)
	end := netip.MustParseAddrPort("[2001:db8::1]:50051")
	r := Record{ID: "b4f03d9c5c1f6a22", Role: Responder, Local: "bob@beta.test", UID: 1002, PID: 815, Program: "a \x1b[2J\n", Socket: "/run/s",
		Peer: `AD\alice@alpha.test`, Serial: "7233", Issuer: "CN=Example CA", DNS: true, Near: end, Remote: end, Proved: true, Reason: "accepted",
		Rule: "a.policy:3", Duration: 2666261 * time.Nanosecond, Sent: 1866, Received: 2484}
	a.finish(r)
	would := r
	would.Would = true
	a.finish(would)
	for range 2 * donesLogged {
		a.finish(r)
	}
	refused := r
	refused.Reason, refused.Detail, refused.ByPeer, refused.Would = "unknown_77", "why", true, false
	a.finish(refused)
	a.finish(Record{Reason: "peer_closed", Detail: "why"})
	refused.stands = true
	a.refusedNow(refused, true)
	a.refusedNow(refused, false)
	for range 2 * donesLogged {
		a.finish(Record{Reason: "malformed", share: share{kind: ofSocket}})
		a.refusedNow(refused, true)
	}
	a.flush()
	s, seen := testlog.Load(t, "..").Sections["The daemon"], map[string]bool{}
	for line := range strings.Lines(logs.String()) {
		l, err := s.ParseJSON(line)
		if err == nil {
			err = s.Check(l)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		seen[l.Message] = true
	}
	if len(seen) != 7 {
		t.Errorf("events: %v", seen)
	}
}
