package resolve

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestMain(m *testing.M) {
	// The tests' servers are in networks of their own, where the setting is the kernel's default.
	dir, err := os.MkdirTemp("", "altsd-")
	if err == nil {
		portStart = filepath.Join(dir, "start")
		err = os.WriteFile(portStart, []byte("1024\n"), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := testprog.Main(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// in returns a Resolver that asks at an address in the network of d.
func in(d *testdns.DNS, address string) *Resolver {
	r := New(netip.MustParseAddrPort(address), slog.New(slog.DiscardHandler))
	r.dial = d.Dial
	return r
}

// prefix is what the name of a machine's records begins with.
const prefix = "_shared-alts."

// published returns a line of a zone, relative to it, with a record of a machine.
func published(machine string, n int) string {
	return fmt.Sprintf("%s%s IN TLSA 3 1 1 %064X", prefix, machine, n)
}

// rdata is what comes of published.
func rdata(n int) string { return fmt.Sprintf("3 1 1 %064x", n) }

func shown(a *Answer) string {
	var all []string
	for _, r := range a.Records {
		all = append(all, presentation(r))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Whatever is wrong with a zone, a validator says so, and it never becomes a record; each outcome is apart from the others.
func TestRule59Zones(t *testing.T) {
	many := func(n int, line string) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf(line, i))
		}
		return all
	}
	good := []string{published("alpha", 1), prefix + "none IN TXT nothing", published("two", 1), published("two", 2), prefix + "ttl 4000 IN TLSA 3 1 1 00",
		"*.wild IN TLSA " + rdata(7), prefix + "alias IN CNAME _tlsa.other", "_tlsa.other IN TLSA 3 0 1 00", prefix + "away IN CNAME " + prefix + "alpha.other.example.",
		prefix + "toexpired IN CNAME " + prefix + "alpha.expired.example.", prefix + "tounsigned IN CNAME " + prefix + "alpha.unsigned.example.",
		prefix + "tonothing IN CNAME nothing", prefix + "loop IN CNAME " + prefix + "pool", prefix + "pool IN CNAME " + prefix + "loop",
		"hop8 IN TLSA 3 1 1 00", prefix + "eight IN CNAME hop1", prefix + "nine IN CNAME hop0", "hop0 IN CNAME hop1",
		"sub IN DNAME alpha.other.example."}
	good = append(good, many(7, prefix+"unused%d IN TXT x")...)
	for i := 1; i < 8; i++ {
		good = append(good, fmt.Sprintf("hop%d IN CNAME hop%d", i, i+1))
	}
	good = append(good, many(16, prefix+"sixteen IN TLSA 3 1 2 %0128X")...)
	good = append(good, many(17, prefix+"seventeen IN TLSA 3 1 1 %064X")...)
	good = append(good, many(12, prefix+"giant IN TLSA 3 0 0 %03000X")...)
	good = append(good, many(3, prefix+"large IN TLSA 3 0 0 %03000X")...)
	one := []string{published("alpha", 1)}
	d := testdns.New(t, testdns.Zone{Name: "good.example", Records: good},
		testdns.Zone{Name: "other.example", Records: []string{published("alpha", 9), prefix + "alpha.alpha IN TLSA 3 1 1 00"}},
		testdns.Zone{Name: "unsigned.example", Kind: testdns.Unsigned, Records: one}, testdns.Zone{Name: "expired.example", Kind: testdns.Expired, Records: one},
		testdns.Zone{Name: "notyet.example", Kind: testdns.NotYet, Records: one}, testdns.Zone{Name: "forged.example", Kind: testdns.Forged, Records: one},
		testdns.Zone{Name: "listed.example", Kind: testdns.ListedKey, Records: one}, testdns.Zone{Name: "stripped.example", Kind: testdns.Stripped, Records: one},
		testdns.Zone{Name: "foreign.example", Kind: testdns.OtherParent, Records: one})
	label := strings.Repeat("x", 63)
	rows := []struct {
		machine string
		outcome Outcome
		records string // with Secure
		detail  string
	}{
		{"alpha.good.example", Secure, rdata(1), ""},
		{"two.good.example", Secure, rdata(1) + ", " + rdata(2), ""},
		{"ttl.good.example", Secure, "3 1 1 00", ""},
		{"no.good.example", Absent, "", ""},   // no such name
		{"none.good.example", Absent, "", ""}, // the name is there
		{"x.no-such-domain", Absent, "", ""},
		{"x.wild.good.example", Secure, rdata(7), ""},
		{"a.b.wild.good.example", Secure, rdata(7), ""},
		{"wild.good.example", Secure, rdata(7), ""}, // its name with the prefix is below it
		{"alias.good.example", Secure, "3 0 1 00", ""},
		{"away.good.example", Secure, rdata(9), ""},
		{"tonothing.good.example", Absent, "", ""},
		{"eight.good.example", Secure, "3 1 1 00", ""},
		{"nine.good.example", Malformed, "", "more than 8 aliases"},
		{"loop.good.example", Bogus, "", "SERVFAIL"},
		{"toexpired.good.example", Bogus, "", "expired"},
		{"tounsigned.good.example", Unsigned, "", ""},
		{"sixteen.good.example", Secure, "", ""}, // by TCP
		{"seventeen.good.example", Malformed, "", "more than 16 records"},
		{"large.good.example", Secure, "", ""},
		{"giant.good.example", Malformed, "", "more records than an answer holds"},
		{"alpha.unsigned.example", Unsigned, "", ""},
		{"no.unsigned.example", Unsigned, "", ""},
		{"alpha.expired.example", Bogus, "", "SERVFAIL, "},
		{"no.expired.example", Bogus, "", "SERVFAIL, "},
		{"alpha.notyet.example", Bogus, "", "SERVFAIL, "},
		{"alpha.forged.example", Bogus, "", "SERVFAIL, "},
		{"alpha.listed.example", Bogus, "", "SERVFAIL, "},
		{"alpha.stripped.example", Bogus, "", "SERVFAIL, "},
		{"alpha.foreign.example", Bogus, "", "SERVFAIL, "},
		{strings.Join([]string{label, label, label, "good.example"}, "."), Absent, "", ""},
		{strings.Join([]string{label, label, label, label[:48], "good"}, "."), Malformed, "", "too long for DNS"},
	}
	r := in(d, testdns.Resolver)
	for _, tt := range rows {
		got := r.Lookup(t.Context(), tt.machine)
		a, err := ParseAnswer(got.Marshal()) // as the daemon has it
		if err != nil {
			t.Errorf("%s: %v", tt.machine, err)
			continue
		}
		if a.Outcome != tt.outcome || tt.records != "" && shown(a) != tt.records || !strings.Contains(a.Detail, tt.detail) {
			t.Errorf("%s: %v, %q, %q, want %v, %q, %q", tt.machine, a.Outcome, shown(a), a.Detail, tt.outcome, tt.records, tt.detail)
		}
		if tt.machine == "ttl.good.example" && (a.TTL > 4000*time.Second || a.TTL < 3900*time.Second) {
			t.Errorf("%s: for %v", tt.machine, a.TTL)
		} else if tt.machine != "ttl.good.example" && a.TTL > time.Second {
			t.Errorf("%s: for %v, want no more than 1s", tt.machine, a.TTL)
		}
	}
	// All at once, as daemons ask.
	var asking sync.WaitGroup
	for range 4 {
		for _, tt := range rows {
			asking.Go(func() {
				if a, err := ParseAnswer(r.Lookup(t.Context(), tt.machine).Marshal()); err != nil || a.Outcome != tt.outcome {
					t.Errorf("%s among others: %v, %v", tt.machine, a, err)
				}
			})
		}
	}
	asking.Wait()
	if p := r.check(t.Context()); p.Outcome != Secure || p.Resolver != testdns.Resolver || time.Since(p.Last) > time.Minute {
		t.Errorf("the probe: %+v", p)
	}

	// A resolver that does not validate vouches for nobody, whatever the zone.
	careless := in(d, testdns.Careless)
	for _, tt := range rows {
		if a := careless.Lookup(t.Context(), tt.machine); a.Outcome == Secure || a.Outcome == Absent || len(a.Records) > 0 && a.Outcome != Unsigned {
			t.Errorf("%s without validation: %+v", tt.machine, a)
		}
	}
	if p := careless.check(t.Context()); p.Outcome != Unsigned {
		t.Errorf("the probe without validation: %+v", p)
	}

	// Nobody behind the resolver, nobody at all, and all is well again.
	d.StopServer()
	d.Flush(t)
	if a := r.Lookup(t.Context(), "alpha.good.example"); a.Outcome != Bogus && a.Outcome != Silent {
		t.Errorf("without a server: %+v", a)
	}
	d.StopResolver()
	if a := r.Lookup(t.Context(), "alpha.good.example"); a.Outcome != Silent || !strings.Contains(a.Detail, "nobody answers at 127.0.0.1:53") {
		t.Errorf("without a resolver: %+v", a)
	}
	if p := r.check(t.Context()); p.Outcome != Silent {
		t.Errorf("the probe without a resolver: %+v", p)
	}
	d.StartServer(t)
	d.StartResolver(t)
	if a := r.Lookup(t.Context(), "alpha.good.example"); a.Outcome != Secure {
		t.Errorf("when all are back: %+v", a)
	}
}

// systemd-resolved validates with DNSSEC=yes, and vouches for nobody with DNSSEC=no, as Debian has it.
func TestRule59SystemdResolved(t *testing.T) {
	kinds := map[string]testdns.Kind{"signed": testdns.Signed, "unsigned": testdns.Unsigned, "expired": testdns.Expired, "notyet": testdns.NotYet,
		"forged": testdns.Forged, "listed": testdns.ListedKey, "stripped": testdns.Stripped, "foreign": testdns.OtherParent}
	var zones []testdns.Zone
	for name, kind := range kinds {
		zones = append(zones, testdns.Zone{Name: name + ".example", Kind: kind, Records: []string{published("alpha", 1),
			prefix + "alias IN CNAME " + prefix + "alpha.signed.example."}})
	}
	for _, dnssec := range []string{"yes", "no"} {
		t.Run(dnssec, func(t *testing.T) {
			d := testdns.New(t, zones...)
			d.StartResolved(t, dnssec)
			r := in(d, testdns.Resolved)
			want, probe := map[string]Outcome{"alpha.signed.example": Secure, "alias.signed.example": Secure, "beta.signed.example": Absent,
				"alpha.unsigned.example": Unsigned, "alias.unsigned.example": Unsigned, "alpha.expired.example": Bogus,
				"alpha.notyet.example": Bogus, "alpha.forged.example": Bogus, "alpha.listed.example": Bogus, "alpha.stripped.example": Bogus,
				"alpha.foreign.example": Bogus}, Secure
			if dnssec == "no" {
				probe = Unsigned
				for machine := range want {
					want[machine] = Unsigned
				}
			}
			for machine, outcome := range want {
				if a := r.Lookup(t.Context(), machine); a.Outcome != outcome || outcome == Secure && shown(a) != rdata(1) {
					t.Errorf("%s: %v, %q, %q, want %v", machine, a.Outcome, shown(a), a.Detail, outcome)
				}
			}
			if p := r.check(t.Context()); p.Outcome != probe {
				t.Errorf("the probe: %+v, want %v", p, probe)
			}
		})
	}
}

// Who keeps the resolver from a zone cannot have its records go on, where the resolver says that they are over.
func TestRule59Stale(t *testing.T) {
	d := testdns.New(t, testdns.Zone{Name: "good.example", Records: []string{published("alpha", 1)}})
	d.ServeExpired(t)
	r := in(d, testdns.Resolver)
	if a := r.Lookup(t.Context(), "alpha.good.example"); a.Outcome != Secure {
		t.Fatalf("%+v", a)
	}
	d.StopServer()
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(50 * time.Millisecond) {
		a := r.Lookup(t.Context(), "alpha.good.example")
		if a.Outcome == Silent && strings.Contains(a.Detail, "stale answer") {
			return
		}
		if a.Outcome != Secure || time.Now().After(end) { // as long as its TTL
			t.Fatalf("%+v", a)
		}
	}
}

// A forwarder that does not validate and sets AD all the same, as dnsmasq passes on what it hears, is asked only if an administrator
// has named it, or says by trust-ad that he believes it: that it stands in a resolv.conf at an address of loopback is not enough.
func TestRule59ForgedAD(t *testing.T) {
	d := testdns.New(t, testdns.Zone{Name: "forged.example", Kind: testdns.Forged, Records: []string{published("alpha", 1)}})
	const forger = "127.0.0.4:53"
	p, _, err := d.Listen("udp", forger)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	go func() {
		for buf := make([]byte, maxUDP); ; {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			c, err := d.Dial(t.Context(), "udp", testdns.Careless)
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(testprog.Patience))
			c.Write(buf[:n])
			if n, err = c.Read(buf); err == nil && n > 3 {
				buf[3] |= 0x20 // AD
				p.WriteTo(buf[:n], from)
			}
			c.Close()
		}
	}()
	for _, tt := range []struct {
		given, conf string
		asked       bool
	}{
		{"", "nameserver 127.0.0.4\n", false}, {"127.0.0.4:5300", "", false}, {"", "nameserver 127.0.0.4\noptions trust-ad\n", true}, {"127.0.0.4", "", true},
	} {
		var given netip.AddrPort
		if tt.given != "" {
			if given, err = ParseResolver(tt.given); err != nil {
				t.Fatal(err)
			}
		}
		addr, err := Choose(given, testprog.Write(t, filepath.Join(t.TempDir(), "resolv.conf"), []byte(tt.conf)))
		if (err == nil) != tt.asked {
			t.Errorf("%q, %q: %v", tt.given, tt.conf, err)
		}
		if err == nil && in(d, addr.String()).Lookup(t.Context(), "alpha.forged.example").Outcome != Secure {
			t.Errorf("%q, %q: who is named is not believed", tt.given, tt.conf)
		}
	}
	if a := in(d, testdns.Resolver).Lookup(t.Context(), "alpha.forged.example"); a.Outcome != Bogus {
		t.Errorf("one that validates: %+v", a)
	}
}

// A key is replaced while daemons ask: each answer has one of the sets that were published.
func TestRolloverUnderLoad(t *testing.T) {
	sets := []string{rdata(1), rdata(1) + ", " + rdata(2), rdata(2)}
	d := testdns.New(t, testdns.Zone{Name: "good.example", Records: []string{published("alpha", 1)}})
	r := in(d, testdns.Resolver)
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 8 {
		asking.Go(func() {
			for ctx.Err() == nil {
				a := r.Lookup(ctx, "alpha.good.example")
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				if a.Outcome != Secure || !slices.Contains(sets, shown(a)) {
					t.Errorf("%v, %q, %q", a.Outcome, shown(a), a.Detail)
				}
				seen[shown(a)]++
				mu.Unlock()
			}
		})
	}
	until := func(set string) {
		t.Helper()
		for end := time.Now().Add(testprog.Patience); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			n := seen[set]
			mu.Unlock()
			if n > 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%q is never seen", set)
			}
		}
	}
	until(sets[0])
	d.Set(t, "good.example", testdns.Signed, published("alpha", 1), published("alpha", 2))
	until(sets[1])
	d.Set(t, "good.example", testdns.Signed, published("alpha", 2))
	until(sets[2])
	stop()
	asking.Wait()
}

// What a server says of the name asked for is read as an answer whole, in any case of letters.
func TestNames(t *testing.T) {
	q, err := newQuestion(certbind.TLSAOwner("alpha.example.com"), typeTLSA, 1)
	if err != nil {
		t.Fatal(err)
	}
	upper := dnsmessage.MustNewName("_SHARED-ALTS.Alpha.Example.COM.")
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, Response: true, AuthenticData: true},
		Questions: []dnsmessage.Question{{Name: upper, Type: typeTLSA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: upper, Type: typeTLSA, Class: dnsmessage.ClassINET, TTL: 9},
			Body: &dnsmessage.UnknownResource{Type: typeTLSA, Data: []byte{3, 1, 1, 0}}}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if is, _ := q.answeredBy(b); !is {
		t.Error("another question")
	}
	if r, err := q.read(b); err != nil || len(r.records) != 1 || !r.ad || r.ttl != 9*time.Second {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := newQuestion(strings.Repeat("x", 300), typeTLSA, 1); err == nil {
		t.Error("a name of 300 bytes")
	}
}
