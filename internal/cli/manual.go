package cli

import (
	"fmt"
	"io"
	"strings"
)

// A Page is what a manual page says beside what the tables say.
type Page struct {
	Name, Title string // as in its first line, "name - title"
	Description string
	Environment []Entry
	Files       []Entry
	SeeAlso     []Reference
}

// An Entry is a term and what there is to say of it.
type Entry struct{ Term, Text string }

// A Reference is another manual page, "name(section)".
type Reference struct{ Name, Section string }

// WriteManual writes the manual page of the program, for section 1.
func (p *Program) WriteManual(w io.Writer, page Page) error {
	r := &roff{w: w}
	p.begin(r, page, "1")
	r.section("SYNOPSIS")
	for _, c := range p.Commands {
		line := bold(p.Name+" "+c.Name) + ` [\fIflags\fR]`
		if c.Args.Text != "" {
			line += " " + roffEscaper.Replace(c.Args.Text)
		}
		r.line("%s\n.br", line)
	}
	r.section("DESCRIPTION")
	r.paragraphs(page.Description)
	r.section("COMMANDS")
	for _, c := range p.Commands {
		r.line(".SS %s", roffEscaper.Replace(strings.TrimSpace(c.Name+" "+c.Args.Text)))
		r.text(strings.ToUpper(c.Summary[:1]) + c.Summary[1:] + ".")
		r.paragraphs(c.About)
		for _, o := range c.options() {
			r.option(o, "--")
		}
	}
	r.section("EXIT STATUS")
	r.text("0: done. 1: failed, with the reason on standard error. " +
		"2: a mistake on the command line or in the config file.")
	r.end(page)
	return r.err
}

// WriteConfigManual writes the manual page of a config file that sets options, for section 5.
func (p *Program) WriteConfigManual(w io.Writer, page Page, options []Option) error {
	r := &roff{w: w}
	p.begin(r, page, "5")
	r.section("DESCRIPTION")
	r.paragraphs(page.Description)
	r.section("OPTIONS")
	for _, o := range options {
		r.option(o, "")
	}
	r.end(page)
	return r.err
}

// begin writes heading and name. Of the name's line only hyphens are escaped: makers of indexes read it as it stands.
func (p *Program) begin(r *roff, page Page, section string) {
	r.line(`.TH %s %s "" "%s %s"`, roffEscaper.Replace(strings.ToUpper(page.Name)), section, p.Name,
		roffEscaper.Replace(p.Version))
	r.section("NAME")
	hyphens := strings.NewReplacer("-", `\-`)
	r.line(`%s \- %s`, hyphens.Replace(page.Name), hyphens.Replace(page.Title))
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

func bold(s string) string { return `\fB` + roffEscaper.Replace(s) + `\fR` }

// text writes text as it is: nothing in it is taken for a macro.
func (r *roff) text(s string) {
	s = roffEscaper.Replace(strings.Join(strings.Fields(s), " "))
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	r.line("%s", s)
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

func (r *roff) option(o Option, prefix string) {
	head := bold(prefix + o.Name)
	if o.Value.arg != "" {
		head += " " + `\fI` + roffEscaper.Replace(o.Value.arg) + `\fR`
	}
	r.line(".TP\n%s", head)
	text := o.Help
	if o.Repeat {
		text += " May be repeated."
	}
	if o.Default != "" {
		text += " Default: " + o.Default + "."
	}
	r.text(text)
}

// end writes the sections that a page ends with.
func (r *roff) end(page Page) {
	r.entries("ENVIRONMENT", "B", page.Environment)
	r.entries("FILES", "I", page.Files)
	var pages []string
	for _, ref := range page.SeeAlso {
		pages = append(pages, fmt.Sprintf(".BR %s (%s)", roffEscaper.Replace(ref.Name), ref.Section))
	}
	if pages != nil {
		r.section("SEE ALSO")
		r.line("%s", strings.Join(pages, ",\n"))
	}
}

func (r *roff) entries(section, font string, entries []Entry) {
	if entries != nil {
		r.section(section)
	}
	for _, e := range entries {
		r.line(".TP\n.%s %s", font, roffEscaper.Replace(e.Term))
		r.text(e.Text)
	}
}
