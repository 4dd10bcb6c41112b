package fetchcrl

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/wholefile"
)

// maxPlaces is how many places have series of their own: those first that have failed for longest.
const maxPlaces = 5

// MachineName returns how the metrics name the machine: by the certificate that is its own among some. Of several names it is
// the host's, or the first; without one it is the host's.
func MachineName(certs []*x509.Certificate) string {
	host, err := os.Hostname()
	host = ascii.Lower(host)
	for _, c := range certs {
		if names := certbind.MachineNames(c); !c.IsCA && len(names) > 0 {
			if slices.Contains(names, host) {
				return host
			}
			return names[0]
		}
	}
	if err != nil {
		return "unknown"
	}
	return host
}

// metrics returns what a run has to say in Prometheus' text format, for node_exporter's textfile collector. The labels are
// the machine, and places that the administrator or a CA named.
func (r *run) metrics(sources []source) string {
	var b strings.Builder
	machine := `machine="` + escape(r.Machine) + `"`
	family := func(name, help string) {
		fmt.Fprintf(&b, "# HELP shared_altsd_fetch_crl_%s %s\n# TYPE shared_altsd_fetch_crl_%s gauge\n", name, help, name)
	}
	single := func(name, help, value string) {
		family(name, help)
		fmt.Fprintf(&b, "shared_altsd_fetch_crl_%s{%s} %s\n", name, machine, value)
	}
	latest := func(s source, value func(*place) time.Time) (latest time.Time) {
		for _, u := range s.urls {
			if p := r.state.Places[u]; p != nil && value(p).After(latest) {
				latest = value(p)
			}
		}
		return latest
	}
	since := func(p *place) time.Time { return p.FailingSince }
	failing := 0
	for _, s := range sources {
		if !latest(s, since).IsZero() {
			failing++
		}
	}
	shown := slices.Clone(sources)
	slices.SortStableFunc(shown, func(a, b source) int {
		x, y := latest(a, since), latest(b, since)
		if x.IsZero() != y.IsZero() {
			return cmp.Compare(asNumber(x.IsZero()), asNumber(y.IsZero()))
		}
		return x.Compare(y)
	})
	shown = shown[:min(maxPlaces, len(shown))]
	each := func(name, help string, value func(*place) time.Time) {
		family(name, help)
		for _, s := range shown {
			fmt.Fprintf(&b, "shared_altsd_fetch_crl_%s{url=\"%s\",%s} %s\n", name, escape(s.urls[0]), machine, seconds(latest(s, value)))
		}
	}
	single("run_seconds", "When the last run ended.", seconds(r.now()))
	single("failed", "1 if a list that is wanted is not there, or is over.", strconv.Itoa(asNumber(r.failed)))
	single("failing", "Places from which no list came the last time.", strconv.Itoa(failing))
	each("failing_since_seconds", "Since when no list came from there; 0 if the last time went well.", since)
	each("success_seconds", "When a list last came from there, or was as before; 0 for never.",
		func(p *place) time.Time { return p.Succeeded })
	each("next_update_seconds", "When the list that came from there is over; 0 for none.",
		func(p *place) time.Time { return p.NextUpdate })
	return b.String()
}

func (r *run) writeTextfile(sources []source) error {
	if r.Textfile == "" {
		return nil
	}
	if err := wholefile.Replace(r.Textfile, []byte(r.metrics(sources))); err != nil {
		return fmt.Errorf("--textfile: %w: let this account write there", err)
	}
	return nil
}

func escape(v string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(v, "\uFFFD"))
}

func asNumber(b bool) int {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(t.Unix(), 10)
}
