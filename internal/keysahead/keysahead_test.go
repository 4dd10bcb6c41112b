package keysahead

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/x25519"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// counted makes fresh keys and counts them.
type counted struct {
	noiseproto.FreshKeys
	x25519, mlkem768 atomic.Int64
}

func (c *counted) X25519() (*x25519.KeyPair, error) {
	c.x25519.Add(1)
	return c.FreshKeys.X25519()
}

func (c *counted) MLKEM768() (*mlkem768.DecapsulationKey, error) {
	c.mlkem768.Add(1)
	return c.FreshKeys.MLKEM768()
}

// use takes n keys of each kind and gives their public halves.
func use(t *testing.T, k *Keys, n int) (public []string) {
	t.Helper()
	for range n {
		x, err := k.X25519()
		if err != nil {
			t.Fatal(err)
		}
		m, err := k.MLKEM768()
		if err != nil {
			t.Fatal(err)
		}
		public = append(public, string(x.Public[:]), string(m.EncapsulationKey()))
	}
	return public
}

// makeUp makes up for all keys that were used.
func makeUp(k *Keys) {
	for k.Pending() {
		k.Piece()
	}
}

// Rule 46: many take at once while others make: none has what another has, and each key that was made is somebody's or in
// the stock, once.
func TestRule46NeverTwice(t *testing.T) {
	var fresh counted
	k := New(&fresh)
	defer k.Close()
	var mu sync.Mutex
	seen := map[string]bool{}
	var takers, makers sync.WaitGroup
	var done atomic.Bool
	for range 2 {
		makers.Go(func() {
			for !done.Load() {
				makeUp(k)
			}
		})
	}
	for range 4 {
		takers.Go(func() {
			for range 50 {
				for _, p := range use(t, k, 1) {
					mu.Lock()
					if seen[p] {
						t.Error("a key was given out twice")
					}
					seen[p] = true
					mu.Unlock()
				}
			}
		})
	}
	takers.Wait()
	done.Store(true)
	makers.Wait()
	makeUp(k)
	if made, want := int(fresh.x25519.Load()+fresh.mlkem768.Load()), len(seen)+k.Held(); made != want {
		t.Errorf("%d keys were made, %d given out and %d kept", made, len(seen), k.Held())
	}
	if k.Held() == 0 {
		t.Error("none was made ahead")
	}
}

// bubble runs f with a clock that the bubble moves, and that f can move on alone, as a machine's sleep does.
func bubble(t *testing.T, f func(t *testing.T, k *Keys, fresh *counted, slept *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fresh, slept, boot := new(counted), new(atomic.Int64), time.Now().Add(-time.Hour)
		k := newKeys(fresh, func() time.Duration { return time.Since(boot) + time.Duration(slept.Load()) })
		defer k.Close()
		f(t, k, fresh, slept)
	})
}

// Rule 46: a key is given out until it is 10 seconds old, and not after, also when the machine slept and no timer knows.
func TestRule46Age(t *testing.T) {
	for _, c := range []struct {
		name         string
		waits, sleep time.Duration
		old          bool
	}{
		{"young", maxAge - 1, 0, false},
		{"old", maxAge, 0, true},
		{"asleep, young", 0, maxAge - 1, false},
		{"asleep, old", 0, maxAge, true},
		{"half asleep, old", maxAge / 2, maxAge / 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, k *Keys, fresh *counted, slept *atomic.Int64) {
				use(t, k, 2)
				makeUp(k)
				before := fresh.x25519.Load() + fresh.mlkem768.Load()
				time.Sleep(c.waits)
				slept.Store(int64(c.sleep))
				use(t, k, 1)
				if made := fresh.x25519.Load() + fresh.mlkem768.Load() - before; (made == 2) != c.old || made == 1 {
					t.Errorf("%d keys were made anew, of 2", made)
				}
			})
		})
	}
}

// Rule 46: without handshakes the keys go by a timer, none is made in their place, and no timer is left.
func TestRule46EmptiesWithoutTraffic(t *testing.T) {
	bubble(t, func(t *testing.T, k *Keys, fresh *counted, _ *atomic.Int64) {
		use(t, k, 3)
		makeUp(k)
		time.Sleep(maxAge / 2)
		use(t, k, 1)
		makeUp(k)
		if k.Held() != 4 {
			t.Fatalf("%d keys are held, want 4", k.Held())
		}
		made := fresh.x25519.Load()
		time.Sleep(maxAge / 2)
		synctest.Wait()
		if k.Held() != 2 {
			t.Errorf("%d keys are held, want the 2 young ones", k.Held())
		}
		time.Sleep(maxAge / 2)
		synctest.Wait()
		if k.Held() != 0 || k.Pending() || fresh.x25519.Load() != made || k.x25519.expiry != nil || k.mlkem768.expiry != nil {
			t.Errorf("%d keys are held, pending %v, %d made in an idle daemon", k.Held(), k.Pending(), fresh.x25519.Load()-made)
		}
		for i := range k.x25519.keys {
			if k.x25519.keys[i].key != nil || k.mlkem768.keys[i].key != nil {
				t.Fatal("a key that was given out or dropped is still referred to")
			}
		}
	})
}

