package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func writeConfig(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigFile(t *testing.T) {
	path := writeConfig(t, "# comment\n\n  n = 5   # trailing\nfiles=/a#b\nfiles = /c = d\r\non = yes\nlist = a, b\n")
	v := new(values)
	if code, _, stderr := run(v, "set", "--config", path, "--n", "6", "--level", "high"); code != 0 {
		t.Fatal(stderr)
	}
	if got := v.String(); got != "high [/a#b /c = d] [] [a b] true 6 0s" {
		t.Error(got)
	}
	// What the command line says of a repeatable flag replaces all that the file says of it.
	v = new(values)
	code, _, stderr := run(v, "set", "--files", "/d", "--config", path)
	if code != 0 || fmt.Sprint(v.files, v.n) != "[/d] 5" {
		t.Error(v.files, v.n, stderr)
	}
}

// A file is refused for a mistake in it, also where the command line overrides it.
func TestConfigFileErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"\nno-such-name = 1\n", `2: unknown name "no-such-name": see --help`},
		{"texts = x\n", `1: unknown name "texts": did you mean text?`},
		{"# ok\nlevel = mid\n", `2: level: "mid" is not one of low, high`},
		{"level low\n", "1: no '=' in the line: write 'name = value', with a switch 'name = true'"},
		{"level = low\nlevel = high\n", "2: level: given twice: give it once"},
		{"config = /other\n", "1: config: a config file cannot name another one: give --config on the command line"},
		{"text =\n", "1: text: empty: give a value"},
		{"text = \x00\n", "1: control bytes or no UTF-8: this is not a config file"},
		{"text = \xff\n", "1: control bytes or no UTF-8: this is not a config file"},
	} {
		path := writeConfig(t, tt.text)
		code, _, stderr := run(new(values), "set", "--config", path, "--level", "low", "--text", "x")
		if code != 2 || stderr != "a-program set: "+path+":"+tt.want+"\n" {
			t.Errorf("%q: exit status %d: %q", tt.text, code, stderr)
		}
	}
	code, _, stderr := run(new(values), "set", "--config", filepath.Join(t.TempDir(), "none"))
	if code != 1 || !strings.HasPrefix(stderr, "a-program set: --config: open ") {
		t.Errorf("a missing config file: exit status %d: %s", code, stderr)
	}
}

// Whatever is in the file: no panic, an error names file and line, and what was read can be written and read again.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{"", "# c\n", "files = /a\nfiles = /b,uids=1-2+4\n", "file = a.test=/x\n",
		"level = low # x\r\n", "x", "= y", "=#", "\u00a0#x=1", "\xef\xbb\xbf\xef\xbb\xbf=", "\xef\xbb\xbfwait = 5s",
		"list = a, b", "place = 1.2.3",
		"n = 6\nn = 1", "on=true"} {
		f.Add([]byte(seed))
	}
	position := regexp.MustCompile(`^f:[0-9]+: `)
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseConfig(data, "f")
		if err != nil {
			if !position.MatchString(err.Error()) {
				t.Fatalf("no position in %q", err)
			}
			return
		}
		text := new(strings.Builder)
		text.WriteByte('\n') // a byte order mark counts at the start only
		for _, s := range settings {
			fmt.Fprintf(text, "%s=%s\n", s.name, s.value)
		}
		again, err := parseConfig([]byte(text.String()), "f")
		if err != nil || len(again) != len(settings) {
			t.Fatalf("written again: %d settings instead of %d, %v", len(again), len(settings), err)
		}
		for i, s := range settings {
			if again[i].name != s.name || again[i].value != s.value {
				t.Fatalf("written again: %q instead of %q", again[i], s)
			}
		}
		if err := checkSettings(new(values).options(), settings); err != nil && !position.MatchString(err.Error()) {
			t.Fatalf("no position in %q", err)
		}
	})
}
