package expiry

import (
	"testing"
	"time"
)

// One item of each group stands for all: the one of which most is to be said, not the one that ends first.
func TestForemost(t *testing.T) {
	now := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	item := func(kind, name string, life, left time.Duration) Item {
		return Item{Kind: kind, Name: name, NotBefore: now.Add(left - life), NotAfter: now.Add(left)}
	}
	for name, c := range map[string]struct {
		items []Item
		want  []string
	}{
		"nothing": {},
		"one of each": {[]Item{item(CA, "root", 3650*Day, 900*Day), item(CRL, "list", Day, Day/2), item(Leaf, "own", 90*Day, 60*Day),
			item(Chain, "sub", 1000*Day, 800*Day)}, []string{"own", "sub", "list"}},
		"a list of hours before one of weeks": {[]Item{item(CRL, "hours", 4*time.Hour, 2*time.Hour), item(CRL, "weeks", 30*Day, 20*time.Hour)},
			[]string{"weeks"}},
		"a list that ended": {[]Item{item(CRL, "weeks", 30*Day, 20*time.Hour), item(CRL, "ended", 30*Day, -time.Hour)}, []string{"ended"}},
		"ends now":          {[]Item{item(CRL, "weeks", 30*Day, time.Hour), item(CRL, "ends", 30*Day, 0)}, []string{"ends"}},
		"a CA of which a week is left before one that lives for days": {[]Item{item(Chain, "days", 10*Day, 3*Day),
			item(CA, "years", 3650*Day, 5*Day)}, []string{"years"}},
		"a day before a week": {[]Item{item(CA, "week", 3650*Day, 5*Day), item(Chain, "day", 10*Day, 20*time.Hour)}, []string{"day"}},
		"one that has not begun hides none": {[]Item{item(CA, "next", 10*Day, 11*Day), item(CA, "old", 3650*Day, time.Hour)},
			[]string{"old"}},
		"of two alike the first by name": {[]Item{item(CA, "b", 3650*Day, 5*Day), item(CA, "a", 3650*Day, 5*Day)}, []string{"a"}},
	} {
		var got []string
		for _, i := range Foremost(c.items, now) {
			got = append(got, i.Name)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v", name, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
}
