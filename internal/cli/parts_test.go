package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// partly returns the program of the tests with parts that belong to its config file.
func partly(v *values, parts ...string) func(args ...string) (code int, stderr string) {
	p := testProgram(v)
	p.Commands[0].Config.More = func(path string, max int64) (more []Part, err error) {
		for i, text := range parts {
			more = append(more, Part{Path: fmt.Sprintf("d/%d.conf", i), Data: []byte(text)})
		}
		return more, nil
	}
	p.Commands[0].Config.Read = func(path string, max int64) ([]byte, error) { return os.ReadFile(path) }
	return func(args ...string) (int, string) {
		var errs strings.Builder
		code := p.Run(args, io.Discard, &errs)
		return code, errs.String()
	}
}

func TestConfigParts(t *testing.T) {
	main := writeConfig(t, "n = 5\nfiles = /a\nlevel = low\nword = w\n")
	for _, tt := range []struct {
		name  string
		parts []string
		args  []string
		want  string
	}{
		{"none", nil, nil, "low [/a] [w] [] false 5 0s"},
		{"later ones win, and add", []string{"n = 6\nfiles = /b\n", "# nothing\n", "n = 7\nfiles = /c\nlevel = high\n"}, nil,
			"high [/a /b /c] [w] [] false 7 0s"},
		{"begun anew", []string{"files = /b\n", "files =\nfiles = /c\nfiles = /d\n", "files = /e"}, nil,
			"low [/c /d /e] [w] [] false 5 0s"},
		{"begun anew below", []string{"files = /b\nfiles =\nfiles = /c\n"}, nil, "low [/c] [w] [] false 5 0s"},
		{"the command line wins", []string{"n = 6\nfiles = /b\n"}, []string{"--n", "9", "--files", "/x"}, "low [/x] [w] [] false 9 0s"},
	} {
		v := new(values)
		code, stderr := partly(v, tt.parts...)(append([]string{"set", "--config", main}, tt.args...)...)
		if got := v.String(); code != 0 || got != tt.want {
			t.Errorf("%s: %q, want %q: %s", tt.name, got, tt.want, stderr)
		}
	}
}

// A part is refused for a mistake in it, by its own name and line, also where another or the command line overrides it.
func TestConfigPartErrors(t *testing.T) {
	main := writeConfig(t, "n = 5\nfiles = /a\n")
	for _, tt := range []struct {
		parts []string
		want  string
	}{
		{[]string{"n = 6\n\nn = 7\n"}, "d/0.conf:3: n: given twice: give it once"},
		{[]string{"level = mid\n", "level = low\n"}, `d/0.conf:1: level: "mid" is not one of low, high`},
		{[]string{"", "files = /b\nfiles =\n"}, "d/1.conf:2: files: empty: give below it what is to stand in the place of all before, or take the line out"},
		{[]string{"text =\n"}, "d/0.conf:1: text: empty: give a value"},
		{[]string{"no-such-name =\n"}, `d/0.conf:1: unknown name "no-such-name": see --help`},
		{[]string{"no equals sign\n"}, "d/0.conf:1: no '=' in the line: write 'name = value', with a switch 'name = true'"},
		{[]string{"config = /x\n"}, "d/0.conf:1: config: a config file cannot name another one: give --config on the command line"},
	} {
		code, stderr := partly(new(values), tt.parts...)("set", "--config", main, "--level", "low", "--n", "1", "--files", "/x", "--text", "x")
		if code != 2 || stderr != "a-program set: "+tt.want+"\n" {
			t.Errorf("%q: exit status %d: %q", tt.parts, code, stderr)
		}
	}
	// What the main file lacks is not looked for in parts of no file.
	if code, stderr := partly(new(values), "level = mid\n")("set"); code != 0 {
		t.Errorf("parts without a file: %s", stderr)
	}
}

func TestNoted(t *testing.T) {
	v, noted := new(values), map[string][]string{}
	p := testProgram(v)
	main := writeConfig(t, "files = /a\nfiles = /b\n")
	args := []string{"--config", main, "--n", "4"}
	if got := p.Commands[0].ConfigPath(args); got != main {
		t.Errorf("the config file of the line: %q", got)
	}
	_, err := p.Commands[0].Parse(Noted(v.options(), func(name, value string) { noted[name] = append(noted[name], value) }), args)
	if err != nil || fmt.Sprint(noted) != "map[files:[/a /b] level:[low] n:[4]]" || v.n != 4 {
		t.Errorf("noted %v, set %v: %v", noted, v, err)
	}
}
