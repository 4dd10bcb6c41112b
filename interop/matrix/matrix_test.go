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
	transfer       = 64 << 20
	echoes         = 24
	largestMessage = 8 << 20
	atOnce         = 200
	refusalTime    = 2 * time.Second
)

// A row is one pair of libraries, with what was measured.
type row struct {
	client, server       string
	wrong, refused       time.Duration
	up, down, both       float64 // MB/s
	channels, newChannel time.Duration
}

// TestMatrix has a client of each library call a server of each.
func TestMatrix(t *testing.T) {
	w := theWorld(t)
	for _, k := range kinds() {
		k.need(t, w)
	}
	var rows []row
	for _, sk := range kinds() {
		t.Run(sk.name, func(t *testing.T) { rows = append(rows, callAll(t, w, sk)...) })
	}
	fmt.Printf("\n| %-10s %-10s  %-12s  %-10s  %-30s  %-12s  %s\n", "client", "server", "wrong target", "unknown CA",
		"64 MiB up, down, 1 B to 8 MiB", "200 channels", "daemons restarted")
	for _, r := range rows {
		fmt.Printf("| %-10s %-10s  %9d ms  %7d ms  %5.0f, %4.0f, %4.0f MB/s         %7.2f s     new channel after %4d ms\n", r.client,
			r.server, r.wrong.Milliseconds(), r.refused.Milliseconds(), r.up, r.down, r.both, r.channels.Seconds(),
			r.newChannel.Milliseconds())
	}
	if n := len(kinds()); len(rows) != n*n {
		t.Errorf("%d pairs of %d", len(rows), n*n)
	}
	compareLibraries(t, w)
}

// callAll has a client of each library call one server, and goes on with it when the daemons are restarted.
func callAll(t *testing.T, w *world, sk *kind) (rows []row) {
	address := serverOf(t, w, sk)
	open := w.alpha.forEnvoy(t, w)
	digest, echoed := patternDigest(transfer), echoDigest(echoes, largestMessage)
	type standing struct {
		client *testprog.Talker
		want   string
	}
	var all []standing
	for _, ck := range kinds() {
		r := row{client: ck.name, server: sk.name}
		alpha := w.alpha
		if ck.comparesItself {
			alpha = open
		}
		c := clientOf(t, w, ck, alpha, address, w.other+"@beta.test,"+w.server.on(w.beta))
		want := "ok " + w.caller.on(w.alpha) + " " + uidOrNot(sk.attributes, w.caller)
		if ck.serverIdentity {
			want += " " + seenBy(ck, w.server.on(w.beta), w.server)
		} else {
			want += " - -"
		}
		if got := c.Ask("greet"); got != want {
			t.Errorf("%s: %q, not %q\nalpha: %s\nbeta: %s", ck.name, got, want, alpha.run.Log, w.beta.run.Log)
			continue
		}
		r.up = rate(t, c, ck.name, fmt.Sprint("upload ", transfer), digest, transfer)
		r.down = rate(t, c, ck.name, fmt.Sprint("download ", transfer), digest, transfer)
		r.both = rate(t, c, ck.name, fmt.Sprint("echo ", echoes, " ", largestMessage), echoed, echoBytes())
		t.Run(ck.name+", wrong target", func(t *testing.T) {
			wrong := ck.wrongTarget(w)
			_, machine, _ := strings.Cut(wrong, "@")
			texts := []string{"this machine's daemon refused", "(target_mismatch)", w.server.on(w.beta), machine}
			r.wrong = refused(t, ck, clientOf(t, w, ck, alpha, address, wrong), texts...)
		})
		t.Run(ck.name+", from a machine that is not trusted", func(t *testing.T) {
			gamma := w.gamma
			if ck.comparesItself {
				gamma = gamma.forEnvoy(t, w)
			}
			c := clientOf(t, w, ck, gamma, address, w.server.on(w.beta))
			r.refused = refused(t, ck, c, "the peer's daemon refused", "(unknown_ca)")
		})
		begun := time.Now()
		if got := c.Ask(fmt.Sprintf("channels %d %d", atOnce, min(atOnce, sk.serverCap, ck.serverCap))); got != want {
			t.Errorf("%s, %d channels: %q, not %q", ck.name, atOnce, got, want)
		}
		r.channels = time.Since(begun)
		rows, all = append(rows, r), append(all, standing{c, want})
	}

	for _, d := range []*daemon{w.alpha, w.beta, open} {
		if err := errors.Join(d.run.Stop(), d.start()); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range all {
		name := rows[i].client
		if got := s.client.Ask("greet"); got != s.want {
			t.Errorf("%s, a channel that was there before the daemons ended: %q, not %q", name, got, s.want)
		}
		begun, got := time.Now(), ""
		for got != s.want && time.Since(begun) < testprog.Patience {
			s.client.Ask("new")
			got = s.client.Ask("greet")
		}
		if got != s.want {
			t.Errorf("%s, after the daemons came back: %q, not %q", name, got, s.want)
		}
		rows[i].newChannel = time.Since(begun)
	}
	return rows
}

// seenBy is how a client of the kind describes a peer.
func seenBy(k *kind, identity string, a account) string {
	return identity + " " + uidOrNot(k.attributes, a)
}

// echoBytes is how much an echo sends.
func echoBytes() (total int) {
	for size := range sizes(echoes, largestMessage) {
		total += size
	}
	return total
}

func uidOrNot(shown bool, a account) string {
	if !shown {
		return "-"
	}
	return fmt.Sprint(a.uid)
}

// rate has the client do one transfer and gives its speed in MB/s.
func rate(t *testing.T, c *testprog.Talker, name, command, digest string, bytes int) float64 {
	t.Helper()
	begun := time.Now()
	if got := c.Ask(command); got != "ok "+digest {
		t.Errorf("%s, %s: %q, not digest %s", name, command, got, digest)
	}
	return float64(bytes) / 1e6 / time.Since(begun).Seconds()
}

// refused checks that a call fails, soon, with the texts in the client application's error, where the library shows
// them. Of three attempts the quickest counts: the machine may be busy, but what waits for a deadline always does.
func refused(t *testing.T, k *kind, c *testprog.Talker, texts ...string) time.Duration {
	t.Helper()
	least := testprog.Patience
	for range 3 {
		c.Ask("new")
		begun := time.Now()
		got := c.Ask("greet")
		least = min(least, time.Since(begun))
		if !strings.HasPrefix(got, "error ") {
			t.Errorf("%q", got)
		}
		for _, text := range texts {
			if !k.comparesItself && !strings.Contains(got, text) {
				t.Errorf("%q does not say %q", got, text)
			}
		}
		if least < refusalTime {
			return least
		}
	}
	t.Errorf("refused after %v", least)
	return least
}
