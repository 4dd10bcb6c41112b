package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/dane"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
	"github.com/shared-altsd/shared-altsd/service"
)

// DefaultResolver is where systemd makes the socket of the companion that asks DNS (deploy/systemd/shared-altsd-resolve.socket).
const DefaultResolver = "/run/shared-altsd-resolve/socket"

// dnsVouches is what stands in the place of a file of CAs where DNS vouches for machines.
const dnsVouches = "dane"

// trustsDNS reports whether DNS vouches for any machine.
func (f *Files) trustsDNS() bool {
	return slices.ContainsFunc(f.CAs, func(ca CAFile) bool { return ca.File == dnsVouches })
}

func (f *Files) resolver() *companion.Client {
	return companion.NewClient(cmp.Or(f.Resolver, DefaultResolver), resolve.Protocol)
}

// newDNS returns what asks DNS, nil where it vouches for nobody.
func newDNS(f *Files, machine *certbind.Machine, log *slog.Logger) *dane.Resolver {
	if !f.trustsDNS() {
		return nil
	}
	return dane.New(dane.Config{Client: f.resolver(), Names: func() []string { return machine.Trust().DNSNames() }, Log: log})
}

// asResolver returns r as the service has it: none must be none there as well.
func asResolver(r *dane.Resolver) service.Resolver {
	if r == nil {
		return nil
	}
	return r
}

// dnsStatus returns what status says of trust by DNS.
func dnsStatus(r *dane.Resolver, t *certbind.Trust) *adminpb.DNS {
	if r == nil {
		return nil
	}
	s := r.Stats()
	d := &adminpb.DNS{Names: slices.Sorted(slices.Values(t.DNSNames())), Cached: s.Cached, InFlight: uint32(s.InFlight),
		Waiting: uint32(s.Waiting), Known: uint32(s.Known), Missed: uint32(s.Missed)}
	for _, outcome := range slices.Sorted(maps.Keys(s.Lookups)) {
		d.Lookups = append(d.Lookups, &adminpb.Lookups{Outcome: outcome, Count: s.Lookups[outcome]})
	}
	if p := s.Probe; p != nil {
		d.Validates, d.Fault, d.Resolver = p.Validates, p.What, p.Resolver
		d.SinceUnix, d.ProbedUnix = p.Since.Unix(), p.Last.Unix()
	}
	return d
}

// dnsState returns what the metrics say of it.
func dnsState(r *dane.Resolver) *metrics.DNS {
	if r == nil {
		return nil
	}
	s := r.Stats()
	answered := s.Lookups[resolve.Secure.String()] + s.Lookups[resolve.Absent.String()]
	return &metrics.DNS{Validates: s.Probe != nil && s.Probe.Validates, Answered: answered, Failed: sum(s.Lookups) - answered}
}

// checkTime is how long check waits for DNS.
const checkTime = 10 * time.Second

// checkDNS writes what DNS says of this machine, where it vouches for it, and returns what is wrong: peers that trust DNS would
// refuse the machine. What could not be found out is a warning, and so is a resolver that would have peers refused here.
func checkDNS(w io.Writer, client dane.Caller, l *loaded) []certbind.Fault {
	if len(l.trust.DNSNames()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	p := dane.AskProbe(ctx, client, time.Now())
	if !p.Validates {
		return []certbind.Fault{{What: "DNS could not be asked: " + p.What, Warning: true,
			Cure: "have the companion and its resolver work (docs/dns.md), and check again"}}
	}
	fmt.Fprintf(w, "dns       the resolver %s validates\n", p.Resolver)
	if !l.trust.UnderDNS(l.name) {
		return nil
	}
	asked, err := dane.Ask(ctx, client, l.name)
	if err != nil {
		return []certbind.Fault{{What: err.Error(), Cure: "mend the zone; 'shared-altsd tlsa' prints what belongs there"}}
	}
	leaf := l.credential.Leaf
	other := 0
	for _, r := range asked.Records {
		says := "of another certificate or key"
		switch {
		case r.Matches(leaf):
			says = "vouches for this machine"
		case !r.Usable():
			says = "is passed over by all"
		default:
			other++
		}
		fmt.Fprintf(w, "dns       %s %s\n", shortRecord(r), says)
	}
	if err := asked.Vouches(leaf); err != nil {
		return []certbind.Fault{{What: err.Error(), Cure: "publish what 'shared-altsd tlsa' prints here, and wait for the TTL"}}
	}
	if other > 0 {
		return []certbind.Fault{{Warning: true,
			What: fmt.Sprintf("DNS vouches for %d other certificates or keys as well, whose holders could speak for this machine", other),
			Cure: "if none of them is the next one, take them out of the zone"}}
	}
	return nil
}

// shortRecord returns a record of which a digest is shown whole, and more not.
func shortRecord(r certbind.TLSA) string {
	s := r.String()
	const whole = len("3 1 2 ") + 2*64
	if len(s) > whole {
		s = s[:whole] + "..."
	}
	return s
}