// Rule 46: a handshake after a pause has nothing made for it.
func TestRule46RareHandshakesLeaveNone(t *testing.T) {
	bubble(t, func(t *testing.T, k *Keys, _ *counted, _ *atomic.Int64) {
		for range 3 {
			use(t, k, 1)
			if k.Pending() {
				t.Error("a key is to be made though none was used in the last 10 seconds")
			}
			time.Sleep(maxAge)
		}
	})
}

// Rule 46: at the stop the keys go, and a piece that is in hand then, or comes later, leaves none.
func TestRule46DroppedAtStop(t *testing.T) {
	slow := &held{began: make(chan struct{}), end: make(chan struct{})}
	k := New(slow)
	use(t, k, 3)
	makeUp(k)
	if k.Held() != 4 {
		t.Fatalf("%d keys are held, want 4", k.Held())
	}
	use(t, k, 1)
	slow.hold.Store(true)
	var piece sync.WaitGroup
	piece.Go(k.Piece)
	<-slow.began
	k.Close()
	close(slow.end)
	piece.Wait()
	slow.hold.Store(false)
	use(t, k, 2)
	k.Piece()
	if k.Held() != 0 || k.Pending() {
		t.Errorf("%d keys are held after the stop, pending %v", k.Held(), k.Pending())
	}
}

// held makes X25519 keys that wait for its end.
type held struct {
	noiseproto.FreshKeys
	hold       atomic.Bool
	began, end chan struct{}
}

func (h *held) X25519() (*x25519.KeyPair, error) {
	if h.hold.Load() {
		close(h.began)
		<-h.end
	}
	return h.FreshKeys.X25519()
}

// Rule 46: what is dropped, of age or at the stop, is wiped, as far as it can be.
func TestRule46Wiped(t *testing.T) {
	var made []*x25519.KeyPair
	fresh := func() (*x25519.KeyPair, error) {
		k := x25519.Generate()
		made = append(made, k)
		return k, nil
	}
	now := time.Hour
	s := &stock[*x25519.KeyPair]{fresh: fresh, wipe: (*x25519.KeyPair).Wipe, now: func() time.Duration { return now }}
	for range 3 {
		if _, err := s.take(); err != nil {
			t.Fatal(err)
		}
	}
	for s.piece() {
	}
	if s.held() != 2 {
		t.Fatalf("%d keys are held, want 2", s.held())
	}
	now += maxAge
	s.mu.Lock()
	s.drop(now)
	s.mu.Unlock()
	s.take()
	s.take()
	for s.piece() {
	}
	s.close()
	for i, k := range made {
		if given := i < 3 || i == 5 || i == 6; given == (k.Private == [x25519.Size]byte{}) {
			t.Errorf("key %d: given out %v, wiped %v", i, given, !given)
		}
	}
}

// Rule 46: however many handshakes there are at once, 64 of a kind are made ahead.
func TestRule46AtMost64(t *testing.T) {
	k := New(noiseproto.FreshKeys{})
	defer k.Close()
	for range 3 {
		use(t, k, 2*maxKept)
		makeUp(k)
		if k.Held() != 2*maxKept {
			t.Errorf("%d keys are held, want %d", k.Held(), 2*maxKept)
		}
	}
}

const showClock = "SHARED_ALTSD_TEST_CLOCK"

// Rule 46: the clock is the one that goes on while the machine sleeps. No machine sleeps for a test: in a time namespace
// the two clocks lie apart, as after a sleep of 1000 hours.
func TestRule46Clock(t *testing.T) {
	if os.Getenv(showClock) != "" {
		t.Logf("clock=%d", int(sinceBoot().Hours()))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a time namespace")
	}
	const hours = 1000
	cmd := exec.Command("unshare", "--time", "--boottime", strconv.Itoa(hours*3600), "--fork", "--", os.Args[0],
		"-test.run=^TestRule46Clock$", "-test.v")
	cmd.Env = append(os.Environ(), showClock+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("unshare (of util-linux): %v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "clock=")
	digits, _, _ := strings.Cut(after, "\n")
	if got, err := strconv.Atoi(digits); err != nil || got < hours+int(sinceBoot().Hours()) {
		t.Errorf("the clock says %q hours where CLOCK_BOOTTIME is %d ahead of CLOCK_MONOTONIC", digits, hours)
	}
}
