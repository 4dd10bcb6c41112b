package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An option is one flag. The same table of options gives the command line, the config file, the help, the manual page
// and the shell completion.
type option struct {
	name   string // without the hyphens; also the name in a config file
	arg    string // what its value is called in the help; empty for a switch
	def    string // default, as a user would write it; empty if there is none
	help   string
	group  string // heading in the help
	repeat bool   // may be given more than once
	// set takes one value. Its error says what a value has to be; the caller adds where the value came from.
	set func(value string) error
}

// A setting is a value that somebody gave to an option, and where: "--name" or "FILE:LINE: name".
type setting struct{ name, value, origin string }

var errHelp = errors.New("help asked for")

// parseArgs splits args into settings and arguments. "--" ends the flags; so does the first argument if verbatim is
// set.
func parseArgs(options []option, args []string, verbatim bool) (settings []setting, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return settings, append(rest, args[i+1:]...), nil
		case arg == "--help" || arg == "-h":
			return nil, nil, errHelp
		case !strings.HasPrefix(arg, "-") || arg == "-":
			if verbatim {
				return settings, append(rest, args[i:]...), nil
			}
			rest = append(rest, arg)
			continue
		case !strings.HasPrefix(arg, "--"):
			return nil, nil, usagef("unknown flag %q: flags begin with two hyphens; see --help", arg)
		}
		name, value, hasValue := strings.Cut(arg[2:], "=")
		o := find(options, name)
		switch {
		case o == nil:
			return nil, nil, usagef("unknown flag %q: %s", "--"+name, suggest(options, "--", name))
		case o.arg == "" && !hasValue:
			value = "true"
		case o.arg != "" && !hasValue:
			// A forgotten value must not swallow the next flag.
			if i++; i == len(args) || strings.HasPrefix(args[i], "--") {
				return nil, nil, usagef("--%s needs a value: --%s %s", name, name, o.arg)
			}
			value = args[i]
		}
		settings = append(settings, setting{name, value, "--" + name})
	}
	return settings, rest, nil
}

func find(options []option, name string) *option {
	for i := range options {
		if options[i].name == name {
			return &options[i]
		}
	}
	return nil
}

// suggest names the options that begin like a name that does not exist, with prefix before each.
func suggest(options []option, prefix, name string) string {
	for n := len(name); n >= 3; n-- {
		var near []string
		for _, o := range options {
			if strings.HasPrefix(o.name, name[:n]) {
				near = append(near, prefix+o.name)
			}
		}
		if near != nil {
			return "did you mean " + strings.Join(near, " or ") + "?"
		}
	}
	return "see --help"
}

// resolve gives each option its values: those of the first source that has any, else the default.
func resolve(options []option, sources ...[]setting) error {
	for _, o := range options {
		var values []setting
		for _, source := range sources {
			for _, s := range source {
				if s.name == o.name {
					values = append(values, s)
				}
			}
			if values != nil {
				break
			}
		}
		if len(values) > 1 && !o.repeat {
			return usagef("%s: given twice: give it once", values[1].origin)
		}
		if values == nil && o.def != "" {
			values = []setting{{o.name, o.def, "--" + o.name}}
		}
		for _, v := range values {
			if err := o.set(v.value); err != nil {
				return usagef("%s: %v", v.origin, err)
			}
		}
	}
	return nil
}

func (o *option) writeHelp(w io.Writer) {
	head := "  --" + o.name
	if o.arg != "" {
		head += " " + o.arg
	}
	text := o.help
	if o.repeat {
		text += " May be repeated."
	}
	if o.def != "" {
		text += " (default " + o.def + ")"
	}
	fmt.Fprintln(w, head)
	for _, line := range wrap(text, helpWidth-8) {
		fmt.Fprintln(w, "        "+line)
	}
}

// helpWidth is how wide help text is, columns.
const helpWidth = 108

// reflow wraps paragraphs; lines that begin with white space stay as they are.
func reflow(text string) string {
	var out []string
	var paragraph string
	flush := func() {
		if paragraph != "" {
			out, paragraph = append(out, wrap(paragraph, helpWidth)...), ""
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" || line[0] == ' ' {
			flush()
			out = append(out, line)
			continue
		}
		paragraph += " " + line
	}
	flush()
	return strings.Join(out, "\n")
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// The setters: each gives a set function for one kind of value.

func setString(p *string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("empty: give a value")
		}
		*p = v
		return nil
	}
}

func appendString(p *[]string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("empty: give a value")
		}
		*p = append(*p, v)
		return nil
	}
}

func setSwitch(p *bool) func(string) error {
	return func(v string) error {
		switch v {
		case "true", "yes", "on":
			*p = true
		case "false", "no", "off":
			*p = false
		default:
			return fmt.Errorf("%q is neither true nor false: give one of them", v)
		}
		return nil
	}
}

func setInt(p *int, least, most int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", v, least, most)
		}
		*p = n
		return nil
	}
}

func setDuration(p *time.Duration, least, most time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%q is not a duration from %v to %v, such as 90s, 20m or 6h", v, least, most)
		}
		*p = d
		return nil
	}
}

func setChoice(p *string, choices ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(choices, v) {
			return fmt.Errorf("%q is not one of %s", v, strings.Join(choices, ", "))
		}
		*p = v
		return nil
	}
}

// setList takes a comma-separated list, each entry checked, none empty.
func setList(p *[]string, check func(string) error) func(string) error {
	return func(v string) error {
		var list []string
		for _, entry := range strings.Split(v, ",") {
			entry = strings.TrimSpace(entry)
			if err := check(entry); err != nil {
				return fmt.Errorf("%q: %w", entry, err)
			}
			list = append(list, entry)
		}
		*p = list
		return nil
	}
}
