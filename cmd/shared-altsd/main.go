// Shared-altsd is a handshaker service for gRPC's ALTS on ordinary machines: one daemon a machine, one certificate a
// machine, and every local account an identity of its own, account@machine.
//
// This package is thin: flags, files and wiring. The work is done in service, noiseproto and certbind.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/version"
)

// A command is one subcommand. Everything that help, manual page and shell completion say of it comes from here.
type command struct {
	name    string
	args    string // what stands after the flags in the usage line
	summary string // one line in the list of commands
	about   string // the paragraphs of its own help
	// verbatim ends the flags at the first argument, for a command that runs another one.
	verbatim bool
	// setup gives the table of flags, bound to fresh variables, and what to run once they are set.
	setup func() (options []option, run func(args []string) error)
}

// commands is the table of subcommands, in the order of the help.
var commands = []*command{
	serveCommand, checkCommand, statusCommand, reloadCommand, whoamiCommand, pingCommand, pongCommand,
	demoCommand, devCACommand,
	execCommand,
}

// A usageError is a mistake on the command line or in the config file: one line that names the flag and the cure.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// An exitStatus ends the program with that status and no further word.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the command that args name and gives the exit status: 0, 1 for a failure, 2 for a mistake in the call.
func run(args []string, stdout, stderr io.Writer) int {
	name, err := dispatch(args, stdout)
	var usage *usageError
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(err.Error()))
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

func dispatch(args []string, stdout io.Writer) (name string, err error) {
	name = "shared-altsd"
	if len(args) == 0 {
		return name, usagef("no command given: the commands are %s; 'shared-altsd --help' explains them", commandNames())
	}
	switch args[0] {
	case "--version", "version":
		fmt.Fprintln(stdout, version.Line())
		return name, nil
	case "help":
		if len(args) == 1 {
			writeHelp(stdout)
			return name, nil
		}
		args = []string{args[1], "--help"}
	case "--help", "-h":
		writeHelp(stdout)
		return name, nil
	}
	if strings.HasPrefix(args[0], "-") {
		return name, usagef("unknown flag %q before the command: give the command first, one of %s", args[0], commandNames())
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		name += " " + c.name
		options, run := c.setup()
		settings, rest, err := parseArgs(options, args[1:], c.verbatim)
		if errors.Is(err, errHelp) {
			writeCommandHelp(stdout, c)
			return name, nil
		}
		if err != nil {
			return name, err
		}
		file, err := loadConfig(settings)
		if err != nil {
			return name, err
		}
		if err := resolve(options, settings, file); err != nil {
			return name, err
		}
		return name, run(rest)
	}
	return name, usagef("unknown command %q: the commands are %s", args[0], commandNames())
}

func commandNames() string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// oneLine keeps an error on one line, whatever text of the system or of a library is in it.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

func writeHelp(w io.Writer) {
	fmt.Fprint(w, `shared-altsd gives every account of this machine an identity, account@machine, that any gRPC program
with ALTS credentials proves to its peer, as it learns its peer's. The machine needs one X.509 certificate;
accounts need no keys.

usage: shared-altsd COMMAND [FLAGS] [ARGUMENTS]

`)
	for _, c := range commands {
		fmt.Fprintf(w, "  %-11s%s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
  shared-altsd COMMAND --help     what a command does, with all its flags
  shared-altsd --version          what was built, from which commit

To see it work, with no set-up at all:

  shared-altsd demo

On two machines, with a throwaway CA made on one of them:

  shared-altsd dev-ca ca a.example.com b.example.com   # copy ca/ca.pem and ca/HOST.pem to each HOST
  shared-altsd serve --credentials HOST.pem --ca ca.pem

Exit status: 0 done, 1 failed with the reason on standard error, 2 a mistake on the command line or in the config file.
`)
}

func writeCommandHelp(w io.Writer, c *command) {
	usage := "shared-altsd " + c.name + " [FLAGS]"
	if c.args != "" {
		usage += " " + c.args
	}
	fmt.Fprintf(w, "usage: %s\n\n%s\n", usage, reflow(c.about))
	options, _ := c.setup()
	group := ""
	for i := range options {
		o := &options[i]
		if o.group != group {
			group = o.group
			fmt.Fprintf(w, "\n%s\n", group)
		} else if i == 0 {
			fmt.Fprintln(w)
		}
		o.writeHelp(w)
	}
}
