package main

import (
	"os"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

func completionCommand(p *cli.Program) *cli.Command {
	return &cli.Command{
		Name:    "completion",
		Args:    cli.Args{Text: strings.Join(cli.Shells, "|"), Choices: cli.Shells},
		Summary: "print the completion of a shell",
		About: `
Prints a script that completes commands, flags and their values, made from the same table as --help. The packages
install it.

  source <(shared-altsd completion bash)`,
		Setup: func() ([]cli.Option, func([]string) error) {
			return nil, func(args []string) error {
				if len(args) != 1 || !slices.Contains(cli.Shells, args[0]) {
					return cli.Usagef("give one shell: shared-altsd completion bash, zsh or fish")
				}
				return p.WriteCompletion(os.Stdout, args[0])
			}
		},
	}
}
