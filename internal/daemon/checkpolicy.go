package daemon

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/service"
)

// CheckPolicy writes what the rules in a directory are, and what is denied below another, each "" for none, with what may
// not be as it was meant. An error is a mistake in a file, for which a daemon would take none of them.
func CheckPolicy(w io.Writer, dir, denied string) error {
	p, err := readPolicy(dir, denied)
	if err != nil {
		return err
	}
	rules, lines := p.Count()
	if dir != "" {
		fmt.Fprintf(w, "policy    %d rules, %s, default in %s, default out %s\n", rules, p.Mode(), p.Default(policy.In),
			p.Default(policy.Out))
	}
	if denied != "" {
		fmt.Fprintf(w, "denied    %d lines\n", lines)
	}
	for _, warning := range lintPolicy(p) {
		fmt.Fprintf(w, "warning   %s\n", cli.OneLine(warning))
	}
	return nil
}

// readPolicy reads rules and what is denied, each if there is a directory for it.
func readPolicy(dir, deniedDir string) (*policy.Policy, error) {
	var rules *policy.Rules
	var denied *policy.Denied
	if dir != "" {
		files, err := ReadPolicy(dir)
		if err == nil {
			rules, err = policy.ParseRules(files)
		}
		if err != nil {
			return nil, fmt.Errorf("--policy: %w", err)
		}
	}
	if deniedDir != "" {
		abs, err := filepath.Abs(deniedDir)
		var files *DeniedFiles
		if err == nil {
			files, err = ReadDenied(abs)
		}
		if err == nil && !files.Own && !files.More {
			err = errors.New(deniedDir + " has neither " + DeniedFile + " nor " + DeniedMore + ": nothing is denied there")
		}
		if err == nil {
			denied, err = policy.ParseDenied(files.Files)
		}
		if err != nil {
			return nil, fmt.Errorf("--denied: %w", err)
		}
	}
	return policy.New(denied, rules), nil
}

// lintPolicy returns what of rules and denials may not be as it was meant.
func lintPolicy(p *policy.Policy) (warnings []string) {
	var failed error
	for _, f := range p.Lint(func(g string) bool {
		has, err := service.HasGroup(g)
		if err != nil && failed == nil {
			failed = err
		}
		return has || err != nil
	}) {
		warnings = append(warnings, f.String())
	}
	if failed != nil {
		warnings = append(warnings, "whether all groups exist was not seen: "+failed.Error())
	}
	return warnings
}
