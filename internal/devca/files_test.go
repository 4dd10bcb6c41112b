package devca

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// All files are written, with their modes, or none.
func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "ca")
	var out strings.Builder
	if err := Write(&out, dir, []string{"a.test", "b.test"}, nil); err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, f := range []struct {
		name string
		mode fs.FileMode
	}{{"ca.pem", 0o644}, {"a.test.pem", 0o600}, {"b.test.pem", 0o600}} {
		path := filepath.Join(dir, f.name)
		want += path + "\n"
		if info, err := os.Stat(path); err != nil || info.Mode() != f.mode {
			t.Errorf("%s: %v %v", f.name, info.Mode(), err)
		}
	}
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	err := Write(io.Discard, dir, []string{"c.test", "b.test"}, nil)
	if err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("again: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("half a set was written: %v", files)
	}
}
