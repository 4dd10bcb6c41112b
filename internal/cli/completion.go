package cli

import (
	"fmt"
	"io"
	"strings"
)

// Shells are those that WriteCompletion knows.
var Shells = []string{"bash", "zsh", "fish"}

// WriteCompletion writes the script by which a shell completes commands, flags and their values, for a program whose
// command completion prints it.
func (p *Program) WriteCompletion(w io.Writer, shell string) error {
	var script string
	switch shell {
	case "bash":
		script = p.completeBash()
	case "zsh":
		script = p.completeZsh()
	case "fish":
		script = p.completeFish()
	default:
		return fmt.Errorf("there is no completion of %q, only of %s", shell, strings.Join(Shells, ", "))
	}
	_, err := io.WriteString(w, script)
	return err
}

// function returns the name of the shell function that completes the program.
func (p *Program) function() string { return "_" + strings.ReplaceAll(p.Name, "-", "_") }

func (p *Program) completeBash() string {
	var b strings.Builder
	commands := strings.Join(p.names(), " ")
	fmt.Fprintf(&b, `# bash completion of %[1]s, made by '%[1]s completion bash'
%[2]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	if [[ $COMP_CWORD -eq 1 ]]; then
		COMPREPLY=($(compgen -W "%[3]s --help --version" -- "$cur"))
		return
	fi
	case "${COMP_WORDS[1]} $prev" in
`, p.Name, p.function(), commands)
	for _, c := range p.Commands {
		for _, o := range c.options() {
			switch v := o.Value; {
			case v.files:
				fmt.Fprintf(&b, "\t'%s --%s') COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", c.Name, o.Name)
			case v.choices != nil:
				fmt.Fprintf(&b, "\t'%s --%s') words='%s' ;;\n", c.Name, o.Name, strings.Join(v.choices, " "))
			case v.arg != "":
				fmt.Fprintf(&b, "\t'%s --%s') return ;;\n", c.Name, o.Name)
			}
		}
	}
	b.WriteString("\t*) case \"${COMP_WORDS[1]}\" in\n")
	for _, c := range p.Commands {
		var words []string
		words = append(words, c.Args.Choices...)
		for _, o := range c.options() {
			words = append(words, "--"+o.Name)
		}
		fmt.Fprintf(&b, "\t\t%s) words='%s' ;;\n", c.Name, strings.Join(append(words, "--help"), " "))
	}
	fmt.Fprintf(&b, `		help) words='%s' ;;
		esac ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o filenames -F %s %s
`, commands, p.function(), p.Name)
	return b.String()
}

func (p *Program) completeZsh() string {
	var b strings.Builder
	fmt.Fprintf(&b, `#compdef %[1]s
# made by '%[1]s completion zsh'
%[2]s() {
	if (( CURRENT == 2 )); then
		local -a commands=(
`, p.Name, p.function())
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "\t\t\t%s\n", quoteShell(c.Name+":"+c.Summary))
	}
	b.WriteString(`		)
		_describe command commands
		return
	fi
	local command=$words[2]
	shift words; (( CURRENT-- ))
	case $command in
`)
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "\t%s) _arguments", c.Name)
		for _, o := range c.options() {
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell(o.zsh()))
		}
		switch a := c.Args; {
		case a.Choices != nil:
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell("1:argument:("+strings.Join(a.Choices, " ")+")"))
		case a.Directory:
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell("1:directory:_files -/"))
		}
		b.WriteString(" ;;\n")
	}
	fmt.Fprintf(&b, "\tesac\n}\n%s \"$@\"\n", p.function())
	return b.String()
}

// zsh returns the option's specification for _arguments, in which brackets and colons have a meaning.
func (o *Option) zsh() string {
	text := "[" + strings.NewReplacer("[", "(", "]", ")", ":", ";").Replace(brief(o.Help)) + "]"
	spec := "--" + o.Name
	if o.Repeat {
		spec = "*" + spec
	}
	switch v := o.Value; {
	case v.arg == "":
		return spec + text
	case v.files:
		return spec + "=" + text + ":file:_files"
	case v.choices != nil:
		return spec + "=" + text + ":value:(" + strings.Join(v.choices, " ") + ")"
	default:
		return spec + "=" + text + ":" + strings.NewReplacer("[", "", "]", "", ":", " ").Replace(v.arg) + ":"
	}
}

func (p *Program) completeFish() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion of %[1]s, made by '%[1]s completion fish'\ncomplete -c %[1]s -f\n", p.Name)
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -a %s -d %s\n", p.Name, c.Name, quoteFish(c.Summary))
		in := "complete -c " + p.Name + " -n " + quoteFish("__fish_seen_subcommand_from "+c.Name)
		if values := c.Args.Choices; values != nil {
			fmt.Fprintf(&b, "%s -a %s\n", in, quoteFish(strings.Join(values, " ")))
		}
		for _, o := range c.options() {
			fmt.Fprintf(&b, "%s -l %s", in, o.Name)
			switch v := o.Value; {
			case v.files:
				b.WriteString(" -r -F")
			case v.choices != nil:
				b.WriteString(" -x -a " + quoteFish(strings.Join(v.choices, " ")))
			case v.arg != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quoteFish(brief(o.Help)))
		}
	}
	return b.String()
}

// quoteShell puts a string into single quotes, as bash and zsh understand it.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoteFish is the same for fish, where a backslash means something between single quotes as well.
func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// brief returns the first sentence of a help text.
func brief(s string) string {
	s, _, _ = strings.Cut(strings.Join(strings.Fields(s), " "), ". ")
	return strings.TrimSuffix(s, ".")
}
