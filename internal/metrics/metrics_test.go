package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// scrape returns each sample of a Set by its name and labels as written, but for that of the machine, which each has; and
// checks the format on the way.
func scrape(t *testing.T, s *Set, state State) map[string]float64 {
	t.Helper()
	var b strings.Builder
	if err := s.Write(&b, state); err != nil {
		t.Fatal(err)
	}
	return parse(t, b.String())
}

// ownMachine is the label of the machine whose metrics these are.
const ownMachine = `machine="a.test"`

var (
	sampleLine  = regexp.MustCompile(`^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (\S+)$`)
	commentLine = regexp.MustCompile(`^# (HELP|TYPE) ([a-z_]+) (.+)$`)
)

func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	samples := make(map[string]float64)
	families := make(map[string]string)
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if m := commentLine.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" {
				if families[m[2]] != "" {
					t.Errorf("family %s twice", m[2])
				}
				families[m[2]] = m[3]
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a sample: %q", line)
		}
		family := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(m[1], suffix); families[base] == "histogram" {
				family = base
			}
		}
		if families[family] == "" {
			t.Errorf("sample %q before its TYPE", line)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("value of %q: %v", line, err)
		}
		others, found := strings.CutSuffix(m[2], ownMachine+"}")
		if !found {
			t.Errorf("no machine in %q", line)
		}
		if others = strings.TrimSuffix(others, ","); others == "{" {
			m[2] = ""
		} else {
			m[2] = others + "}"
		}
		if _, twice := samples[m[1]+m[2]]; twice {
			t.Errorf("sample %s%s twice", m[1], m[2])
		}
		samples[m[1]+m[2]] = v
	}
	return samples
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s = %v (there: %v), want %v", k, g, ok, v)
		}
	}
}

