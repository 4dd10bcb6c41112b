package cli

import (
	"fmt"
	"io"
)

func (p *Program) writeHelp(w io.Writer) {
	fmt.Fprintf(w, "%s\n\nusage: %s COMMAND [FLAGS] [ARGUMENTS]\n\n", p.About, p.Name)
	widest := 0
	for _, c := range p.Commands {
		widest = max(widest, len(c.Name))
	}
	for _, c := range p.Commands {
		fmt.Fprintf(w, "  %-*s %s\n", widest, c.Name, c.Summary)
	}
	fmt.Fprintf(w, `
  %[1]s COMMAND --help     what a command does, with all its flags
  %[1]s --version          what was built, from which commit

%[2]s

Exit status: 0 done, 1 failed with the reason on standard error, 2 a mistake on the command line or in the config file.
`, p.Name, p.Examples)
}

func (p *Program) writeCommandHelp(w io.Writer, c *Command) {
	usage := p.Name + " " + c.Name + " [FLAGS]"
	if c.Args.Text != "" {
		usage += " " + c.Args.Text
	}
	fmt.Fprintf(w, "usage: %s\n\n%s\n", usage, reflow(c.About))
	group := ""
	for i, o := range c.options() {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(w, "\n%s\n", group)
		} else if i == 0 {
			fmt.Fprintln(w)
		}
		o.writeHelp(w)
	}
}

func (o *Option) writeHelp(w io.Writer) {
	head := "  --" + o.Name
	if o.Value.arg != "" {
		head += " " + o.Value.arg
	}
	text := o.Help
	if o.Repeat {
		text += " May be repeated."
	}
	if o.Default != "" {
		text += " (default " + o.Default + ")"
	}
	fmt.Fprintln(w, head)
	for _, line := range Wrap(text, helpWidth-8) {
		fmt.Fprintln(w, "        "+line)
	}
}
