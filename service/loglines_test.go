package service

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
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
