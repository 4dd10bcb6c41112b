package dane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
	"github.com/shared-altsd/shared-altsd/internal/wire"
	"github.com/shared-altsd/shared-altsd/service"
)

// A dns is what the companion would say of each name, and how often it was asked.
type dns struct {
	mu     sync.Mutex
	names  map[string]func() ([]byte, error)
	others func(ctx context.Context, machine string) ([]byte, error) // of names that are not there
	asked  map[string]int
}

func (d *dns) Call(ctx context.Context, req []byte) ([]byte, error) {
	r := wire.NewReader(req)
	if op := r.U8("op"); op != 1 {
		return nil, fmt.Errorf("op %d", op)
	}
	machine := string(r.Opaque8("machine", 1, 253))
	if err := r.End(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	if d.asked == nil {
		d.asked = make(map[string]int)
	}
	d.asked[machine]++
	answer := d.names[machine]
	d.mu.Unlock()
	if answer == nil {
		return d.others(ctx, machine)
	}
	return answer()
}

func (d *dns) set(machine string, answer func() ([]byte, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[machine] = answer
}

func (d *dns) calls() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, calls := range d.asked {
		n += calls
	}
	return n
}

// says is an answer of the companion.
func says(o resolve.Outcome, ttl uint32, detail string, records ...[]byte) func() ([]byte, error) {
	a := resolve.Answer{Outcome: o, TTL: time.Duration(ttl) * time.Second, Records: records, Detail: detail}
	return func() ([]byte, error) { return a.Marshal(), nil }
}

// good is a record that can be used.
var good = append([]byte{3, 1, 1}, make([]byte, 32)...)

// hangs has no answer before its time is over.
func hangs(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func query(who share, machine string) service.Query {
	return service.Query{Share: who.who, Initiator: who.initiator, Machine: machine}
}

const alpha = "alpha.example.com"

// Each way to have no answer is told apart, with what to do, is counted, and stands for its time.
func TestOutcomes(t *testing.T) {
	long := make([][]byte, certbind.MaxAnswerRecords+1)
	for i := range long {
		long[i] = good
	}
	for _, tc := range []struct {
		what    string
		says    func() ([]byte, error)
		records int           // -1: none, but an error
		text    string        // of the error
		counted string        // what it is counted as
		stands  time.Duration // until it is asked anew
	}{
		{"found", says(resolve.Secure, 300, "", good), 1, "", resolve.Secure.String(), 5 * time.Minute},
		{"two", says(resolve.Secure, 300, "", good, []byte{2, 0, 1, 7}), 2, "", resolve.Secure.String(), 5 * time.Minute},
		{"a TTL of a day", says(resolve.Secure, 86400, "", good), 1, "", resolve.Secure.String(), time.Hour},
		{"no TTL", says(resolve.Secure, 0, "", good), 1, "", resolve.Secure.String(), 10 * time.Second},
		{"the longest TTL", says(resolve.Secure, 1<<32-1, "", good), 1, "", resolve.Secure.String(), time.Hour},
		{"absent", says(resolve.Absent, 3600, ""), 0, "", resolve.Absent.String(), time.Minute},
		{"absent for a moment", says(resolve.Absent, 5, ""), 0, "", resolve.Absent.String(), 10 * time.Second},
		{"bogus", says(resolve.Bogus, 0, "signature expired\x1b\n"), -1, "signatures wrong, or could not find out (signature expired??); ask",
			resolve.Bogus.String(), time.Minute},
		{"unsigned", says(resolve.Unsigned, 0, ""), -1, "is not signed", resolve.Unsigned.String(), time.Minute},
		{"silent", says(resolve.Silent, 0, "127.0.0.1:53"), -1, "has not answered at _shared-alts." + alpha + " (127.0.0.1:53)", resolve.Silent.String(), 5 * time.Second},
		{"malformed", says(resolve.Malformed, 0, ""), -1, "with what cannot be used", resolve.Malformed.String(), time.Minute},
		{"a record that does not parse", says(resolve.Secure, 300, "", []byte{3, 1}, good), 2, "", resolve.Secure.String(), 5 * time.Minute},
		{"records that are none", says(resolve.Secure, 300, ""), -1, "of the same version", Away, 0},
		{"too many records", says(resolve.Secure, 300, "", long...), -1, "with what cannot be used", resolve.Malformed.String(), time.Minute},
		{"an outcome of another version", says(200, 0, ""), -1, "of the same version", Away, 0},
		{"nothing", func() ([]byte, error) { return nil, nil }, -1, "of the same version", Away, 0},
		{"no companion", func() ([]byte, error) { return nil, errors.New("it is away") }, -1, "was not asked about machine \"" + alpha +
			"\": it is away", Away, 0},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dns{names: map[string]func() ([]byte, error){alpha: tc.says}}
				r := New(Config{Client: d})
				ask := func() {
					t.Helper()
					answer, err := r.Resolve(t.Context(), query(share{"uid 1", true}, alpha))
					switch {
					case tc.records < 0 && (reason.Of(err) != reason.DNSUnknown || !strings.Contains(err.Error(), tc.text)):
						t.Fatalf("got %v, %v, want %q", answer, err, tc.text)
					case tc.records >= 0 && (err != nil || answer.Machine != alpha || len(answer.Records) != tc.records):
						t.Fatalf("got %v, %v, want %d records", answer, err, tc.records)
					}
				}
				ask()
				if stats := r.Stats(); stats.Lookups[tc.counted] != 1 {
					t.Errorf("counted %v", stats.Lookups)
				}
				if tc.stands > 0 {
					time.Sleep(tc.stands - time.Nanosecond)
					ask()
					if d.calls() != 1 {
						t.Errorf("asked again before %v", tc.stands)
					}
					time.Sleep(time.Nanosecond)
				}
				ask()
				if d.calls() != 2 {
					t.Errorf("asked %d times after %v", d.calls(), tc.stands)
				}
			})
		})
	}
}

