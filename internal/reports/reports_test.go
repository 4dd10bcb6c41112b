package reports

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Rule 38: whoever has many uids, which subordinate ones are, does not fill the report with them.
func TestRule38ManyUIDs(t *testing.T) {
	var said []string
	o := New(func(err error) { said = append(said, err.Error()) })
	for uid := range uint32(1000) {
		for range 2 {
			o.Refused(uid, fmt.Errorf("uid %d", uid))
		}
	}
	if len(said) != maxOthers+1 || !strings.Contains(said[maxOthers], "further accounts") {
		t.Errorf("%d reports: %.200q", len(said), said)
	}
	if o.Say("daemon", errors.New("no daemon")); said[len(said)-1] != "no daemon" {
		t.Error("another failure is not reported any more")
	}
}

// A failure is told once, and again after it has passed.
func TestOnce(t *testing.T) {
	said := 0
	o := New(func(error) { said++ })
	for _, want := range []int{1, 1} {
		if o.Say("daemon", errors.New("no daemon")); said != want {
			t.Errorf("%d reports, want %d", said, want)
		}
	}
	o.Again("daemon")
	if o.Say("daemon", errors.New("no daemon")); said != 2 {
		t.Errorf("%d reports after it has passed, want 2", said)
	}
}

// What happens all the time is told now and then, with how often it was not.
func TestEvery(t *testing.T) {
	var said []int
	say := func(unsaid int) { said = append(said, unsaid) }
	hour := NewEvery(time.Hour)
	for range 5 {
		hour.Say("a", say)
	}
	hour.Say("b", say)
	if !slices.Equal(said, []int{0, 0}) {
		t.Errorf("within the hour: %v", said)
	}
	hour.kinds["a"].at = time.Now().Add(-2 * time.Hour)
	hour.Say("a", say)
	hour.Say("a", say)
	if !slices.Equal(said, []int{0, 0, 4}) {
		t.Errorf("after it: %v", said)
	}
}
