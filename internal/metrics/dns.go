package metrics

import "cmp"

// A DNS is what is read of trust by DNS.
type DNS struct {
	Validates         bool              // the resolver does, when last asked
	Lookups           map[string]uint64 // that ended, by outcome
	Cached            uint64            // answers that cost none
	InFlight, Waiting int
	Known, Missed     int // names that are kept: those that were ever good, and others
}

func writeDNS(e exposition, d *DNS) {
	if d == nil {
		return
	}
	e.single("shared_altsd_dns_resolver_validates", "gauge",
		"1 if the resolver that is asked about machines under DNS validates, 0 if it does not or cannot be asked.", number(d.Validates))
	e.family("shared_altsd_dns_lookups_total", "counter", "Lookups of machines under DNS that ended, by outcome; cached ones cost none.")
	e.sample("shared_altsd_dns_lookups_total", float64(d.Cached), label{"outcome", "cached"})
	for _, outcome := range sorted(d.Lookups, cmp.Compare[string]) {
		e.sample("shared_altsd_dns_lookups_total", float64(d.Lookups[outcome]), label{"outcome", outcome})
	}
	e.single("shared_altsd_dns_lookups_in_flight", "gauge", "Lookups under way now.", float64(d.InFlight))
	e.single("shared_altsd_dns_lookups_waiting", "gauge", "Lookups that wait for a place.", float64(d.Waiting))
	e.family("shared_altsd_dns_names", "gauge", "Names of machines of which an answer is kept: known, which were ever good, or missed.")
	e.sample("shared_altsd_dns_names", float64(d.Known), label{"kind", "known"})
	e.sample("shared_altsd_dns_names", float64(d.Missed), label{"kind", "missed"})
}
