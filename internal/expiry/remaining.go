package expiry

import (
	"fmt"
	"time"
)

// Remaining returns in words, to stand behind a date, how long it is until then.
func Remaining(d time.Duration) string {
	switch {
	case d <= 0:
		return " (over)"
	case d < 48*time.Hour:
		return fmt.Sprintf(" (%d more hours)", int(d.Hours()))
	}
	return fmt.Sprintf(" (%d more days)", int(d.Hours()/24))
}