func TestSet(t *testing.T) {
	end := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	s := New("v1.2.3", "a.test")
	s.SetCAs([]string{"CN=old", "CN=new"})
	s.Handshake(Handshake{Initiator: true, UID: 1000, Reason: "accepted", Duration: 3 * time.Millisecond, CA: "CN=new"})
	s.Handshake(Handshake{Initiator: true, UID: 1000, Reason: "accepted", Duration: 5 * time.Millisecond, CA: "CN=public"})
	s.Handshake(Handshake{UID: 1001, Reason: reason.UnknownCA.String(), Duration: time.Minute})
	s.Handshake(Handshake{Initiator: true, UID: 1001, Reason: reason.UnknownCA.String(), ByPeer: true,
		Duration: time.Second})
	s.Handshake(Handshake{UID: 1001, Reason: reason.Code(999).String(), ByPeer: true})
	s.Handshake(Handshake{UID: 1001, Reason: reason.Code(1000).String(), ByPeer: true})
	s.Handshake(Handshake{UID: 1001, Account: "bob@a.test", Reason: reason.BadChoice.String()})
	s.Handshake(Handshake{UID: 1001, Reason: reason.PeerClosedName})
	s.Handshake(Handshake{UID: 1001, Reason: reason.CancelledName})
	s.Handshake(Handshake{UID: 1001, Reason: "accepted", Would: true, Duration: 2 * time.Second})
	s.Reload(errors.New("no"), end)
	s.Reload(nil, end)
	expect(t, scrape(t, s, State{
		InFlight: 3, Waiting: 4, Connections: 5, KeyFailsSince: end, VerifiedFull: 8, VerifiedCached: 9, ClockWrong: true,
		Denied: 12, DeniedRefusedSince: end, Watched: 20, Ended: 21, Kept: 22, PassedOver: 23,
		DNS: &DNS{Validates: true, Answered: 13, Failed: 14},
		Expiries: []expiry.Item{{Kind: "leaf", Name: "CN=a.example.com", NotBefore: end.Add(-time.Hour), NotAfter: end},
			{Kind: "crl", Name: "/etc/x\"y\\z\n", NotBefore: end, NotAfter: end}},
	}), map[string]float64{
		`shared_altsd_handshakes_total{role="initiator",result="accepted"}`:        2,
		`shared_altsd_handshakes_total{role="responder",result="accepted"}`:        1,
		`shared_altsd_handshakes_total{role="responder",result="refused_here"}`:    2,
		`shared_altsd_handshakes_total{role="initiator",result="refused_here"}`:    0,
		`shared_altsd_handshakes_total{role="initiator",result="refused_by_peer"}`: 1,
		`shared_altsd_handshakes_total{role="responder",result="refused_by_peer"}`: 2,
		`shared_altsd_handshakes_total{role="responder",result="given_up"}`:        2,
		`shared_altsd_handshakes_refused_total{reason="unknown_ca"}`:               1,
		`shared_altsd_handshakes_refused_total{reason="overloaded"}`:               0,
		`shared_altsd_handshakes_refused_total{reason="other"}`:                    1,

		`shared_altsd_handshake_duration_seconds_bucket{le="0.005"}`: 2,
		`shared_altsd_handshake_duration_seconds_bucket{le="1"}`:     2,
		`shared_altsd_handshake_duration_seconds_bucket{le="+Inf"}`:  3,
		`shared_altsd_handshake_duration_seconds_sum`:                2.008,
		`shared_altsd_handshake_duration_seconds_count`:              3,

		`shared_altsd_handshakes_by_ca_total{ca="CN=new"}`:                                1,
		`shared_altsd_handshakes_by_ca_total{ca="CN=old"}`:                                0,
		`shared_altsd_handshakes_by_ca_total{ca="other"}`:                                 2,
		`shared_altsd_reloads_total{result="failed"}`:                                     1,
		`shared_altsd_reloads_total{result="succeeded"}`:                                  1,
		`shared_altsd_last_reload_successful`:                                             0,
		`shared_altsd_policy_would_refuse_total`:                                          1,
		`shared_altsd_denied_entries`:                                                     12,
		`shared_altsd_denied_refused_since_seconds`:                                       float64(end.Unix()),
		`shared_altsd_handshakes_in_flight`:                                               3,
		`shared_altsd_handshakes_waiting`:                                                 4,
		`shared_altsd_connections`:                                                        5,
		`shared_altsd_key_fails_since_seconds`:                                            float64(end.Unix()),
		`shared_altsd_peer_verifications_total{kind="full"}`:                              8,
		`shared_altsd_peer_verifications_total{kind="cached"}`:                            9,
		`shared_altsd_clock_wrong`:                                                        1,
		`shared_altsd_crl_passed_over`:                                                    23,
		`shared_altsd_standing_connections`:                                               20,
		`shared_altsd_standing_refused_total{result="ended"}`:                             21,
		`shared_altsd_standing_refused_total{result="kept"}`:                              22,
		`shared_altsd_dns_resolver_validates`:                                             1,
		`shared_altsd_dns_lookups_total{outcome="answered"}`:                              13,
		`shared_altsd_dns_lookups_total{outcome="failed"}`:                                14,
		`shared_altsd_not_before_seconds{kind="leaf",name="CN=a.example.com"}`:            float64(end.Unix() - 3600),
		`shared_altsd_not_after_seconds{kind="leaf",name="CN=a.example.com"}`:             float64(end.Unix()),
		`shared_altsd_not_after_seconds{kind="crl",name="/etc/x\"y\\z\n"}`:                float64(end.Unix()),
		`shared_altsd_build_info{version="v1.2.3",goversion="` + runtime.Version() + `"}`: 1,
	})
	for initiator, want := range map[bool][2]uint64{true: {2, 1}, false: {1, 6}} {
		if ok, refused := s.Handshakes(initiator); [2]uint64{ok, refused} != want {
			t.Errorf("Handshakes(%v): %d, %d, want %v", initiator, ok, refused, want)
		}
	}
	if r := s.Reloads(); r.Succeeded != 1 || r.Failed != 1 || r.LastSuccess.IsZero() || !r.RefusedSince.Equal(end) {
		t.Errorf("Reloads: %+v", r)
	}
	want := Figures{
		RefusedHere:   []Figure{{"bad_choice", 1}, {"unknown_ca", 1}},
		RefusedByPeer: []Figure{{"unknown", 2}, {"unknown_ca", 1}},
		GivenUp:       []Figure{{"cancelled", 1}, {"peer_closed", 1}},
		ByCA:          []Figure{{"CN=old", 0}, {"CN=new", 1}, {"other", 2}},
		Accounts:      []AccountFigures{{1001, "bob@a.test", 1, 7}},
		OtherAccounts: AccountFigures{Accepted: 2},
	}
	if got := s.Figures(1); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

// Whatever happens, a page has the same series, few enough to be read from each machine of a fleet, and each of them names the
// machine. No label is of an account, a peer or an application.
func TestRule65SeriesAreBounded(t *testing.T) {
	s := New("v1", "a.test")
	var cas []string
	for i := range 300 {
		cas = append(cas, fmt.Sprintf("CN=CA %d (serial %d)", i, i))
	}
	state := State{DNS: new(DNS)}
	now := time.Now()
	for i, kind := range []string{expiry.Leaf, expiry.Chain, expiry.CA, expiry.CRL} {
		state.Expiries = append(state.Expiries, expiry.Item{Kind: kind, NotBefore: now, NotAfter: now.Add(time.Duration(i+1) * time.Hour)})
	}
	s.SetCAs(cas)
	names := func(page map[string]float64) []string { return slices.Sorted(maps.Keys(page)) }
	idle := names(scrape(t, s, state))
	for i := range 400 {
		for _, kind := range []string{expiry.Leaf, expiry.Chain, expiry.CA, expiry.CRL} {
			state.Expiries = append(state.Expiries, expiry.Item{Kind: kind, Name: fmt.Sprint(i), NotBefore: now,
				NotAfter: now.Add(time.Duration(i+9) * time.Hour)})
		}
	}
	for code := range 1 << 16 {
		for _, byPeer := range []bool{true, false} {
			s.Handshake(Handshake{Initiator: code%2 == 0, UID: uint32(code), Account: fmt.Sprintf("u%d@a.test", code), ByPeer: byPeer,
				Reason: reason.Code(code).String(), Duration: time.Duration(code) * time.Millisecond, CA: cas[code%len(cas)], Would: byPeer})
		}
	}
	for _, name := range []string{reason.BadRequestName, reason.PeerClosedName, reason.CancelledName} {
		s.Handshake(Handshake{Reason: name})
	}
	for _, ca := range append(cas, "", "of the system's pool") {
		s.Handshake(Handshake{Reason: accepted, CA: ca})
	}
	s.Reload(errors.New("no"), now)
	busy := names(scrape(t, s, state))
	if !slices.Equal(idle, busy) {
		t.Errorf("other series than at the start:\n%q\n%q", idle, busy)
	}
	if len(busy) > MaxSeries {
		t.Errorf("%d series:\n%s", len(busy), strings.Join(busy, "\n"))
	}
	var b strings.Builder
	if err := s.WriteTextfile(&b, state); err != nil {
		t.Fatal(err)
	}
	collected := names(parse(t, b.String()))
	if len(collected) > MaxSeries || !slices.Contains(collected, "shared_altsd_up") {
		t.Errorf("%d series in a textfile", len(collected))
	}
	for _, series := range collected {
		if !strings.HasPrefix(series, "shared_altsd_") {
			t.Errorf("a textfile has %s, which node_exporter has of itself", series)
		}
	}
	t.Logf("%d series, %d in a textfile", len(busy), len(collected))
}

// Any number of local accounts is told of in a bounded room: 1024 apart, and of those the ones asked for.
func TestUIDsAreBounded(t *testing.T) {
	s := New("", "a.test")
	for uid := range uint32(3 * maxUIDs) {
		s.Handshake(Handshake{UID: uid, Reason: reason.Overloaded.String()})
	}
	s.Handshake(Handshake{UID: 7, Account: "greeter@a.test", Reason: reason.Overloaded.String()})
	if len(s.accounts) != maxUIDs {
		t.Errorf("%d accounts are kept", len(s.accounts))
	}
	f := s.Figures(2)
	if want := []AccountFigures{{7, "greeter@a.test", 0, 2}, {0, "", 0, 1}}; !slices.Equal(f.Accounts, want) {
		t.Errorf("%+v", f.Accounts)
	}
	if f.OtherAccounts.Failed != 3*maxUIDs-2 {
		t.Errorf("others: %+v", f.OtherAccounts)
	}
}

// CAs come and go with the files: what is counted of those that stay stays, and nothing is shown of those that went. A page
// has the first of them, the Figures have all.
func TestCAs(t *testing.T) {
	s := New("", "a.test")
	s.SetCAs([]string{"one", "two"})
	for _, ca := range []string{"one", "two", "two", "three"} {
		s.Handshake(Handshake{Reason: "accepted", CA: ca})
		s.Handshake(Handshake{Reason: reason.UnknownCA.String(), CA: ca})
	}
	s.SetCAs([]string{"two", "three", "three", "four", "five"})
	s.Handshake(Handshake{Reason: "accepted", CA: "one"}) // it was under way
	for _, ca := range []string{"three", "five", "five", "five"} {
		s.Handshake(Handshake{Reason: "accepted", CA: ca})
	}
	got := make(map[string]float64)
	for k, v := range scrape(t, s, State{}) {
		if strings.HasPrefix(k, "shared_altsd_handshakes_by_ca_total{") {
			got[k] = v
		}
	}
	if want := map[string]float64{
		`shared_altsd_handshakes_by_ca_total{ca="two"}`:   2,
		`shared_altsd_handshakes_by_ca_total{ca="three"}`: 1,
		`shared_altsd_handshakes_by_ca_total{ca="four"}`:  0,
		`shared_altsd_handshakes_by_ca_total{ca="other"}`: 5,
	}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if want := []Figure{{"two", 2}, {"three", 1}, {"four", 0}, {"five", 3}, {"other", 2}}; !slices.Equal(s.Figures(0).ByCA, want) {
		t.Errorf("%v", s.Figures(0).ByCA)
	}
}

func TestParseAddr(t *testing.T) {
	for _, c := range []struct{ in, network, address string }{
		{"127.0.0.1:9464", "tcp", "127.0.0.1:9464"},
		{"127.8.9.1:1", "tcp", "127.8.9.1:1"},
		{"[::1]:9464", "tcp", "[::1]:9464"},
		{"localhost:9464", "tcp", "127.0.0.1:9464"},
		{"unix:/run/x/metrics", "unix", "/run/x/metrics"},
		{":9464", "", ""},
		{"0.0.0.0:9464", "", ""},
		{"[::]:9464", "", ""},
		{"192.0.2.1:9464", "", ""},
		{"localhost.example.com:9464", "", ""},
		{"127.0.0.1", "", ""},
		{"unix:relative", "", ""},
		{"unix:", "", ""},
		{"unix:@abstract", "", ""},
		{"", "", ""},
	} {
		network, address, err := ParseAddr(c.in)
		if network != c.network || address != c.address || (err == nil) != (c.network != "") {
			t.Errorf("ParseAddr(%q) = %q, %q, %v", c.in, network, address, err)
		}
	}
}

func TestCheckListener(t *testing.T) {
	if err := CheckListener(at{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}); err == nil {
		t.Error("a public address was taken")
	}
	if err := CheckListener(at{&net.TCPAddr{IP: net.IPv6loopback}}); err != nil {
		t.Error(err)
	}
}

// at is a listener that is known by its address alone.
type at struct{ addr net.Addr }

func (at) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (at) Close() error              { return nil }
func (a at) Addr() net.Addr          { return a.addr }

// A scrape over a UNIX socket while handshakes are counted, and the end of the server with its context.
func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := New("v1", "a.test")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, func() State { return State{Connections: 7} }) }()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 100 {
				s.Handshake(Handshake{Initiator: i%2 == 0, UID: uint32(i), Reason: reason.Code(i).String()})
				s.Reload(nil, time.Time{})
			}
		})
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn,
		error) {
		return net.Dial("unix", path)
	}}}
	get := func() string {
		resp, err := client.Get("http://localhost/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != ContentType {
			t.Fatalf("%v %v %v", resp.Status, resp.Header, err)
		}
		return string(b)
	}
	parse(t, get())
	wg.Wait()
	expect(t, parse(t, get()), map[string]float64{
		`shared_altsd_handshakes_total{role="initiator",result="accepted"}`: 100,
		`shared_altsd_reloads_total{result="succeeded"}`:                    400,
		`shared_altsd_connections`:                                          7,
	})
	if resp, err := client.Post("http://localhost/metrics", "", nil); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v %v", resp, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
