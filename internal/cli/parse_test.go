package cli

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"set", "low [] [] [] false 3 0s"},
		{"set --text a --file=b --level high --place x --n 9", "a b high x [] [] [] false 9 0s"},
		{"set --n 4 --word c --word --list=d,e", "a-program set: --word needs a value: --word WORD|TERM\n"},
		{"set --files a --files=b --word c --list d,e --on --wait 5s", "low [a b] [c] [d e] true 3 5s"},
		{"set --on=yes", "low [] [] [] true 3 0s"},
		{"set --on=off", "low [] [] [] false 3 0s"},
		{"set --text -", "- low [] [] [] false 3 0s"},
		{"set --text -x", "-x low [] [] [] false 3 0s"},
		{"wrap --n 4 a --n 5 -- b", "low [] [a --n 5 -- b] [] false 4 0s"},
		{"wrap -- --n b", "low [] [--n b] [] false 3 0s"},
	} {
		v := new(values)
		code, _, stderr := run(v, strings.Fields(tt.args)...)
		got := stderr
		if code == 0 {
			got = v.String()
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.args, got, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-n 3", `unknown flag "-n": flags begin with two hyphens; see --help`},
		{"--nothing", `unknown flag "--nothing": see --help`},
		{"--fil x", `unknown flag "--fil": did you mean --file or --files?`},
		{"--textual x", `unknown flag "--textual": did you mean --text?`},
		{"--text", "--text needs a value: --text TEXT"},
		{"--text --on", "--text needs a value: --text TEXT"},
		{"--text=", "--text: empty: give a value"},
		{"--word=", "--word: empty: give a value"},
		{"--text a --text b", "--text: given twice: give it once"},
		{"--config a --config b", "--config: given twice: give it once"},
		{"--config=", "--config: empty: give a value"},
		{"--on=maybe", `--on: "maybe" is neither true nor false: give one of them`},
		{"--n 0", `--n: "0" is not a number from 1 to 9`},
		{"--n x", `--n: "x" is not a number from 1 to 9`},
		{"--wait 5", `--wait: "5" is not a duration from 1s to 1m0s, such as 90s, 20m or 6h`},
		{"--wait 61s", `--wait: "61s" is not a duration from 1s to 1m0s, such as 90s, 20m or 6h`},
		{"--level mid", `--level: "mid" is not one of low, high`},
		{"--list a,,b", `--list: "": write 1 to 5 letters`},
		{"--place distant", `--place: write 1 to 5 letters`},
	} {
		code, stdout, stderr := run(new(values), append([]string{"set"}, strings.Fields(tt.args)...)...)
		if code != 2 || stdout != "" || stderr != "a-program set: "+tt.want+"\n" {
			t.Errorf("%q: exit status %d, %q, %q", tt.args, code, stdout, stderr)
		}
	}
}
