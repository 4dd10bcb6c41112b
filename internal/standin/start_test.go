package standin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A command is found and run as a shell does it; what cannot be run has the exit status that a shell gives it.
func TestStart(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	out := filepath.Join(dir, "out")
	put("script", "echo $0 $1 $V >"+out+"; exit 3", 0o755) // without a first line that names its shell
	for _, tt := range []struct {
		command []string
		status  int // of the error, or
		code    int // of the command
	}{
		{[]string{"script", "a b"}, 0, 3}, {[]string{"sh", "-c", "exit 4"}, 0, 4}, {[]string{"no-such"}, StatusNotFound, 0},
		{[]string{"/no/such"}, StatusNotFound, 0}, {[]string{dir}, StatusCannotRun, 0},
		{[]string{put("plain", "x", 0o644)}, StatusCannotRun, 0}, {[]string{put("broken", "#!/no/such/shell\n", 0o755)}, StatusNotFound, 0},
	} {
		c, err := Start(tt.command, []string{"V=v", "PATH=" + os.Getenv("PATH")})
		if tt.status != 0 {
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status() != tt.status || !strings.Contains(err.Error(), tt.command[0]) {
				t.Errorf("%q: %v", tt.command, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.command, err)
			continue
		}
		if ended, err := c.Wait(); err != nil || ended.ExitStatus() != tt.code {
			t.Errorf("%q: %v, %v", tt.command, ended, err)
		}
	}
	if said, err := os.ReadFile(out); err != nil || string(said) != filepath.Join(dir, "script")+" a b v\n" {
		t.Errorf("the script said %q, %v", said, err)
	}
}
