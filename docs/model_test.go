package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// modelCheck runs the check of a copy of the model that was changed by change.
func modelCheck(t *testing.T, change func(folder string)) (string, error) {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("spec/model")); err != nil {
		t.Fatal(err)
	}
	change(folder)
	out, err := exec.Command("bash", filepath.Join(folder, "run"), "--check").CombinedOutput()
	return string(out), err
}

// Nobody who builds this has ProVerif. So what is kept of its answers must be of the model that is here, hold the answer that must
// come for every case, and be what README says.
func TestModelOutput(t *testing.T) {
	if out, err := modelCheck(t, func(string) {}); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// The check of the model's output finds a change of the model, of an answer, of README's table.
func TestModelOutputIsCompared(t *testing.T) {
	for name, want := range map[string]string{"roles.pvl": "another model", "cases": "another model", "output.txt": "must come", "README.md": "README.md has"} {
		out, err := modelCheck(t, func(folder string) {
			path := filepath.Join(folder, name)
			before := read(t, path)
			after := strings.Replace(before, "true | ", "false | ", 1)
			if !strings.HasSuffix(name, ".md") && !strings.HasSuffix(name, ".txt") {
				after = before + "\n"
			}
			if after == before {
				t.Fatalf("%s has no line to change", name)
			}
			if err := os.WriteFile(path, []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
		})
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s changed: %v: %s", name, err, out)
		}
	}
}