// A companion that does not answer is waited for no longer than a lookup may take, and that is said.
func TestCompanionHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Client: &dns{others: hangs}})
		began := time.Now()
		_, err := r.Resolve(t.Context(), query(share{"uid 1", true}, alpha))
		if took := time.Since(began); reason.Of(err) != reason.DNSUnknown || took != lookupTime ||
			!strings.Contains(err.Error(), "has not answered about machine") {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// What is kept of an answer vouches for the same certificates as what DNS has, and is short.
func TestRecordsAreKeptShort(t *testing.T) {
	full := append([]byte{3, 0, 0}, make([]byte, 2000)...)
	d := &dns{names: map[string]func() ([]byte, error){alpha: says(resolve.Secure, 300, "", full, append([]byte{2}, full[1:]...))}}
	a, err := New(Config{Client: d}).Resolve(t.Context(), query(share{"uid 1", true}, alpha))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Records[0]; !got.Usable() || got.Matching != certbind.MatchingSHA512 || len(got.Data) != 64 {
		t.Errorf("got %v", got)
	}
	if got := a.Records[1]; got.Usable() || got.Usage != 2 || got.Data != nil {
		t.Errorf("got %v", got)
	}
}

// flood has n strangers of a share ask for names that they made up.
func flood(t *testing.T, r *Resolver, who share, n int) {
	for i := range n {
		go r.Resolve(t.Context(), query(who, fmt.Sprintf("x%d.%t.%s.example.com", i, who.initiator, who.who)))
	}
	synctest.Wait()
}

// Whoever makes up names takes his own share's part of the places: other accounts, the other direction and machines that
// have been met are looked up at once.
func TestRule60StrangersKeepOutNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{others: hangs, names: map[string]func() ([]byte, error){alpha: says(resolve.Secure, 60, "", good), "beta.example.com": says(resolve.Secure, 60, "", good)}}
		r := New(Config{Client: d})
		ask := func(who share, machine string) {
			t.Helper()
			began := time.Now()
			if _, err := r.Resolve(t.Context(), query(who, machine)); err != nil || time.Since(began) != 0 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		alice, other, bob := share{"uid1", false}, share{"uid1", true}, share{"uid2", false}
		ask(alice, alpha)
		flood(t, r, alice, 200)
		if s := r.Stats(); s.InFlight != strangePlaces.share || s.Waiting != 200-strangePlaces.share {
			t.Fatalf("%d are under way, %d wait", s.InFlight, s.Waiting)
		}
		ask(bob, "beta.example.com")
		d.set("gamma.example.com", says(resolve.Secure, 60, "", good))
		ask(other, "gamma.example.com")
		time.Sleep(time.Minute) // until what DNS said is over; the flood goes on meanwhile
		flood(t, r, alice, 200)
		for _, name := range []string{alpha, "beta.example.com", "gamma.example.com"} {
			ask(alice, name)
		}
		// However many shares are flooded, a quarter of the places is all that made-up names get.
		for i := range 20 {
			flood(t, r, share{fmt.Sprintf("of%d", i), false}, 20)
		}
		if s := r.Stats(); s.InFlight != strangePlaces.places {
			t.Errorf("%d are under way", s.InFlight)
		}
		time.Sleep(time.Hour)
		for _, name := range []string{alpha, "beta.example.com", "gamma.example.com"} {
			ask(bob, name)
		}
		time.Sleep(time.Hour)
		if s := r.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Missed > maxMissed || len(r.asked) != 0 {
			t.Errorf("%+v", s)
		}
		wantEmpty(t, r)
	})
}

