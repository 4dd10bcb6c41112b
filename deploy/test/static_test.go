//go:build deploy

package deploytest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/fetchcrl"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

// TestUnits has systemd's own tools judge the unit files, without a running systemd.
func TestUnits(t *testing.T) {
	for unit, most := range map[string]float64{"shared-altsd.service": 1.5, "shared-altsd-listen@.service": 2.0,
		"shared-altsd-resolve.service": 2.0, "shared-altsd-signer.service": 1.5, "shared-altsd-fetch-crl.service": 2.0,
		"shared-altsd-textfile.service": 1.5} {
		out := must(t, "systemd-analyze", "security", "--offline=true", "deploy/systemd/"+unit)
		m := regexp.MustCompile(`Overall exposure level for shared-altsd\S*: ([0-9.]+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatal(out)
		}
		if score, err := strconv.ParseFloat(m[1], 64); err != nil || score > most {
			t.Errorf("exposure of %s %s, over %v:\n%s", unit, m[1], most, out)
		}
	}
	// As they are on a machine where the program is installed.
	dir := t.TempDir()
	program, err := filepath.Abs(filepath.Join(root, "dist/root/shared-altsd"))
	if err != nil {
		t.Fatal(err)
	}
	units, _ := filepath.Glob(filepath.Join(root, "deploy/systemd/shared-altsd*.s*e*"))
	var copies []string
	for _, unit := range append(units, filepath.Join(root, "deploy/systemd/shared-altsd-renew.path"),
		filepath.Join(root, "deploy/systemd/shared-altsd-renew.timer"),
		filepath.Join(root, "deploy/systemd/shared-altsd-fetch-crl.timer"),
		filepath.Join(root, "deploy/systemd/shared-altsd-textfile.timer")) {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "/usr/bin/shared-altsd", program)
		text = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAllString(text, "")
		name := filepath.Join(dir, filepath.Base(unit))
		if strings.HasSuffix(name, ".sysusers") {
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, name)
	}
	if len(copies) != 15 {
		t.Errorf("%d units, want 15: %v", len(copies), copies)
	}
	cmd := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, copies...)...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestCompletion has each shell read its completion, and asks bash and fish for some.
func TestCompletion(t *testing.T) {
	must(t, "bash", "-n", "dist/root/completion.bash")
	must(t, "zsh", "-n", "dist/root/completion.zsh")
	must(t, "fish", "-n", "dist/root/completion.fish")
	for _, c := range []struct{ line, want string }{
		{"shared-altsd sta", "status"},
		{"shared-altsd serve --secure-n", "--secure-naming"},
		{"shared-altsd serve --secure-naming d", "dns"},
		{"shared-altsd completion z", "zsh"},
	} {
		words := strings.Fields(c.line)
		script := fmt.Sprintf("source dist/root/completion.bash; COMP_WORDS=(%s); COMP_CWORD=%d; _shared_altsd; echo ${COMPREPLY[*]}",
			c.line, len(words)-1)
		if got := strings.TrimSpace(must(t, "bash", "-c", script)); got != c.want {
			t.Errorf("bash: %q gives %q, want %q", c.line, got, c.want)
		}
		got := must(t, "fish", "-c", "source dist/root/completion.fish; complete -C "+strconv.Quote(c.line))
		if first, _, _ := strings.Cut(got, "\t"); strings.TrimSpace(first) != c.want {
			t.Errorf("fish: %q gives %q, want %q", c.line, got, c.want)
		}
	}
}

// TestManual formats the manual pages; groff has nothing to say of them.
func TestManual(t *testing.T) {
	for page, want := range map[string]string{"shared-altsd.1": "--secure-naming",
		"shared-altsd.conf.5": "publish-groups"} {
		cmd := exec.Command("sh", "-c", "zcat dist/root/"+page+".gz | groff -man -ww -Tascii -P-cbou")
		cmd.Dir = root
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil || complaints.Len() > 0 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v %s", page, err, complaints.String())
		}
	}
}

// TestPrometheus has promtool check the alerts, what the daemon shows, and every query of the dashboard; a name that
// the daemon does not show is a mistake in any of them.
func TestPrometheus(t *testing.T) {
	must(t, "promtool", "check", "rules", "deploy/prometheus/alerts.yaml")
	must(t, "promtool", "test", "rules", "deploy/prometheus/alerts_test.yaml")

	set := metrics.New("v1", "alpha.test")
	set.Handshake(metrics.Handshake{Reason: "unknown_ca"})
	var shown strings.Builder
	state := metrics.State{Expiries: []expiry.Item{{Kind: expiry.Leaf, Name: `CN="x"`, NotAfter: time.Now()}}, DNS: new(metrics.DNS)}
	if err := set.Write(&shown, state); err != nil {
		t.Fatal(err)
	}
	if err := metrics.WriteDown(&shown, "alpha.test"); err != nil {
		t.Fatal(err)
	}
	if err := metrics.NewForwards("v1", "listen", "s", []string{"clean"}, func() (string, error) { return "alpha.test", nil }).Write(&shown, metrics.ForwardState{}); err != nil {
		t.Fatal(err)
	}
	// fetch-crl writes its own into a file.
	textfile := filepath.Join(t.TempDir(), "lists.prom")
	fetch := fetchcrl.Config{Dir: t.TempDir(), Textfile: textfile, URLs: []string{"http://192.0.2.1:1/list"},
		Timeout: time.Millisecond, MaxSize: 1024}
	if _, err := fetchcrl.Run(t.Context(), fetch, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	fetched, err := os.ReadFile(textfile)
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(fetched)
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(shown.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}

	type query struct {
		Expr string `json:"expr"`
	}
	var dashboard struct {
		Panels []struct {
			Title   string  `json:"title"`
			Targets []query `json:"targets"`
		} `json:"panels"`
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	rules := "groups: [{name: dashboard, rules: ["
	n := 0
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$machine", ".*").Replace(q.Expr)
			rules += fmt.Sprintf("{record: q%d, expr: %q},\n", n, expr)
			n++
		}
	}
	if n < 15 {
		t.Errorf("%d queries in the dashboard", n)
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, []byte(rules+"]}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "promtool", "check", "rules", path)

	alerts, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile(filepath.Join(root, "docs/monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`shared_altsd_[a-z_]+`).FindAllString(string(text)+string(alerts)+string(manual), -1) {
		if !regexp.MustCompile(`(?m)^` + name + `(_bucket)?[ {]`).MatchString(shown.String()) {
			t.Errorf("%s is used and not shown", name)
		}
	}
}

// TestComposeFile has the loader of Compose v2 read what docker-compose 1.29 runs in the tests of compose.
func TestComposeFile(t *testing.T) {
	t.Setenv("ALTSD_HOSTS", t.TempDir())
	for file, services := range map[string][]string{
		"deploy/compose.yaml":          {"alpha-daemon", "alpha-app", "beta-daemon", "beta-app", "gamma-daemon", "gamma-app"},
		"deploy/compose.accounts.yaml": {"daemon", "greeter", "caller"},
	} {
		out := must(t, "go", "run", "github.com/compose-spec/compose-go/v2/cmd@v2.9.0", file)
		for _, service := range services {
			if !strings.Contains(out, " "+service+":\n") {
				t.Errorf("Compose v2 does not see %s:\n%s", service, out)
			}
		}
		if strings.Count(out, "network_mode: none") < len(services)/2 || strings.Count(out, "- ALL") < len(services) {
			t.Error(out)
		}
	}
}
