package adminclient

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// PrintStatus prints what the daemon says of itself. If peers would refuse this machine it returns an exit status.
func (c Client) PrintStatus(w io.Writer, asJSON bool) error {
	var s *adminpb.StatusResponse
	err := c.ask(func(ctx context.Context, admin adminpb.AdminClient) (err error) {
		s, err = admin.Status(ctx, &adminpb.StatusRequest{})
		return err
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(s.Expiries, func(a, b *adminpb.Expiry) int { return cmp.Compare(a.NotAfterUnix, b.NotAfterUnix) })
	if asJSON {
		if err := cli.WriteJSON(w, plain(s.ProtoReflect())); err != nil {
			return err
		}
	} else {
		writeStatus(w, s)
	}
	for _, f := range s.Faults {
		if !f.Warning {
			return cli.ExitStatus(1)
		}
	}
	return nil
}

func writeStatus(w io.Writer, s *adminpb.StatusResponse) {
	now := time.Unix(s.NowUnix, 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("daemon", "%s since %s, version %s", s.State, stamp(s.StartedUnix), s.Version)
	line("machine", "%s", s.Machine)
	if s.CallerAccount != "" {
		line("you", "%s@%s", s.CallerAccount, s.Machine)
	} else {
		line("you", "refused: %s", s.CallerRefused)
	}
	line("accounts", "from %s", s.AccountSource)
	c := s.Certificate
	line("certificate", "%s key, serial %s, issued by %q", c.Key, c.Serial, c.Issuer)
	line("", "SHA-256 %s", c.Fingerprint)
	if c.KeyPlace != "" {
		line("", "its key is %s", c.KeyPlace)
	}
	for _, e := range s.Expiries {
		what := map[string]string{expiry.Leaf: "this machine's certificate", expiry.Chain: "intermediate CA " + e.Name,
			expiry.CA: "trusted CA " + e.Name, expiry.CRL: "revocation list " + e.Name}[e.Kind]
		line("valid until", "%s%s: %s", stamp(e.NotAfterUnix), expiry.Remaining(time.Unix(e.NotAfterUnix, 0).Sub(now)), what)
	}
	writeRevocation(line, s.GetRevocation(), now)
	counters := func(what string, c *adminpb.Counters) {
		line(what, "%d accepted, %d failed, %d under way, %d waiting", c.GetAccepted(), c.GetRefused(),
			c.GetInFlight(), c.GetWaiting())
	}
	counters("initiator", s.Initiator)
	counters("responder", s.Responder)
	writeFigures(line, s)
	line("connections", "%d of local applications", s.Connections)
	refused := "ends what is refused now"
	if s.Standing.GetKeep() {
		refused = "keeps what is refused now (--on-revoke)"
	}
	line("standing", "%d connections watched, %d ended, %d kept, %d not watched; %s", s.Standing.GetWatched(), s.Standing.GetEnded(),
		s.Standing.GetKept(), s.Standing.GetUnwatched(), refused)
	if p := s.Policy; p.GetMode() != "" {
		line("policy", "%d rules, %s", p.Rules, p.Mode)
	} else {
		line("policy", "no rules (--policy)")
	}
	if p := s.Policy; p.GetDeniedDir() != "" {
		line("denied", "%d before all rules, by %s", p.Denied, p.DeniedDir)
	}
	writeDNS(line, s.Dns)
	r := s.Reloads
	line("reloads", "%d done, %d refused; in force since %s", r.GetSucceeded(), r.GetFailed(),
		stamp(r.GetLastSuccessUnix()))
	if !r.GetLastOk() {
		line("refused", "%s, since %s: %s", r.GetRefused(), stamp(r.GetRefusedSinceUnix()),
			cmp.Or(cli.OneLine(r.GetLastError()), "the reason is in the log"))
		line("", "certificate %s and its CAs and lists stay in force meanwhile", c.Serial)
	}
	for _, f := range s.Faults {
		kind := "fault"
		if f.Warning {
			kind = "warning"
		}
		line(kind, "%s", cli.OneLine(f.What))
		line("", "cure: %s", cli.OneLine(f.Cure))
	}
	writeWould(line, s)
	if s.Privileged {
		for _, f := range fold(s.LastFailures) {
			role := "responder"
			if f.Initiator {
				role = "initiator"
			}
			line("failed", "%s %s %s, %s with %s, handshake %s", stamp(f.Unix), f.Reason,
				cmp.Or(f.Account, "(no account)"), role, cmp.Or(f.Peer, "an unverified peer"), cmp.Or(f.HandshakeId, "-"))
			line("", "%s", cli.OneLine(f.Text))
			if f.times > 1 {
				line("", "%d times, for the first time at %s", f.times, stamp(f.first))
			}
		}
	} else {
		line("failures", "are shown to root")
	}
}

// writeWould prints what permissive rules would refuse: by rule, the one that would refuse most first.
func writeWould(line func(what, format string, args ...any), s *adminpb.StatusResponse) {
	var rules []string
	counts := make(map[string]uint64)
	for _, w := range s.WouldRefuse {
		if counts[w.Rule] == 0 {
			rules = append(rules, w.Rule)
		}
		counts[w.Rule] += w.Count
	}
	slices.SortStableFunc(rules, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	for _, rule := range rules {
		line("would refuse", "%d by %s", counts[rule], rule)
		for _, w := range s.WouldRefuse {
			from, to := w.Peer, w.Local
			if w.Initiator {
				from, to = to, from
			}
			if w.Rule == rule {
				line("", "%d: %s -> %s, last at %s", w.Count, from, to, stamp(w.LastUnix))
			}
		}
	}
	if s.WouldRefuseMore > 0 {
		line("would refuse", "%d more, of pairs that are not told apart", s.WouldRefuseMore)
	}
}

// A failure is the last of several that differ in time and handshake alone.
type failure struct {
	*adminpb.Failure
	times int
	first int64 // when the first was
}

// fold returns failures, the oldest first, with equal ones told once, where the last of them is.
func fold(failures []*adminpb.Failure) (folded []failure) {
	for _, f := range failures {
		same := func(g failure) bool {
			return g.Reason == f.Reason && g.Account == f.Account && g.Peer == f.Peer && g.Initiator == f.Initiator && g.Text == f.Text
		}
		now := failure{f, 1, f.Unix}
		if i := slices.IndexFunc(folded, same); i >= 0 {
			now.times, now.first = folded[i].times+1, folded[i].first
			folded = slices.Delete(folded, i, i+1)
		}
		folded = append(folded, now)
	}
	return folded
}

// plain returns a message as maps, lists and numbers with every field in it, which protojson would not: it makes
// strings of 64-bit numbers.
func plain(m protoreflect.Message) map[string]any {
	out := make(map[string]any)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func(v protoreflect.Value) any {
			if f.Message() != nil {
				return plain(v.Message())
			}
			return v.Interface()
		}
		if !f.IsList() {
			out[string(f.Name())] = value(m.Get(f))
			continue
		}
		list := []any{}
		for j := range m.Get(f).List().Len() {
			list = append(list, value(m.Get(f).List().Get(j)))
		}
		out[string(f.Name())] = list
	}
	return out
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02 15:04:05Z") }