// A name that is good belongs to none of those who wait for it: who has a place begins the lookup for all.
func TestRule60OthersLookupServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{others: hangs, names: map[string]func() ([]byte, error){alpha: says(resolve.Secure, 60, "", good)}}
		r := New(Config{Client: d})
		alice, bob := share{"uid1", false}, share{"uid2", false}
		flood(t, r, alice, 50)
		var answered atomic.Int32
		for range 10 {
			go func() {
				if _, err := r.Resolve(t.Context(), query(alice, alpha)); err == nil {
					answered.Add(1)
				}
			}()
		}
		synctest.Wait()
		if answered.Load() != 0 {
			t.Fatal("alice's had a place behind her flood")
		}
		if _, err := r.Resolve(t.Context(), query(bob, alpha)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if answered.Load() != 10 || d.calls() != strangePlaces.share+1 {
			t.Errorf("%d were answered, by %d lookups", answered.Load(), d.calls())
		}
		time.Sleep(time.Hour)
	})
}

// Who gives up leaves nothing behind, and what he began ends in its own time.
func TestRule60WhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{others: hangs}
		r := New(Config{Client: d})
		for round := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			for i := range 20 {
				go func() {
					_, err := r.Resolve(ctx, query(share{"uid 1", false}, fmt.Sprintf("x%d.y%d.example.com", i, round)))
					if reason.Of(err) != reason.DNSUnknown {
						t.Errorf("got %v", err)
					}
				}()
			}
			<-ctx.Done()
			cancel()
			synctest.Wait()
			if s := r.Stats(); s.InFlight > strangePlaces.share || s.Waiting != 0 {
				t.Fatalf("%d are under way, %d wait", s.InFlight, s.Waiting)
			}
		}
		if d.calls() != strangePlaces.share {
			t.Errorf("%d lookups", d.calls())
		}
		time.Sleep(time.Minute)
	})
}

// Whoever fills what is kept pushes out his own.
func TestRule60Entries(t *testing.T) {
	c := newCache(100)
	alice, bob := share{"uid1", false}, share{"uid2", true}
	for i := range 20 {
		c.put(fmt.Sprintf("b%d", i), bob, verdict{})
	}
	c.put("shared", alice, verdict{})
	for i := range 1000 {
		if i%50 == 0 {
			c.get("shared", bob)
		}
		c.put(fmt.Sprintf("a%d", i), alice, verdict{})
	}
	if c.len() != 100 || c.count(alice) != 79 || c.count(bob) != 21 {
		t.Errorf("%d are kept, %d of alice's, %d of bob's", c.len(), c.count(alice), c.count(bob))
	}
	for i := range 20 {
		if !c.has(fmt.Sprintf("b%d", i)) {
			t.Errorf("b%d is gone", i)
		}
	}
	if !c.has("shared") || !c.has("a999") || c.has("a900") {
		t.Error("the wrong ones are kept")
	}
	// Who has many takes none from who has few.
	c.get("b0", alice)
	if c.count(alice) != 79 {
		t.Error("alice took what is bob's")
	}
}

// A name that was good keeps its place among those when DNS says otherwise.
func TestRule60OnceGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dns{names: map[string]func() ([]byte, error){alpha: says(resolve.Secure, 60, "", good)}}
		r := New(Config{Client: d})
		for _, answer := range []func() ([]byte, error){says(resolve.Secure, 60, "", good), says(resolve.Bogus, 0, ""), says(resolve.Absent, 60, ""), says(resolve.Silent, 0, "")} {
			d.set(alpha, answer)
			r.Resolve(t.Context(), query(share{"uid 1", false}, alpha))
			if s := r.Stats(); s.Known != 1 || s.Missed != 0 {
				t.Errorf("%d known, %d missed", s.Known, s.Missed)
			}
			time.Sleep(time.Hour)
		}
		if d.calls() != 4 {
			t.Errorf("%d lookups", d.calls())
		}
	})
}

// All at once, for the race detector: each handshake is answered, with what DNS says of the machine it asked for.
func TestConcurrency(t *testing.T) {
	d := &dns{others: func(_ context.Context, machine string) ([]byte, error) {
		if strings.HasPrefix(machine, "good") {
			return says(resolve.Secure, 60, "", good)()
		}
		return says(resolve.Absent, 60, "")()
	}}
	r := New(Config{Client: d})
	var all sync.WaitGroup
	for who := range 8 {
		for i := range 200 {
			all.Go(func() {
				name := fmt.Sprintf("%s%d.example.com", []string{"good", "made-up"}[i%2], i/4)
				a, err := r.Resolve(t.Context(), query(share{fmt.Sprint(who), i%3 == 0}, name))
				if err != nil || a.Machine != name || usable(a) != strings.HasPrefix(name, "good") {
					t.Errorf("%s: %v, %v", name, a, err)
				}
			})
		}
	}
	all.Wait()
	if s := r.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Known != 50 || s.Missed != 50 || d.calls() != 100 {
		t.Errorf("%+v, %d lookups", s, d.calls())
	}
}

