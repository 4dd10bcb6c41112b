package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// alertRules returns the text of each alert's rule by its name.
func alertRules(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, rule := range strings.Split(read(t, alertsFile), "\n      - alert: ")[1:] {
		name, text, _ := strings.Cut(rule, "\n")
		found[name] = text
	}
	if len(found) < 20 {
		t.Fatalf("%d alerts", len(found))
	}
	return found
}

// Each alert has a runbook: a section of docs/runbooks.md of its own name and severity, with commands, to which the address in the
// alert leads; the page is in the package, and the address can be another's.
func TestRunbookURL(t *testing.T) {
	const base = "https://github.com/shared-altsd/shared-altsd/blob/main/docs/runbooks.md#"
	page := read(t, "runbooks.md")
	sections := map[string]string{}
	for _, s := range strings.Split(page, "\n## ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[name] = text
	}
	rules := alertRules(t)
	for name, rule := range rules {
		anchor := strings.ToLower(name)
		if n := strings.Count(rule, "runbook_url: "+base+anchor+"\n"); n != 1 || strings.Count(rule, "runbook_url:") != 1 || !anchors(page)[anchor] {
			t.Errorf("%s has %d times the address of its runbook %s%s", name, n, base, anchor)
		}
		severity := regexp.MustCompile(`severity: (\w+)`).FindStringSubmatch(rule)
		text := strings.TrimSpace(sections[name])
		if severity == nil || !strings.HasPrefix(strings.ToLower(text), "*"+severity[1]+".* ") {
			t.Errorf("the runbook of %s does not begin with its severity, %v: %.40q", name, severity, text)
		}
		if !strings.Contains(text, "\n    ") && !strings.Contains(text, "The same as [") {
			t.Errorf("the runbook of %s has no command", name)
		}
	}
	for name := range sections {
		if rules[name] == "" {
			t.Errorf("there is a runbook %s and no such alert", name)
		}
	}
	for _, file := range []string{"docs/runbooks.md", "docs/monitoring.md", "deploy/prometheus/alerts.yaml"} {
		if !packaged(t)[file] {
			t.Errorf("the package has no %s", file)
		}
	}
	// As the page says: to point to a copy.
	blocks := testdoc.Blocks(t, "docs/monitoring.md", "TestRunbookURL")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "alerts.yaml"), []byte(read(t, alertsFile)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", blocks[0])
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	moved := read(t, filepath.Join(dir, "alerts.yaml"))
	if strings.Contains(moved, "github.com") || strings.Count(moved, "runbook_url: https://wiki.example.com/shared-altsd/runbooks.md#shared") != len(rules) {
		t.Errorf("the addresses are:\n%s", strings.Join(regexp.MustCompile(`runbook_url.*`).FindAllString(moved, -1), "\n"))
	}
}
