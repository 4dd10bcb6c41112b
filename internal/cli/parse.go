package cli

import (
	"errors"
	"strings"
)

// An Option is one flag. The same table of options gives the command line, the config file, the help, the manual page
// and the shell completion.
type Option struct {
	Name    string // without the hyphens; also the name in a config file
	Group   string // heading in the help
	Help    string
	Default string // as a user would write it; empty if there is none
	Repeat  bool   // may be given more than once
	Value   Value
}

// A setting is a value that somebody gave to an option, and where: "--name" or "FILE:LINE: name".
type setting struct{ name, value, origin string }

var errHelp = errors.New("help asked for")

// parse splits args into settings and arguments. "--" ends the flags; so does the first argument if verbatim is set.
func parse(options []Option, args []string, verbatim bool) (settings []setting, rest []string, err error) {
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
			return nil, nil, Usagef("unknown flag %q: flags begin with two hyphens; see --help", arg)
		}
		name, value, hasValue := strings.Cut(arg[2:], "=")
		o := find(options, name)
		switch {
		case o == nil:
			return nil, nil, Usagef("unknown flag %q: %s", "--"+name, suggest(options, "--", name))
		case o.Value.arg == "" && !hasValue:
			value = "true"
		case o.Value.arg != "" && !hasValue:
			// A forgotten value must not swallow the next flag.
			if i++; i == len(args) || strings.HasPrefix(args[i], "--") {
				return nil, nil, Usagef("--%s needs a value: --%s %s", name, name, o.Value.arg)
			}
			value = args[i]
		}
		settings = append(settings, setting{name, value, "--" + name})
	}
	return settings, rest, nil
}

func find(options []Option, name string) *Option {
	for i := range options {
		if options[i].Name == name {
			return &options[i]
		}
	}
	return nil
}

// suggest names the options that begin like a name that does not exist, with prefix before each.
func suggest(options []Option, prefix, name string) string {
	for n := len(name); n >= 3; n-- {
		var near []string
		for _, o := range options {
			if strings.HasPrefix(o.Name, name[:n]) {
				near = append(near, prefix+o.Name)
			}
		}
		if near != nil {
			return "did you mean " + strings.Join(near, " or ") + "?"
		}
	}
	return "see --help"
}

// resolve returns each option its values: those of the first source that has any, else the default.
func resolve(options []Option, sources ...[]setting) error {
	for _, o := range options {
		var values []setting
		for _, source := range sources {
			for _, s := range source {
				if s.name == o.Name {
					values = append(values, s)
				}
			}
			if values != nil {
				break
			}
		}
		if len(values) > 1 && !o.Repeat {
			return Usagef("%s: given twice: give it once", values[1].origin)
		}
		if values == nil && o.Default != "" {
			values = []setting{{o.Name, o.Default, "--" + o.Name}}
		}
		for _, v := range values {
			if err := o.Value.set(v.value); err != nil {
				return Usagef("%s: %v", v.origin, err)
			}
		}
	}
	return nil
}
