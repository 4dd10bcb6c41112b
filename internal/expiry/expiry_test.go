package expiry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func item(kind string, life time.Duration) Item {
	return Item{Kind: kind, Name: "n", NotBefore: start, NotAfter: start.Add(life)}
}

func TestJudgeLevels(t *testing.T) {
	for _, c := range []struct {
		life, left time.Duration
		level      int
		what       string
	}{
		{365 * Day, 31 * Day, 0, ""},
		{365 * Day, 30 * Day, 1, "this machine's certificate ends in 30 days"},
		{365 * Day, 7*Day + time.Second, 1, ""},
		{365 * Day, 7 * Day, 2, ""},
		{365 * Day, Day, 3, "ends in 24 hours"},
		{365 * Day, 0, 3, "ends in 1 second"},
		{365 * Day, -time.Second, 4, "ended 1 second ago"},
		{365 * Day, -50 * Day, 4, "ended 50 days ago, on 2031-01-01 00:00 UTC"},
		{365 * Day, 365*Day + 1, 4, "is not valid before 2030-01-01"},
		// Renewed by rule with 30 of 90 days left: that is no news.
		{90 * Day, 29 * Day, 0, ""},
		{90 * Day, 7 * Day, 1, "ends in 7 days"},
		// A day's certificate would be announced all its life.
		{Day, 7 * time.Hour, 0, ""},
		{Day, 6 * time.Hour, 1, "ends in 6 hours"},
		{time.Hour, 10 * time.Minute, 1, "ends in 10 minutes"},
		{time.Hour, 4 * time.Minute, 1, "peers whose clocks are ahead by as much refuse it already"},
	} {
		i := item(Leaf, c.life)
		got := Judge([]Item{i}, i.NotAfter.Add(-c.left))
		switch {
		case c.level == 0 && len(got) == 0:
		case len(got) != 1 || got[0].Level != c.level || !strings.Contains(got[0].What, c.what) || got[0].Cure == "":
			t.Errorf("life %v, left %v: %+v, want level %d, %q", c.life, c.left, got, c.level, c.what)
		}
	}
}

// A time is told in units of which there are some.
func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "over", 0: "over", time.Millisecond: "1 more second", 1999 * time.Millisecond: "1 more second",
		2 * time.Second: "2 more seconds", 119 * time.Second: "119 more seconds", 2 * time.Minute: "2 more minutes",
		119 * time.Minute: "119 more minutes", 2 * time.Hour: "2 more hours", 47 * time.Hour: "47 more hours",
		48 * time.Hour: "2 more days", 300 * Day: "300 more days",
	} {
		if got := Remaining(d); got != " ("+want+")" {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestClockFault(t *testing.T) {
	items := []Item{item(Leaf, Day), item(Chain, Day), item(CA, Day), item(CRL, Day)}
	for _, c := range []struct {
		name  string
		items []Item
		now   time.Time
		built time.Time
		want  string
	}{
		{"right", items, start, start, ""},
		{"CA a little ahead", items, start.Add(-clockSlack), time.Time{}, ""},
		{"after everything: may be a forgotten machine", items, start.Add(9999 * Day), start, ""},
		{"epoch", items, time.Unix(0, 0), start, "before this program was built (2030-01-01 00:00 UTC)"},
		{"before the CA, build unknown", items[2:3], start.Add(-2 * clockSlack), time.Time{}, `before the trusted CA "n" was made`},
		{"before the list", items[3:], start.Add(-2 * clockSlack), time.Time{}, "before the revocation list n was made"},
		{"a certificate made ahead of its time", items[:1], start.Add(-9 * Day), time.Time{}, ""},
	} {
		got := ClockFault(c.items, c.now, c.built)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Each level once; again after a renewal; a wrong clock in the place of everything.
func TestAnnouncer(t *testing.T) {
	var b bytes.Buffer
	a := NewAnnouncer(slog.New(slog.NewTextHandler(&b, nil)), start.Add(-Day), Judge)
	said := func(items []Item, now time.Time) string {
		b.Reset()
		a.Announce(items, now)
		return b.String()
	}
	year := item(Leaf, 365*Day)
	step := func(name string, items []Item, now time.Time, level, want string) {
		t.Helper()
		got := said(items, now)
		if want == "" && got != "" || !strings.Contains(got, want) || !strings.Contains(got, level) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	at := func(left time.Duration) time.Time { return year.NotAfter.Add(-left) }
	step("far", []Item{year}, at(100*Day), "", "")
	step("30 days", []Item{year}, at(30*Day), "WARN", "ends in 30 days")
	step("29 days", []Item{year}, at(29*Day), "", "")
	step("6 days", []Item{year}, at(6*Day), "WARN", "ends in 6 days")
	step("hours", []Item{year}, at(23*time.Hour), "WARN", "ends in 23 hours")
	step("clock falls back", []Item{year}, time.Unix(0, 0), "ERROR", "plainly wrong")
	step("still", []Item{year}, time.Unix(60, 0), "", "")
	step("clock set", []Item{year}, at(23*time.Hour), "INFO", "clock is right again")
	step("ended", []Item{year}, at(-time.Hour), "ERROR", "ended 60 minutes ago")
	step("still ended", []Item{year}, at(-Day), "", "")
	renewed := year
	renewed.NotAfter = renewed.NotAfter.Add(365 * Day)
	step("renewed", []Item{renewed}, at(-Day), "", "")
	step("renewed, 30 days", []Item{renewed}, renewed.NotAfter.Add(-30*Day), "WARN", "ends in 30 days")
}
