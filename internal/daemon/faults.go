package daemon

import (
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// ownFaults returns what peers would refuse in this machine's certificates now and, as warnings, what will soon end,
// for check, status and the log, whose announcer says the second by the same judge. Of a plainly wrong clock it names
// that alone: every other word about time would follow from it, and send its reader the wrong way.
func ownFaults(c *certbind.Credential, name string, t *certbind.Trust, now time.Time) (faults, soon []certbind.Fault) {
	items := expiryItems(c, t)
	if fault := expiry.ClockFault(items, now, version.Built()); fault != "" {
		return []certbind.Fault{{What: fault, Cure: "set the clock"}}, nil
	}
	for _, f := range certbind.Check(c, name, t, now) {
		faults = append(faults, faultWithFlag(f))
	}
	for _, n := range judgeExpiry(items, now) {
		if !n.Ended && !n.NotYet { // else Check has said it
			soon = append(soon, certbind.Fault{What: n.What, Cure: n.Cure, Warning: true})
		}
	}
	return faults, soon
}
