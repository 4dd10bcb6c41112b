package fetchcrl

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// metrics returns what a run has to say in Prometheus' text format, for node_exporter's textfile collector. The labels are
// places that the administrator or a CA named.
func (r *run) metrics(sources []source) string {
	var b strings.Builder
	family := func(name, help string) {
		fmt.Fprintf(&b, "# HELP shared_altsd_fetch_crl_%s %s\n# TYPE shared_altsd_fetch_crl_%s gauge\n", name, help, name)
	}
	each := func(name, help string, value func(*place) time.Time) {
		family(name, help)
		for _, s := range sources {
			var latest time.Time
			for _, u := range s.urls {
				if t := value(r.state.Places[u]); t.After(latest) {
					latest = t
				}
			}
			fmt.Fprintf(&b, "shared_altsd_fetch_crl_%s{url=\"%s\"} %s\n", name, escape(s.urls[0]), seconds(latest))
		}
	}
	family("run_seconds", "When the last run ended.")
	fmt.Fprintf(&b, "shared_altsd_fetch_crl_run_seconds %s\n", seconds(r.now()))
	family("failed", "1 if a list that is wanted is not there, or is over.")
	failed := 0
	if r.failed {
		failed = 1
	}
	fmt.Fprintf(&b, "shared_altsd_fetch_crl_failed %d\n", failed)
	each("failing_since_seconds", "Since when no list came from there; 0 if the last time went well.",
		func(p *place) time.Time { return p.FailingSince })
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
	if err := replaceFile(r.Textfile, []byte(r.metrics(sources))); err != nil {
		return fmt.Errorf("--textfile: %w: let this account write there", err)
	}
	return nil
}

func escape(v string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(v, "\uFFFD"))
}

func seconds(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(t.Unix(), 10)
}
