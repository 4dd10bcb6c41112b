package matrix

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const (
	transfer    = 64 << 20
	atOnce      = 200
	refusalTime = 2 * time.Second
)

// A row is one pair of libraries, with what was measured.
type row struct {
	client, server       string
	wrong, refused       time.Duration
	up, down             float64 // MB/s
	channels, newChannel time.Duration
}

// TestMatrix has a client of each library call a server of each.
func TestMatrix(t *testing.T) {
	w := theWorld(t)
	for _, k := range kinds {
		k.need(t, w)
	}
	digest := patternDigest(transfer)
	type pair struct {
		row    *row
		client *process
		want   string
	}
	var pairs []pair
	for _, sk := range kinds {
		address := serverOf(t, w, sk)
		for _, ck := range kinds {
			r := &row{client: ck.name, server: sk.name}
			name := ck.name + " to " + sk.name
			c := clientOf(t, w, ck, w.alpha, address, w.other+"@beta.test,"+w.server.on(w.beta))
			want := "ok " + w.caller.on(w.alpha) + " " + uidOrNot(sk.attributes, w.caller)
			if ck.serverIdentity {
				want += " " + w.server.on(w.beta) + " " + uidOrNot(ck.attributes, w.server)
			} else {
				want += " - -"
			}
			if got := c.ask("greet"); got != want {
				t.Errorf("%s: %q, not %q\nalpha: %s\nbeta: %s", name, got, want, w.alpha.run.Log, w.beta.run.Log)
				continue
			}
			r.up = rate(t, c, name, "upload", digest)
			r.down = rate(t, c, name, "download", digest)
			wrong := ck.wrongTarget(w)
			_, machine, _ := strings.Cut(wrong, "@")
			r.wrong = refused(t, name+", another target asked for", clientOf(t, w, ck, w.alpha, address, wrong),
				"this machine's daemon refused", "(target_mismatch)", w.server.on(w.beta), machine)
			r.refused = refused(t, name+", from a machine that is not trusted",
				clientOf(t, w, ck, w.gamma, address, w.server.on(w.beta)), "the peer's daemon refused", "(unknown_ca)")
			begun := time.Now()
			if got := c.ask(fmt.Sprintf("channels %d %d", atOnce, min(atOnce, sk.serverCap))); got != want {
				t.Errorf("%s, %d channels: %q, not %q", name, atOnce, got, want)
			}
			r.channels = time.Since(begun)
			pairs = append(pairs, pair{r, c, want})
		}
	}

	for _, d := range []*daemon{w.alpha, w.beta} {
		if err := errors.Join(d.run.Stop(), d.start()); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pairs {
		name := p.row.client + " to " + p.row.server
		if got := p.client.ask("greet"); got != p.want {
			t.Errorf("%s, a channel that was there before the daemons ended: %q, not %q", name, got, p.want)
		}
		begun, got := time.Now(), ""
		for got != p.want && time.Since(begun) < testprog.Patience {
			p.client.ask("new")
			got = p.client.ask("greet")
		}
		if got != p.want {
			t.Errorf("%s, after the daemons came back: %q, not %q", name, got, p.want)
		}
		p.row.newChannel = time.Since(begun)
	}

	fmt.Printf("\n%-10s %-10s  %-22s  %-22s  %-17s  %-12s  %s\n", "client", "server", "wrong target refused",
		"unknown CA refused", "64 MiB up, down", "200 channels", "daemons restarted")
	for _, p := range pairs {
		r := p.row
		fmt.Printf("%-10s %-10s  after %4d ms          after %4d ms          %4.0f, %4.0f MB/s  %6.2f s      "+
			"new channel after %4d ms\n", r.client, r.server, r.wrong.Milliseconds(), r.refused.Milliseconds(), r.up, r.down,
			r.channels.Seconds(), r.newChannel.Milliseconds())
	}
	if len(pairs) != len(kinds)*len(kinds) {
		t.Errorf("%d pairs of %d", len(pairs), len(kinds)*len(kinds))
	}
}

func uidOrNot(shown bool, a account) string {
	if !shown {
		return "-"
	}
	return fmt.Sprint(a.uid)
}

// rate has the client do one transfer and gives its speed in MB/s.
func rate(t *testing.T, c *process, name, command, digest string) float64 {
	t.Helper()
	begun := time.Now()
	if got := c.ask(fmt.Sprint(command, " ", transfer)); got != "ok "+digest {
		t.Errorf("%s, %s: %q, not digest %s", name, command, got, digest)
	}
	return transfer / 1e6 / time.Since(begun).Seconds()
}

// refused checks that a call fails, soon, with the texts in the client application's error. Of three attempts the
// quickest counts: the machine may be busy, but what waits for a deadline always does.
func refused(t *testing.T, name string, c *process, texts ...string) time.Duration {
	t.Helper()
	least := testprog.Patience
	for range 3 {
		c.ask("new")
		begun := time.Now()
		got := c.ask("greet")
		least = min(least, time.Since(begun))
		if !strings.HasPrefix(got, "error ") {
			t.Errorf("%s: %q", name, got)
		}
		for _, text := range texts {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q does not say %q", name, got, text)
			}
		}
		if least < refusalTime {
			return least
		}
	}
	t.Errorf("%s: refused after %v", name, least)
	return least
}
