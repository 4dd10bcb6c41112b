package adminclient

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// writeRevocation prints in one line the lists of each CA and which CAs have none, and what is passed over.
func writeRevocation(line func(what, format string, args ...any), r *adminpb.Revocation, now time.Time) {
	line("revocation", "%s", revocationLine(r, now))
	for _, p := range r.GetPassedOver() {
		line("passed over", "%s: %s", p.Source, cli.OneLine(p.Why))
	}
	if more := int(r.GetPassedOverCount()) - len(r.GetPassedOver()); more > 0 {
		line("passed over", "%d more files", more)
	}
}

// revocationLine says of each CA how old its lists are, when the next is due, and where they come from; of several the
// oldest, and the one that is due first.
func revocationLine(r *adminpb.Revocation, now time.Time) string {
	if len(r.GetLists()) == 0 {
		return "no list of any CA (--crl): nothing counts as revoked"
	}
	var cas []string
	of := make(map[string][]*adminpb.RevocationList)
	for _, l := range r.GetLists() {
		if of[l.Ca] == nil {
			cas = append(cas, l.Ca)
		}
		of[l.Ca] = append(of[l.Ca], l)
	}
	var parts []string
	for _, ca := range cas {
		made, next := of[ca][0].ThisUpdateUnix, of[ca][0].NextUpdateUnix
		var from []string
		for _, l := range of[ca] {
			made, next = min(made, l.ThisUpdateUnix), min(next, l.NextUpdateUnix)
			if !slices.Contains(from, l.Source) {
				from = append(from, l.Source)
			}
		}
		several := ""
		if n := len(of[ca]); n > 1 {
			several = fmt.Sprintf("%d lists, ", n)
		}
		where := from[0]
		if n := len(from) - 1; n > 0 {
			where = fmt.Sprintf("%s and %d more", where, n)
		}
		parts = append(parts, fmt.Sprintf("%q: %smade %s ago, next %s%s, from %s", ca, several,
			expiry.Span(now.Sub(time.Unix(made, 0))), stamp(next), expiry.Remaining(time.Unix(next, 0).Sub(now)), where))
	}
	for _, ca := range r.GetWithout() {
		parts = append(parts, fmt.Sprintf("%q: no list", ca))
	}
	return strings.Join(parts, "; ")
}
