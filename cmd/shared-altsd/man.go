package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// These two print the table of commands and stand in it, which an initializer of the table cannot express.
func init() { commands = append(commands, manCommand, completionCommand) }

var manCommand = &command{
	name:    "man",
	args:    "[shared-altsd.1|shared-altsd.conf.5]",
	summary: "print a manual page",
	about: `
Prints the manual page of the program or of its config file, made from the same table as --help.

  shared-altsd man | man -l -`,
	setup: func() ([]option, func([]string) error) {
		return nil, func(args []string) error {
			switch strings.Join(args, " ") {
			case "", "shared-altsd.1":
				return writeManual(os.Stdout)
			case "shared-altsd.conf.5":
				return writeConfigManual(os.Stdout)
			}
			return usagef("unknown manual page %q: there are shared-altsd.1 and shared-altsd.conf.5", strings.Join(args, " "))
		}
	},
}

// A roff writes the man(7) macros. Its first error is kept.
type roff struct {
	w   io.Writer
	err error
}

func (r *roff) line(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, format+"\n", args...)
	}
}

var roffEscaper = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// text writes text as it is: nothing in it is taken for a macro.
func (r *roff) text(s string) {
	s = roffEscaper.Replace(strings.Join(strings.Fields(s), " "))
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	r.line("%s", s)
}

func (r *roff) heading(name, section string) {
	r.line(`.TH %s %s "" "shared-altsd %s"`, roffEscaper.Replace(strings.ToUpper(name)), section,
		roffEscaper.Replace(version.Number()))
}

func (r *roff) section(s string) { r.line(".SH %s", s) }

// paragraphs writes the text of a command: blank lines part paragraphs, indented lines stand as they are.
func (r *roff) paragraphs(s string) {
	for _, p := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if !strings.HasPrefix(p, "  ") {
			r.line(".PP")
			r.text(p)
			continue
		}
		r.line(".PP\n.nf\n.RS")
		for _, l := range strings.Split(p, "\n") {
			r.line(`\&%s`, roffEscaper.Replace(strings.TrimPrefix(l, "  ")))
		}
		r.line(".RE\n.fi")
	}
}

func (r *roff) option(o *option, prefix string) {
	head := `\fB` + roffEscaper.Replace(prefix+o.name) + `\fR`
	if o.arg != "" {
		head += " " + `\fI` + roffEscaper.Replace(o.arg) + `\fR`
	}
	r.line(".TP\n%s", head)
	text := o.help
	if o.repeat {
		text += " May be repeated."
	}
	if o.def != "" {
		text += " Default: " + o.def + "."
	}
	r.text(text)
}

func writeManual(w io.Writer) error {
	r := &roff{w: w}
	r.heading("shared-altsd", "1")
	r.section("NAME")
	r.line(`shared\-altsd \- a handshaker service for gRPC's ALTS on ordinary machines`)
	r.section("SYNOPSIS")
	for _, c := range commands {
		line := `\fBshared\-altsd ` + roffEscaper.Replace(c.name) + `\fR [\fIflags\fR]`
		if c.args != "" {
			line += " " + roffEscaper.Replace(c.args)
		}
		r.line("%s\n.br", line)
	}
	r.section("DESCRIPTION")
	r.paragraphs(`Gives every account of this machine an identity, account@machine, that any gRPC program with ALTS credentials proves
to its peer and learns of its peer. The machine needs one X.509 certificate; accounts need no keys. Applications reach the
daemon over a UNIX socket, and the kernel tells it which account asks.`)
	r.section("COMMANDS")
	for _, c := range commands {
		r.line(".SS %s", roffEscaper.Replace(strings.TrimSpace(c.name+" "+c.args)))
		r.text(strings.ToUpper(c.summary[:1]) + c.summary[1:] + ".")
		r.paragraphs(c.about)
		options, _ := c.setup()
		for i := range options {
			r.option(&options[i], "--")
		}
	}
	r.section("EXIT STATUS")
	r.text("0: done. 1: failed, with the reason on standard error. 2: a mistake on the command line or in the config file.")
	r.section("ENVIRONMENT")
	r.line(".TP\n.B SHARED_ALTS_SOCKET")
	r.text("The daemon's socket, for the commands that ask it and for applications.")
	r.section("FILES")
	for _, f := range [][2]string{
		{"/etc/shared-altsd/shared-altsd.conf", "The config file of the installed service."},
		{"/etc/shared-altsd/machine.pem", "The machine's certificate chain and private key, mode 0600, root's."},
		{localsock.DefaultPath, "The socket that applications connect to."},
	} {
		r.line(".TP\n.I %s", roffEscaper.Replace(f[0]))
		r.text(f[1])
	}
	r.section("SEE ALSO")
	r.line(`.BR shared\-altsd.conf (5),
.BR systemctl (1),
.BR getent (1)`)
	return r.err
}

func writeConfigManual(w io.Writer) error {
	r := &roff{w: w}
	r.heading("shared-altsd.conf", "5")
	r.section("NAME")
	r.line(`shared\-altsd.conf \- configuration of the shared\-altsd daemon`)
	r.section("DESCRIPTION")
	r.paragraphs(`Lines of the form 'name = value', with the names of the flags of 'shared-altsd serve' without their hyphens. A
name that may be repeated stands on several lines; a switch is true or false. What follows a '#' at the start of a line or
after white space is a comment. A flag on the command line wins over the file. The installed service reads
/etc/shared-altsd/shared-altsd.conf.

  ca = /etc/shared-altsd/ca.pem
  ca = partner.example.com=/etc/shared-altsd/partner-ca.pem
  secure-naming = strict`)
	r.section("OPTIONS")
	options, _ := serveCommand.setup()
	for i := range options {
		if options[i].name != "config" {
			r.option(&options[i], "")
		}
	}
	r.section("SEE ALSO")
	r.line(`.BR shared\-altsd (1)`)
	return r.err
}
