package adminclient

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// writeDNS prints for which machines DNS vouches, and how that works.
func writeDNS(line func(what, format string, args ...any), d *adminpb.DNS) {
	if d == nil {
		return
	}
	line("dns", "vouches for machines under %s", strings.Join(d.Names, ", "))
	switch {
	case d.ProbedUnix == 0:
		line("", "how the resolver is has not been found out yet")
	case d.Validates:
		line("", "the resolver %s validates, since %s; last asked %s", d.Resolver, stamp(d.SinceUnix), stamp(d.ProbedUnix))
	default:
		line("", "none of them can be verified, since %s: %s", stamp(d.SinceUnix), cli.OneLine(d.Fault))
	}
	var outcomes []string
	for _, l := range d.Lookups {
		if l.Count > 0 {
			outcomes = append(outcomes, fmt.Sprintf("%d %s", l.Count, l.Outcome))
		}
	}
	line("", "lookups: %s; %d answers from memory; %d under way, %d waiting; %d names known, %d missed",
		cmp.Or(strings.Join(outcomes, ", "), "none"), d.Cached, d.InFlight, d.Waiting, d.Known, d.Missed)
}
