package daemon

import (
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// ownFaults returns what peers would refuse in this machine's certificates now and, as warnings, what will soon end, and that any
// certificate speaks for its machine, for check, status and the log, whose announcer says what ends by the same judge. Of a plainly wrong clock it names
// that alone: every other word about time would follow from it, and send its reader the wrong way.
func ownFaults(c *certbind.Credential, name string, t *certbind.Trust, now time.Time) (faults, soon []certbind.Fault) {
	items := expiryItems(c, t)
	if fault := expiry.ClockFault(items, now, version.Built()); fault != "" {
		return []certbind.Fault{{What: fault, Cure: "set the clock"}}, nil
	}
	soon = purposeFault(c, t)
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

// purposeFault warns where the key of a machine's web server would speak for every account there.
func purposeFault(c *certbind.Credential, t *certbind.Trust) []certbind.Fault {
	if !t.AnyPurpose() {
		return nil
	}
	cure := "have the CA name the purpose " + purpose.Name + " in the certificates of machines for shared-altsd alone " +
		"(docs/certificates.md, \"Purpose\"), and then require it on each machine"
	if certbind.ForMachines(c.Leaf) {
		cure = "this machine's certificate names the purpose " + purpose.Name + " already: once those of all machines do, require it " +
			"on each"
	}
	return []certbind.Fault{{Warning: true, Cure: cure + " (--require-eku " + purpose.Name + ")",
		What: "no purpose is required of peers' certificates: whoever can read the key of a machine's web server, of a CA that is " +
			"trusted here, speaks for every account of that machine"}}
}
