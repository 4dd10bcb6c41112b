//go:build deploy

package deploytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUserUnits has systemd's own tools judge the units of accounts, an instance of each, without a running systemd.
func TestUserUnits(t *testing.T) {
	dir := t.TempDir()
	program, err := filepath.Abs(filepath.Join(root, "dist/root/shared-altsd"))
	if err != nil {
		t.Fatal(err)
	}
	units, _ := filepath.Glob(filepath.Join(root, "deploy/systemd-user/*"))
	if len(units) != 2 {
		t.Fatalf("%d units, want 2: %v", len(units), units)
	}
	args := []string{"verify", "--user", "--man=no"}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "/usr/bin/shared-altsd", program)
		text = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAllString(text, "")
		name := filepath.Join(dir, strings.Replace(filepath.Base(unit), "@.", "@postgres.", 1))
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify --user: %v\n%s", err, out)
	}
}
