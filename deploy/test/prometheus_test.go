//go:build deploy

package deploytest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPrometheusScrape carries a daemon's metrics to a Prometheus by an agent with the configuration of docs/monitoring.md, as it
// stands there but for the addresses and the times, and asks it.
func TestPrometheusScrape(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^    # agent.yml on (.*)\n((?:    .*\n)+)`).FindSubmatch(text)
	query := regexp.MustCompile(`(?m)^    (sum by \(ca\).*)\n`).FindSubmatch(text)
	if shown == nil || query == nil {
		t.Fatal("docs/monitoring.md shows no configuration, or no query for CAs")
	}
	rules, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/alerts_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(string(query[1]), "[30d]", "[30m]", 1); !strings.Contains(string(rules), want) {
		t.Errorf("alerts_test.yaml does not test %s", want)
	}
	machine, config := string(shown[1]), regexp.MustCompile("(?m)^    ").ReplaceAllString(string(shown[2]), "")
	dir, daemon, receiver := t.TempDir(), freeAddress(t), freeAddress(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) string {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	agent := put("agent.yml", config)
	must(t, "promtool", "check", "config", "--agent", agent)
	put("agent.yml", strings.NewReplacer("127.0.0.1:9464]", daemon+"]", "30s", "1s",
		"https://prometheus.example.com", "http://"+receiver).Replace(config))
	alerts, err := filepath.Abs(filepath.Join(root, "deploy/prometheus/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPKI(t)
	program := path("shared-altsd")
	must(t, "go", "build", "-o", program, "./cmd/shared-altsd")
	run(t, program, "serve", "--socket", path("socket"), "--metrics", daemon,
		"--credentials", put("machine.pem", string(p.issue(p.ca, machine).PEM())), "--ca", put("ca.pem", string(p.ca.PEM())))
	run(t, "prometheus", "--config.file="+put("server.yml", "global: {evaluation_interval: 1s}\nrule_files: ["+alerts+"]\n"),
		"--storage.tsdb.path="+path("server"), "--web.listen-address="+receiver, "--web.enable-remote-write-receiver")
	// The same by node_exporter, to which the daemon's metrics come as a file.
	collected, exporter := t.TempDir(), freeAddress(t)
	waitFor(t, "the file", func() (bool, string) {
		out, err := command(program, "status", "--socket", path("socket"), "--textfile", filepath.Join(collected, "shared-altsd.prom"))
		return err == nil, out
	})
	run(t, "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
		"--collector.textfile.directory="+collected, "--web.listen-address="+exporter)
	for _, want := range []string{"\nnode_textfile_scrape_error 0\n", "\nshared_altsd_up{machine=\"" + machine + "\"} 1\n",
		"\nshared_altsd_handshake_duration_seconds_bucket{machine=\"" + machine + "\",le=\"+Inf\"} 0\n",
		"\nnode_textfile_mtime_seconds{file=\"" + filepath.Join(collected, "shared-altsd.prom") + "\"} "} {
		waitFor(t, want, func() (bool, string) {
			got := get("http://" + exporter + "/metrics")
			return strings.Contains(got, want), got
		})
	}
	run(t, "prometheus", "--enable-feature=agent", "--config.file="+agent, "--storage.agent.path="+path("agent"),
		"--web.listen-address="+freeAddress(t))

	ask := func(expr string) string {
		return get("http://" + receiver + "/api/v1/query?query=" + url.QueryEscape(expr))
	}
	for expr, want := range map[string]string{
		`up{job="shared-altsd"} == 1`: fmt.Sprintf(`"instance":%q`, machine),
		// Of the metrics, the machine is the certificate's, and others are joined to it.
		`shared_altsd_last_reload_successful`:                           fmt.Sprintf(`"machine":%q`, machine),
		`up * on(instance) group_left(machine) shared_altsd_build_info`: fmt.Sprintf(`"machine":%q`, machine),
		string(query[1]): "Example CA",
	} {
		waitFor(t, expr, func() (bool, string) {
			got := ask(expr)
			return strings.Contains(got, want), got
		})
	}
}

// get returns what a server answers, or why it does not.
func get(at string) string {
	resp, err := http.Get(at)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// freeAddress returns a loopback address at which nobody listens now.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs a program until the test ends.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
}
