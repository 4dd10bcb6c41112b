package dane

import (
	"context"
	"crypto/sha512"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
)

// Away is the outcome of a lookup for which there was no companion, or one that hangs or breaks its protocol.
const Away = "away"

// Ask has the companion look a machine up, once and for nobody's account. The records are as DNS has them.
func Ask(ctx context.Context, client Caller, machine string) (*certbind.Answer, error) {
	v, _ := ask(ctx, client, machine, time.Now)
	return v.answer, v.err
}

func ask(ctx context.Context, client Caller, machine string, now func() time.Time) (verdict, string) {
	unknown := func(keep time.Duration, format string, args ...any) verdict {
		return verdict{err: reason.Errorf(reason.DNSUnknown, format, args...), until: now().Add(keep)}
	}
	request, err := resolve.LookupRequest(machine)
	if err != nil {
		return unknown(missKept, "machine %q cannot be asked for: %w", machine, err), resolve.Malformed.String()
	}
	began := now()
	response, err := client.Call(ctx, request)
	if err != nil && ctx.Err() != nil {
		return unknown(silenceKept, "the companion that asks DNS has not answered about machine %q within %v; see what it does: "+
			"systemctl status shared-altsd-resolve", machine, lookupTime), Away
	}
	if err != nil {
		return unknown(0, "DNS was not asked about machine %q: %w", machine, err), Away
	}
	a, err := resolve.ParseAnswer(response)
	if err != nil {
		return unknown(0, "DNS was not asked about machine %q: %w; have companion and daemon of the same version", machine, err), Away
	}
	name, said := strings.TrimSuffix(certbind.TLSAOwner(machine), "."), ""
	if a.Detail != "" {
		said = " (" + a.Detail + ")"
	}
	var v verdict
	switch a.Outcome {
	case resolve.Secure:
		v = answered(machine, records(a.Records), began, a.TTL, maxKept)
	case resolve.Absent:
		v = answered(machine, nil, began, a.TTL, missKept)
	case resolve.Bogus:
		v = unknown(missKept, "what DNS says at %s is not to be believed: the validating resolver found its signatures wrong, or could "+
			"not find out%s; ask with 'delv %s TLSA', and look at the zone's signatures and at this machine's clock", name, said, name)
	case resolve.Unsigned:
		v = unknown(missKept, "what DNS says at %s is not signed, so that anybody may have said it%s; sign the zone, or have the "+
			"resolver validate", name, said)
	case resolve.Silent:
		v = unknown(silenceKept, "DNS has not answered at %s%s; see whether the resolver of this machine works, and reaches the zone's "+
			"servers", name, said)
	default:
		v = unknown(missKept, "DNS has answered at %s with what cannot be used%s; see what 'dig %s TLSA' prints", name, said, name)
	}
	return v, a.Outcome.String()
}

// answered returns the verdict of an answer that stands from when it was asked for, at least for a handshake's time.
func answered(machine string, records []certbind.TLSA, asked time.Time, ttl, longest time.Duration) verdict {
	// By the wall's clock: Go's other one stands while the machine sleeps.
	until := asked.Add(min(max(ttl, minKept), longest)).Round(0)
	return verdict{answer: &certbind.Answer{Machine: machine, Records: records, Until: until}, until: until}
}

// records reads the records of an answer. One that cannot be read is one that cannot be used.
func records(rdata [][]byte) (all []certbind.TLSA) {
	for _, b := range rdata {
		r, err := certbind.ParseTLSA(b)
		if err != nil {
			r = certbind.TLSA{}
		}
		all = append(all, r)
	}
	return all
}

// compact makes records of an answer that vouch for the same certificates and have at most a digest: certificates in full
// would make it a hundred times as long.
func compact(records []certbind.TLSA) {
	for i := range records {
		switch r := &records[i]; {
		case !r.Usable():
			r.Data = nil
		case r.Matching == certbind.MatchingFull:
			sum := sha512.Sum512(r.Data)
			r.Matching, r.Data = certbind.MatchingSHA512, sum[:]
		}
	}
}

func usable(a *certbind.Answer) bool {
	for _, r := range a.Records {
		if r.Usable() {
			return true
		}
	}
	return false
}
