package adminclient

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// writeFigures prints how handshakes came out, and what they cost.
func writeFigures(line func(what, format string, args ...any), s *adminpb.StatusResponse) {
	if w := s.Work; w != nil { // a daemon of version 0.1.0 says nothing of it
		line("work", "%d statements signed; %d peers verified in full, %d from memory, %d not; %d kept",
			w.Signatures, w.Verified, w.Cached, w.Failed, w.CacheEntries)
	}
	list := func(figures []*adminpb.Figure, format string) string {
		var some []string
		for _, f := range figures {
			if f.Count > 0 {
				some = append(some, fmt.Sprintf(format, f.Count, f.Name))
			}
		}
		return strings.Join(some, ", ")
	}
	if by := list(s.ByCa, "%d by %s"); by != "" {
		line("accepted", "%s", by)
	}
	what := "reasons"
	for _, r := range []struct {
		how     string
		figures []*adminpb.Figure
	}{{"refused here", s.GetReasons().GetRefusedHere()}, {"refused by peers", s.GetReasons().GetRefusedByPeer()},
		{"given up", s.GetReasons().GetGivenUp()}} {
		if why := list(r.figures, "%d %s"); why != "" {
			line(what, "%s: %s", r.how, why)
			what = ""
		}
	}
	for _, a := range s.Accounts {
		line("account", "%s (uid %d): %d accepted, %d failed", cmp.Or(a.Account, "without a name"), a.Uid, a.Accepted, a.Failed)
	}
	if a := s.OtherAccounts; a.GetAccepted()+a.GetFailed() > 0 {
		line("account", "all others: %d accepted, %d failed", a.Accepted, a.Failed)
	}
}
