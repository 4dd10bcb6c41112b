package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

var completionCommand = &command{
	name:    "completion",
	args:    "bash|zsh|fish",
	summary: "print the completion of a shell",
	about: `
Prints a script that completes commands, flags and their values, made from the same table as --help. The packages
install it.

  source <(shared-altsd completion bash)`,
	setup: func() ([]option, func([]string) error) {
		return nil, func(args []string) error {
			switch strings.Join(args, " ") {
			case "bash":
				return completeBash(os.Stdout)
			case "zsh":
				return completeZsh(os.Stdout)
			case "fish":
				return completeFish(os.Stdout)
			}
			return usagef("give one shell: shared-altsd completion bash, zsh or fish")
		}
	},
}

// choices gives the values that an option can have, nil if they are not a list; files is true if it takes a file.
func (o *option) choices() (values []string, files bool) {
	switch {
	case o.arg == "FILE", o.arg == "[NAMES=]FILE", o.arg == "PATH", strings.HasPrefix(o.arg, "PATH["):
		return nil, true
	case o.name == "log-level":
		return []string{"debug", "info", "warn", "error"}, false
	case o.name == "log-format":
		return []string{"text", "json"}, false
	case strings.Contains(o.arg, "|"):
		return strings.Split(o.arg, "|"), false
	}
	return nil, false
}

func completeBash(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# bash completion of shared-altsd, made by 'shared-altsd completion bash'
_shared_altsd() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	if [[ $COMP_CWORD -eq 1 ]]; then
		COMPREPLY=($(compgen -W "` + strings.Join(commandList(), " ") + ` --help --version" -- "$cur"))
		return
	fi
	case "${COMP_WORDS[1]} $prev" in
`)
	for _, c := range commands {
		options, _ := c.setup()
		for _, o := range options {
			values, files := o.choices()
			switch {
			case files:
				fmt.Fprintf(&b, "\t'%s --%s') COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", c.name, o.name)
			case values != nil:
				fmt.Fprintf(&b, "\t'%s --%s') words='%s' ;;\n", c.name, o.name, strings.Join(values, " "))
			case o.arg != "":
				fmt.Fprintf(&b, "\t'%s --%s') return ;;\n", c.name, o.name)
			}
		}
	}
	b.WriteString("\t*) case \"${COMP_WORDS[1]}\" in\n")
	for _, c := range commands {
		words := c.positional()
		options, _ := c.setup()
		for _, o := range options {
			words = append(words, "--"+o.name)
		}
		fmt.Fprintf(&b, "\t\t%s) words='%s' ;;\n", c.name, strings.Join(append(words, "--help"), " "))
	}
	b.WriteString(`		help) words='` + strings.Join(commandList(), " ") + `' ;;
		esac ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o filenames -F _shared_altsd shared-altsd
`)
	_, err := io.WriteString(w, b.String())
	return err
}

// quoteShell puts a string into single quotes, as bash and zsh understand it.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoteFish is the same for fish, where a backslash means something between single quotes as well.
func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// brief is the first sentence of a help text.
func brief(s string) string {
	s, _, _ = strings.Cut(strings.Join(strings.Fields(s), " "), ". ")
	return strings.TrimSuffix(s, ".")
}

func completeZsh(w io.Writer) error {
	var b strings.Builder
	b.WriteString("#compdef shared-altsd\n# made by 'shared-altsd completion zsh'\n_shared_altsd() {\n\tif (( CURRENT == 2 )); then\n\t\tlocal -a commands=(\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\t\t\t%s\n", quoteShell(c.name+":"+c.summary))
	}
	b.WriteString("\t\t)\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tlocal command=$words[2]\n\tshift words; (( CURRENT-- ))\n\tcase $command in\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\t%s) _arguments", c.name)
		options, _ := c.setup()
		for _, o := range options {
			// In a specification of _arguments, brackets and colons have a meaning.
			text := strings.NewReplacer("[", "(", "]", ")", ":", ";").Replace(brief(o.help))
			spec := "--" + o.name
			if o.repeat {
				spec = "*" + spec
			}
			values, files := o.choices()
			switch {
			case o.arg == "":
				spec += "[" + text + "]"
			case files:
				spec += "=[" + text + "]:file:_files"
			case values != nil:
				spec += "=[" + text + "]:value:(" + strings.Join(values, " ") + ")"
			default:
				spec += "=[" + text + "]:" + strings.NewReplacer("[", "", "]", "", ":", " ").Replace(o.arg) + ":"
			}
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell(spec))
		}
		if values := c.positional(); values != nil {
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell("1:argument:("+strings.Join(values, " ")+")"))
		} else if strings.Contains(c.args, "DIR") {
			fmt.Fprintf(&b, " \\\n\t\t%s", quoteShell("1:directory:_files -/"))
		}
		b.WriteString(" ;;\n")
	}
	b.WriteString("\tesac\n}\n_shared_altsd \"$@\"\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func completeFish(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# fish completion of shared-altsd, made by 'shared-altsd completion fish'\ncomplete -c shared-altsd -f\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c shared-altsd -n __fish_use_subcommand -a %s -d %s\n", c.name, quoteFish(c.summary))
		in := quoteFish("__fish_seen_subcommand_from " + c.name)
		if values := c.positional(); values != nil {
			fmt.Fprintf(&b, "complete -c shared-altsd -n %s -a %s\n", in, quoteFish(strings.Join(values, " ")))
		}
		options, _ := c.setup()
		for _, o := range options {
			fmt.Fprintf(&b, "complete -c shared-altsd -n %s -l %s", in, o.name)
			values, files := o.choices()
			switch {
			case files:
				b.WriteString(" -r -F")
			case values != nil:
				b.WriteString(" -x -a " + quoteFish(strings.Join(values, " ")))
			case o.arg != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quoteFish(brief(o.help)))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// positional gives the values that the command's only argument can have, nil if they are not a list.
func (c *command) positional() []string {
	if args := strings.Trim(c.args, "[]"); strings.Contains(args, "|") && !strings.Contains(args, " ") {
		return strings.Split(args, "|")
	}
	return nil
}

func commandList() []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}
