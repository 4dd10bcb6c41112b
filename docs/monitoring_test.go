package docs_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

const alertsFile = "../deploy/prometheus/alerts.yaml"

// docs/monitoring.md has each metric with its labels, and no other: of the daemon and of forwards as they write them, of fetch-crl as
// its code has them.
func TestMetricsAreNamed(t *testing.T) {
	var page strings.Builder
	set, now := metrics.New("v1", "a.test"), time.Now()
	state := metrics.State{DNS: new(metrics.DNS), Expiries: []expiry.Item{{Kind: expiry.Leaf, Name: "a.test", NotBefore: now, NotAfter: now}}}
	forward := metrics.NewForwards("v1", "listen", "s", []string{"clean"}, func() (string, error) { return "a.test", nil })
	for _, err := range []error{set.Write(&page, state), metrics.WriteDown(&page, "a.test"), forward.Write(&page, metrics.ForwardState{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	have := map[string]string{}
	family := ""
	for line := range strings.Lines(page.String()) {
		if m := regexp.MustCompile(`^# TYPE (\w+) `).FindStringSubmatch(line); m != nil {
			family, have[m[1]] = m[1], ""
		}
		if m := regexp.MustCompile(`^\w+\{(.*)\} `).FindStringSubmatch(line); m != nil && have[family] == "" {
			var labels []string
			for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[1], -1) {
				if l[1] != "machine" && !(l[1] == "service" && strings.HasPrefix(family, "shared_altsd_forward_")) {
					labels = append(labels, l[1])
				}
			}
			have[family] = strings.Join(labels, ", ")
		}
	}
	code := read(t, "../internal/fetchcrl/textfile.go")
	for _, m := range regexp.MustCompile(`\b(single|each)\("(\w+)"`).FindAllStringSubmatch(code, -1) {
		have["shared_altsd_fetch_crl_"+m[2]] = map[string]string{"each": "url"}[m[1]]
	}
	told := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|([a-z_, ]*)\\|").FindAllStringSubmatch(read(t, "monitoring.md"), -1) {
		told[m[1]] = strings.TrimSpace(m[2])
	}
	for name, labels := range have {
		if got, there := told[name]; !there || got != labels {
			t.Errorf("monitoring.md has %s (there: %v) with the labels %q, want %q", name, there, got, labels)
		}
	}
	for name := range told {
		if _, there := have[name]; !there {
			t.Errorf("monitoring.md has %s, which nothing writes", name)
		}
	}
	// What alerts and the dashboard ask for is there.
	for _, file := range []string{alertsFile, "../deploy/prometheus/dashboard.json"} {
		for _, name := range regexp.MustCompile(`shared_altsd_\w+`).FindAllString(read(t, file), -1) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if _, there := have[base]; !there {
				t.Errorf("%s asks for %s, which nothing writes", file, name)
			}
		}
	}
}