// How the resolver is comes from the companion, is kept for those who ask what is wrong, and is logged when it changes.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since, last := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(-time.Minute).Truncate(time.Second)
		says := func(p resolve.Probe) func() ([]byte, error) {
			return func() ([]byte, error) { return p.Marshal(), nil }
		}
		gone := func() ([]byte, error) { return nil, errors.New("it is gone") }
		companion := new(prober)
		companion.set(says(resolve.Probe{Outcome: resolve.Secure, Resolver: "127.0.0.1:53", Since: since, Last: last}))
		var log strings.Builder
		r := New(Config{Client: companion, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if r.Stats().Probe != nil {
			t.Error("there is a probe before the first")
		}
		done := make(chan struct{})
		go r.Watch(done)
		synctest.Wait()
		if p := r.Stats().Probe; !p.Validates || p.Away || p.Resolver != "127.0.0.1:53" || !p.Since.Equal(since) || !p.Last.Equal(last) {
			t.Errorf("%+v", p)
		}
		for _, tc := range []struct {
			says func() ([]byte, error)
			away bool
			what string // wrong
		}{
			{says(resolve.Probe{Outcome: resolve.Unsigned, Detail: "no AD"}), false, "does not validate (unsigned: no AD)"},
			{says(resolve.Probe{Outcome: resolve.Silent}), false, "does not validate (silent)"},
			{gone, true, "it is gone"},
			{gone, true, "it is gone"},
			{func() ([]byte, error) { return []byte{1}, nil }, true, "of the same version"},
		} {
			companion.set(tc.says)
			time.Sleep(probeInterval)
			synctest.Wait()
			if p := r.Stats().Probe; p.Validates || p.Away != tc.away || !strings.Contains(p.What, tc.what) {
				t.Errorf("%+v, want %q", p, tc.what)
			}
		}
		if p := r.Stats().Probe; p.Last.Sub(p.Since) != 2*probeInterval {
			t.Errorf("away since %v, at %v", p.Since, p.Last)
		}
		close(done)
		if errs, infos := strings.Count(log.String(), "level=ERROR"), strings.Count(log.String(), "level=INFO"); errs != 2 || infos != 1 {
			t.Errorf("the log: %s", log.String())
		}
	})
}

// A prober is a companion that is asked for nothing else.
type prober struct {
	says atomic.Pointer[func() ([]byte, error)]
}

func (p *prober) set(says func() ([]byte, error)) { p.says.Store(&says) }

func (p *prober) Call(context.Context, []byte) ([]byte, error) { return (*p.says.Load())() }

func wantEmpty(t *testing.T, r *Resolver) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		if l.used != 0 || len(l.lines) != 0 || l.turns.Len() != 0 || len(l.branches) != 0 {
			t.Errorf("a lane has %d used, %d lines, %d turns, %d branches", l.used, len(l.lines), l.turns.Len(), len(l.branches))
		}
	}
}

// Whoever runs a zone under the names of --ca, and with it makes any number of names good and then slow, keeps out no others.
func TestRule60SlowZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		d := &dns{names: map[string]func() ([]byte, error){alpha: says(resolve.Secure, 60, "", good)}}
		d.others = func(ctx context.Context, machine string) ([]byte, error) {
			if slow.Load() {
				return hangs(ctx, machine)
			}
			return says(resolve.Secure, 10, "", good)()
		}
		r := New(Config{Client: d, Names: func() []string { return []string{"example.org", "example.com"} }})
		bob := share{"uid2", false}
		ask := func(machine string) {
			t.Helper()
			began := time.Now()
			if _, err := r.Resolve(t.Context(), query(bob, machine)); err != nil || time.Since(began) != 0 {
				t.Errorf("%s: %v after %v", machine, err, time.Since(began))
			}
		}
		ask(alpha)
		names := func(i int) string { return fmt.Sprintf("x%d.y%d.evil.example.com", i, i%7) }
		for i := range 200 {
			ask(names(i))
		}
		time.Sleep(time.Minute)
		slow.Store(true)
		for _, who := range []share{bob, {"uid3", false}, {"uid4", true}, {"uid5", true}} {
			for i := range 100 {
				go r.Resolve(t.Context(), query(who, names(i)))
				go r.Resolve(t.Context(), query(who, "new."+names(i)))
			}
		}
		synctest.Wait()
		if s := r.Stats(); s.InFlight != knownPlaces.branch+strangePlaces.branch {
			t.Errorf("%d are under way", s.InFlight)
		}
		ask(alpha)
		d.set("beta.example.com", says(resolve.Secure, 60, "", good))
		ask("beta.example.com")
		time.Sleep(time.Hour)
		wantEmpty(t, r)
	})
}
