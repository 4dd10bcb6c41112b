package cli

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestManual(t *testing.T) {
	page := Page{
		Name: "a-program", Title: "what a program's like", Description: "It's so-so.\n\n  an example\n  .of two lines",
		Environment: []Entry{{"HOME_DIR", "Where it lives."}}, Files: []Entry{{"/a-b", "A file."}},
		SeeAlso: []Reference{{"a-b", "5"}, {"c", "1"}},
	}
	var b strings.Builder
	if err := testProgram(new(values)).WriteManual(&b, page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`.TH A\-PROGRAM 1 "" "a-program v1\-2"` + "\n.SH NAME\n" + `a\-program \- what a program's like` + "\n.SH SYNOPSIS\n",
		`\fBa\-program wrap\fR [\fIflags\fR] COMMAND...` + "\n.br\n",
		".PP\nIt\\(aqs so\\-so.\n.PP\n.nf\n.RS\n\\&an example\n\\&.of two lines\n.RE\n.fi\n",
		".SS pick red|blue\nPick.\n.PP\nPicks.\n", ".TP\n\\fB\\-\\-text\\fR \\fITEXT\\fR\nSome text. And more of it.\n",
		".TP\n\\fB\\-\\-on\\fR\nA switch.\n", "A number. Default: 3.\n", "Files. May be repeated.\n",
		"\n\\&.TH is no macro, nor is \\(aqthis\\(aq.\n", ".TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\nA config file.\n",
		".SH ENVIRONMENT\n.TP\n.B HOME_DIR\nWhere it lives.\n.SH FILES\n.TP\n.I /a\\-b\nA file.\n" +
			".SH SEE ALSO\n.BR a\\-b (5),\n.BR c (1)\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	macro := regexp.MustCompile(`^\.(br|nf|fi|[A-Z]{1,2})( |$)`)
	for line := range strings.Lines(b.String()) {
		if line[0] == '.' && !macro.MatchString(strings.TrimSpace(line)) {
			t.Errorf("text that begins with a dot is taken for a macro: %q", line)
		}
	}
}

func TestConfigManual(t *testing.T) {
	var b strings.Builder
	page := Page{Name: "a.conf", Title: "its file", Description: "Lines."}
	if err := testProgram(new(values)).WriteConfigManual(&b, page, new(values).options()[:1]); err != nil {
		t.Fatal(err)
	}
	want := ".TH A.CONF 5 \"\" \"a-program v1\\-2\"\n.SH NAME\na.conf \\- its file\n.SH DESCRIPTION\n.PP\nLines.\n" +
		".SH OPTIONS\n.TP\n\\fBtext\\fR \\fITEXT\\fR\nSome text. And more of it.\n"
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

// What a shell offers for a value is said by the value's type, whatever its placeholder.
func TestCompletion(t *testing.T) {
	for shell, wanted := range map[string][]string{
		"bash": {
			`compgen -W "set wrap fail quit pick in --help --version" --`, "\n_a_program() {\n",
			"complete -o filenames -F _a_program a-program\n",
			"'set --file') COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", "'set --files') COMPREPLY=($(compgen -f",
			"'set --place') COMPREPLY=($(compgen -f", "'set --config') COMPREPLY=($(compgen -f",
			"'set --text') return ;;\n", "'set --word') return ;;\n", "'set --n') return ;;\n",
			"'set --level') words='low high' ;;\n", "'set --way') words='up down' ;;\n",
			"\t\tpick) words='red blue --help' ;;\n", "\t\tin) words='--help' ;;\n",
			"--place --on --n --wait --level --way --config --help' ;;\n",
		},
		"zsh": {
			"#compdef a-program\n", "\t\t\t'set:set things'\n", "'--text=[Some text]:TEXT:'",
			"'--file=[A file (of; yours)]:file:_files'",
			"'*--files=[Files]:file:_files'", "'*--word=[Words]:WORD|TERM:'", "'--on[A switch]'",
			"'--level=[A level]:value:(low high)'", "'--way=[A way]:value:(up down)'", "'--config=[A config file]:file:_files'",
			`nor is '\''this'\'']`, "'1:argument:(red blue)'", "'1:directory:_files -/'",
		},
		"fish": {
			"complete -c a-program -n __fish_use_subcommand -a set -d 'set things'\n",
			"-n '__fish_seen_subcommand_from set' -l file -r -F -d ", "-l place -r -F ", "-l config -r -F ",
			"-l text -x -d 'Some text'\n",
			"-l word -x -d ", "-l on -d 'A switch'\n", "-l level -x -a 'low high' ", "-l way -x -a 'up down' ",
			`nor is \'this\''`,
			"-n '__fish_seen_subcommand_from pick' -a 'red blue'\n",
		},
	} {
		var b strings.Builder
		if err := testProgram(new(values)).WriteCompletion(&b, shell); err != nil {
			t.Fatal(err)
		}
		for _, want := range wanted {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %q in\n%s", shell, want, b.String())
			}
		}
	}
	err := testProgram(new(values)).WriteCompletion(nil, "tcsh")
	if err == nil || !strings.Contains(err.Error(), "bash, zsh, fish") {
		t.Errorf("tcsh: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestOutputErrors(t *testing.T) {
	p := testProgram(new(values))
	for name, err := range map[string]error{
		"manual":        p.WriteManual(brokenPipe{}, Page{}),
		"config manual": p.WriteConfigManual(brokenPipe{}, Page{}, nil),
		"completion":    p.WriteCompletion(brokenPipe{}, "zsh"),
	} {
		if err == nil {
			t.Errorf("%s: the error is lost", name)
		}
	}
}
