// Package cli is the command line of a program with subcommands: tables of options, and from them parsing, config file,
// help, manual pages and shell completion.
package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Program is a program with subcommands.
type Program struct {
	Name        string
	Version     string // for the manual pages
	VersionLine string // what --version prints: version, source and tools
	About       string // begins the help, as it is to be printed
	Examples    string // ends the help, as it is to be printed
	Commands    []*Command
}

// A Command is one subcommand. Everything that help, manual page and shell completion say of it comes from here.
type Command struct {
	Name    string
	Args    Args   // what stands after the flags; a command without them refuses arguments
	Summary string // one line in the list of commands
	About   string // the paragraphs of its own help
	// Verbatim ends the flags at the first argument, for a command that runs another one.
	Verbatim bool
	// Divided keeps the "--" among the arguments, for a command that has some of its own before those of one that it runs.
	Divided bool
	// Config gives the command the option --config, nil for none.
	Config *ConfigFile
	// Setup returns the table of options, bound to fresh variables, and what to run once they are set.
	Setup func() (options []Option, run func(args []string) error)
}

// Args are the arguments of a command.
type Args struct {
	Text string // as in the usage line, empty for none
	// What a shell offers for the first one: nothing, if neither is given.
	Choices   []string
	Directory bool
}

// A UsageError is a mistake on the command line or in the config file: one line that names the flag and the cure.
type UsageError struct{ text string }

func (e *UsageError) Error() string { return e.text }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// An ExitStatus ends the program with that status and no further word.
type ExitStatus int

func (e ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Run runs the command that args name and returns the exit status: 0, 1 for a failure, 2 for a mistake in the call.
func (p *Program) Run(args []string, stdout, stderr io.Writer) int {
	name, err := p.dispatch(args, stdout)
	var usage *UsageError
	var status ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, OneLine(err.Error()))
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

func (p *Program) dispatch(args []string, stdout io.Writer) (name string, err error) {
	name = p.Name
	known := strings.Join(p.names(), ", ")
	if len(args) == 0 {
		return name, Usagef("no command given: the commands are %s; '%s --help' explains them", known, p.Name)
	}
	switch args[0] {
	case "--version", "version":
		fmt.Fprintln(stdout, p.VersionLine)
		return name, nil
	case "help":
		if len(args) == 1 {
			p.writeHelp(stdout)
			return name, nil
		}
		args = []string{args[1], "--help"}
	case "--help", "-h":
		p.writeHelp(stdout)
		return name, nil
	}
	if strings.HasPrefix(args[0], "-") {
		return name, Usagef("unknown flag %q before the command: give the command first, one of %s", args[0], known)
	}
	for _, c := range p.Commands {
		if c.Name != args[0] {
			continue
		}
		err := c.run(args[1:], stdout)
		if errors.Is(err, errHelp) {
			p.writeCommandHelp(stdout, c)
			err = nil
		}
		return name + " " + c.Name, err
	}
	return name, Usagef("unknown command %q: the commands are %s", args[0], known)
}

// names returns the names of the commands, in their order.
func (p *Program) names() []string {
	var names []string
	for _, c := range p.Commands {
		names = append(names, c.Name)
	}
	return names
}

// options returns all options of the command, with --config last.
func (c *Command) options() []Option {
	options, _ := c.Setup()
	return append(options, c.Config.option(new(string))...)
}

func (c *Command) run(args []string, stdout io.Writer) error {
	options, run := c.Setup()
	rest, defaults, err := c.parse(options, args)
	if err != nil {
		return err
	}
	if defaults != nil {
		fmt.Fprintln(stdout, defaults.Note)
	}
	return run(rest)
}

// Parse sets options, a table of the command's, by a command line and the file that it names, and returns the arguments: for a
// command that reads its file again while it runs.
func (c *Command) Parse(options []Option, args []string) (rest []string, err error) {
	rest, _, err = c.parse(options, args)
	return rest, err
}

// ConfigPath returns the file that a command line names by --config, "" for none.
func (c *Command) ConfigPath(args []string) (path string) {
	options, _ := c.Setup()
	config := c.Config.option(&path)
	if line, _, err := parse(slices.Concat(options, config), args, c.Verbatim); err != nil || resolve(config, line) != nil {
		return ""
	}
	return path
}

// Noted returns options that tell note as well what each of them is set to.
func Noted(options []Option, note func(name, value string)) []Option {
	options = slices.Clone(options)
	for i, o := range options {
		options[i].Value.set = func(v string) error {
			note(o.Name, v)
			return o.Value.set(v)
		}
	}
	return options
}

func (c *Command) parse(options []Option, args []string) (rest []string, defaults *Defaults, err error) {
	var path string
	config := c.Config.option(&path)
	var behind []string
	if i := slices.Index(args, "--"); c.Divided && i >= 0 {
		args, behind = args[:i], args[i:]
	}
	line, rest, err := parse(slices.Concat(options, config), args, c.Verbatim)
	if err != nil {
		return nil, nil, err
	}
	rest = append(rest, behind...)
	if err := resolve(config, line); err != nil {
		return nil, nil, err
	}
	var last []setting
	defaults = c.Config.defaults(path, line)
	if defaults != nil {
		path, last = defaults.Path, defaults.settings()
	}
	file, err := c.Config.settings(path)
	if err != nil {
		return nil, nil, err
	}
	if err := resolve(options, line, file, last); err != nil {
		return nil, nil, err
	}
	if len(rest) > 0 && c.Args.Text == "" {
		if len(options) == 0 {
			return nil, nil, Usagef("unknown argument %q: %s takes none", rest[0], c.Name)
		}
		return nil, nil, Usagef("unknown argument %q: %s takes flags alone; see --help", rest[0], c.Name)
	}
	return rest, defaults, nil
}
