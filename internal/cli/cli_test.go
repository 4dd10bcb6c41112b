package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// values is what the table of the tests sets: an option of each kind.
type values struct {
	text, file, level, place string
	files, words, list       []string
	on                       bool
	n                        int
	wait                     time.Duration
}

func (v *values) String() string {
	all := fmt.Sprintln(v.text, v.file, v.level, v.place, v.files, v.words, v.list, v.on, v.n, v.wait)
	return strings.Join(strings.Fields(all), " ")
}

func (v *values) options() []Option {
	short := func(s string) error {
		if s == "" || len(s) > 5 {
			return errors.New("write 1 to 5 letters")
		}
		return nil
	}
	place := func(s string) error {
		v.place = s
		return short(s)
	}
	return []Option{
		{Name: "text", Group: "Texts:", Value: String(&v.text, "TEXT"), Help: "Some text. And more of it."},
		{Name: "file", Group: "Texts:", Value: File(&v.file), Help: "A file [of: yours]."},
		{Name: "files", Group: "Texts:", Repeat: true, Value: Files(&v.files), Help: "Files."},
		{Name: "word", Group: "Texts:", Repeat: true, Value: Strings(&v.words, "WORD|TERM"), Help: "Words."},
		{Name: "list", Group: "Texts:", Value: List(&v.list, "A,B", short), Help: ".TH is no macro, nor is 'this'."},
		{Name: "place", Group: "Texts:", Value: Func("PLACE", place).CompleteFiles(), Help: "A place."},
		{Name: "on", Group: "Others:", Value: Switch(&v.on), Help: "A switch."},
		{Name: "n", Group: "Others:", Default: "3", Value: Int(&v.n, "N", 1, 9), Help: "A number."},
		{Name: "wait", Group: "Others:", Value: Duration(&v.wait, time.Second, time.Minute), Help: "A time."},
		{Name: "level", Group: "Others:", Default: "low", Value: Choice(&v.level, "LEVEL", "low", "high"), Help: "A level."},
		{Name: "way", Group: "Others:", Value: Func("WAY", short).CompleteChoices("up", "down"), Help: "A way."},
	}
}

// testProgram has a command with a config file, one that runs another, and two without options.
func testProgram(v *values) *Program {
	config := &ConfigFile{
		Group: "Others:", Help: "A config file.", Options: func() []Option { return new(values).options() },
		Read: func(path string, max int64) ([]byte, error) { return os.ReadFile(path) },
	}
	none := func(err error) func() ([]Option, func([]string) error) {
		return func() ([]Option, func([]string) error) { return nil, func([]string) error { return err } }
	}
	return &Program{
		Name: "a-program", Version: "v1-2", VersionLine: "a-program v1-2 (of today)",
		About: "A program.", Examples: "Try it.",
		Commands: []*Command{
			{Name: "set", Summary: "set things", About: "Sets.\n\n  a-program set\n  .x", Config: config, Setup: func() ([]Option, func([]string) error) { return v.options(), func([]string) error { return nil } }},
			{Name: "wrap", Summary: "run a command", About: "Runs.", Verbatim: true, Args: Args{Text: "COMMAND..."}, Setup: func() ([]Option, func([]string) error) {
				return v.options(), func(args []string) error { v.words = args; return nil }
			}},
			{Name: "fail", Summary: "fail", About: "Fails.", Setup: none(fmt.Errorf("one\ntwo\x1b"))},
			{Name: "quit", Summary: "quit", About: "Quits.", Setup: none(fmt.Errorf("quits: %w", ExitStatus(7)))},
			{Name: "pick", Summary: "pick", About: "Picks.", Args: Args{Text: "red|blue", Choices: []string{"red", "blue"}}, Setup: none(nil)},
			{Name: "in", Summary: "go in", About: "Goes in.", Args: Args{Text: "DIR", Directory: true}, Setup: none(nil)},
		},
	}
}

func run(v *values, args ...string) (code int, stdout, stderr string) {
	var out, errs strings.Builder
	code = testProgram(v).Run(args, &out, &errs)
	return code, out.String(), errs.String()
}
