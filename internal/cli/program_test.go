package cli

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const all = "set, wrap, fail, quit, pick, in"
	for _, tt := range []struct {
		args string
		code int
		want string // on standard error
	}{
		{"", 2, "a-program: no command given: the commands are " + all + "; 'a-program --help' explains them\n"},
		{"sets", 2, "a-program: unknown command \"sets\": the commands are " + all + "\n"},
		{"--x set", 2, `a-program: unknown flag "--x" before the command: give the command first, one of ` + all + "\n"},
		{"set", 0, ""},
		{"set x", 2, "a-program set: unknown argument \"x\": set takes flags alone; see --help\n"},
		{"fail x", 2, "a-program fail: unknown argument \"x\": fail takes none\n"},
		{"fail", 1, "a-program fail: one; two?\n"},
		{"quit", 7, ""},
		{"pick red", 0, ""},
	} {
		code, stdout, stderr := run(new(values), strings.Fields(tt.args)...)
		if code != tt.code || stdout != "" || stderr != tt.want {
			t.Errorf("%q: exit status %d, %q, %q", tt.args, code, stdout, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "-h", "help"} {
		code, out, stderr := run(new(values), args)
		if code != 0 || stderr != "" || !strings.HasPrefix(out, "A program.\n\nusage: a-program COMMAND ") ||
			!strings.Contains(out, "\n  set  set things\n  wrap run a command\n") {
			t.Errorf("%s: exit status %d, %q, %s", args, code, stderr, out)
		}
	}
	_, out, _ := run(new(values), "set", "x", "--help")
	_, again, _ := run(new(values), "help", "set")
	for _, want := range []string{
		"usage: a-program set [FLAGS]\n\nSets.\n\n  a-program set\n",
		"\n\nTexts:\n  --text TEXT\n        Some text. And more of it.\n",
		"  --files FILE\n        Files. May be repeated.\n", "\n\nOthers:\n  --on\n        A switch.\n",
		"  --n N\n        A number. (default 3)\n", "  --config FILE\n        A config file.\n",
	} {
		if !strings.Contains(out, want) || out != again {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if code, out, _ := run(new(values), "--version"); code != 0 || out != "a-program v1-2 (of today)\n" {
		t.Errorf("--version: %d %q", code, out)
	}
}

func TestWrap(t *testing.T) {
	if got := strings.Join(Wrap(" a  bc\ndef ghijkl m ", 6), "|"); got != "a bc|def|ghijkl|m" {
		t.Error(got)
	}
	if got := reflow("\na\nb\n\n  c\n  d\ne\n"); got != "a b\n\n  c\n  d\ne" {
		t.Errorf("%q", got)
	}
}

// A divided command gets the "--" among its arguments, with all that is behind it as it stands; flags stand before it only.
func TestDivided(t *testing.T) {
	for _, tt := range []struct{ args, text, rest, refusal string }{
		{"--text x peer -- cmd --text y", "x", "peer -- cmd --text y", ""}, {"peer --text x", "x", "peer", ""},
		{"-- cmd -- more", "", "-- cmd -- more", ""}, {"peer --", "", "peer --", ""}, {"peer --text -- x", "", "", "--text needs a value"},
	} {
		var v values
		var rest []string
		p := &Program{Name: "a-program", Commands: []*Command{{Name: "join", Divided: true, Args: Args{Text: "PEER [-- COMMAND]"},
			Setup: func() ([]Option, func([]string) error) {
				return v.options(), func(args []string) error { rest = args; return nil }
			}}}}
		var errs strings.Builder
		code := p.Run(append([]string{"join"}, strings.Fields(tt.args)...), &errs, &errs)
		if tt.refusal != "" {
			if code != 2 || !strings.Contains(errs.String(), tt.refusal) {
				t.Errorf("%s: exit status %d, %s", tt.args, code, errs.String())
			}
			continue
		}
		if code != 0 || v.text != tt.text || strings.Join(rest, " ") != tt.rest {
			t.Errorf("%s: exit status %d, text %q, arguments %q, %s", tt.args, code, v.text, rest, errs.String())
		}
	}
}
