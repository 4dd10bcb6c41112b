package expiry

import (
	"fmt"
	"time"
)

// Remaining returns in words, to stand behind a date, how long it is until then.
func Remaining(d time.Duration) string {
	if d <= 0 {
		return " (over)"
	}
	n, unit := count(d)
	return fmt.Sprintf(" (%d more %s)", n, unit)
}

// Span returns a duration for people.
func Span(d time.Duration) string {
	n, unit := count(d)
	return fmt.Sprintf("%d %s", n, unit)
}

// count returns a duration in the largest unit of which it has at least two, and at least a second.
func count(d time.Duration) (n int64, unit string) {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{Day, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}, {time.Second, "seconds"}} {
		if d >= 2*u.size {
			return int64(d / u.size), u.name
		}
	}
	return 1, "second"
}
