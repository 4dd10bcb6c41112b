package daemon

import (
	"fmt"
	"io"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// revocation returns what status says of lists.
func revocation(t *certbind.Trust, passed []certbind.PassedOver) *adminpb.Revocation {
	out := &adminpb.Revocation{PassedOverCount: uint32(len(passed))}
	for _, l := range t.CRLs() {
		list := &adminpb.RevocationList{Ca: l.Issuer, Version: l.Version, ThisUpdateUnix: l.ThisUpdate.Unix(),
			NextUpdateUnix: l.NextUpdate.Unix(), Source: l.Source}
		if !l.Scope.IsAll() {
			list.Scope = l.Scope.String()
		}
		out.Lists = append(out.Lists, list)
	}
	for _, ca := range t.WithoutList() {
		out.Without = append(out.Without, caName(ca))
	}
	for _, p := range passed[:min(len(passed), maxPassedOver)] {
		out.PassedOver = append(out.PassedOver, &adminpb.PassedOver{Source: p.Source, Why: p.Why})
	}
	return out
}

// checkLists writes what check says of lists.
func checkLists(w io.Writer, t *certbind.Trust, passed []certbind.PassedOver, now time.Time) {
	for _, l := range t.CRLs() {
		fmt.Fprintf(w, "list      %s: %s, next %s%s\n", listName(l), l.Version, l.NextUpdate.UTC().Format(time.RFC3339),
			expiry.Remaining(l.NextUpdate.Sub(now)))
	}
	for _, ca := range t.WithoutList() {
		fmt.Fprintf(w, "list      none of %s\n", caName(ca))
	}
	for _, p := range passed[:min(len(passed), maxPassedOver)] {
		fmt.Fprintf(w, "warning   passed over: %s: %s\n", p.Source, cli.OneLine(p.Why))
	}
	if more := len(passed) - maxPassedOver; more > 0 {
		fmt.Fprintf(w, "warning   passed over: %d more files\n", more)
	}
}
