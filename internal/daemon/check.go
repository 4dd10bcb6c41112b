package daemon

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// Check writes what a daemon with the same CAs would say of a machine with these files, and reports whether it would
// accept it.
func Check(w io.Writer, f *Files) (accepted bool, err error) {
	l, err := f.load(f.MachineName)
	if err != nil {
		return false, err
	}
	memory := ""
	if len(f.CRLs) > 0 {
		marks, err := readMarks(f.stateDir())
		switch {
		case err != nil: // it may be the daemon's, whom this account does not believe
			l.warn("the daemon's memory of revocation lists was not looked at: " + err.Error())
		case f.stateDir() == "":
			memory = "no memory (--state-dir): after a restart an older list than now would be taken"
		default:
			memory = fmt.Sprintf("%d remembered in %s", len(marks), f.stateDir())
			l.trust = f.demand(l.trust, marks)
		}
	}
	now := time.Now()
	leaf := l.credential.Leaf
	fmt.Fprintf(w, "machine   %s\n", l.name)
	fmt.Fprintf(w, "names     %s\n", strings.Join(leaf.DNSNames, " "))
	fmt.Fprintf(w, "key       %v\n", leaf.PublicKeyAlgorithm)
	fmt.Fprintf(w, "serial    %x\n", leaf.SerialNumber)
	fmt.Fprintf(w, "issuer    %q\n", leaf.Issuer.String())
	fmt.Fprintf(w, "valid     %s to %s%s\n", leaf.NotBefore.UTC().Format(time.RFC3339),
		leaf.NotAfter.UTC().Format(time.RFC3339),
		expiry.Remaining(leaf.NotAfter.Sub(now)))
	if memory != "" {
		fmt.Fprintf(w, "lists     %s\n", memory)
	}
	for _, warning := range l.warnings {
		fmt.Fprintf(w, "warning   %s\n", warning)
	}
	accepted = true
	faults, soon := ownFaults(l.credential, l.name, l.trust, now)
	for _, fault := range append(faults, soon...) {
		kind := "fault"
		if fault.Warning {
			kind = "warning"
		} else {
			accepted = false
		}
		fmt.Fprintf(w, "%-9s %s\n          cure: %s\n", kind, cli.OneLine(fault.What), cli.OneLine(fault.Cure))
	}
	if !accepted {
		fmt.Fprintf(w, "result    peers would refuse this machine\n")
		return false, nil
	}
	fmt.Fprintf(w, "result    a peer with the same CAs would accept this machine as %s\n", l.name)
	return true, nil
}
