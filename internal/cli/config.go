package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxConfigSize bounds a config file, bytes.
const maxConfigSize = 1 << 20

// A ConfigFile is what --config FILE of a command reads: lines that set options of a table. The command line wins.
type ConfigFile struct {
	Group, Help string // of --config
	// Options returns the table, which may have more options than the command: a file is one of the program's, and is
	// refused for any mistake in it, whichever command reads it.
	Options func() []Option
	// Read reads a file of at most max bytes.
	Read func(path string, max int64) ([]byte, error)
	// More reads the files that belong to the one at path, in their order, of at most max bytes together. nil: there are none.
	More func(path string, max int64) ([]Part, error)
	// Default says what is read where the command line names no file; it is told which options that sets. nil: nothing.
	Default func(given func(name string) bool) *Defaults
}

// Defaults are a config file that nobody named, and values of options that neither it nor the command line sets.
type Defaults struct {
	Path   string
	Values map[string]string
	Note   string // one line, which is printed first
}

// defaults returns those of a command line, nil for none.
func (f *ConfigFile) defaults(path string, line []setting) *Defaults {
	if f == nil || f.Default == nil || path != "" {
		return nil
	}
	return f.Default(func(name string) bool {
		return slices.ContainsFunc(line, func(s setting) bool { return s.name == name })
	})
}

// settings returns the values as settings.
func (d *Defaults) settings() (settings []setting) {
	for name, value := range d.Values {
		settings = append(settings, setting{name, value, "--" + name})
	}
	return settings
}

// option returns --config, as a table that is empty for a command without a file.
func (f *ConfigFile) option(path *string) []Option {
	if f == nil {
		return nil
	}
	return []Option{{Name: "config", Group: f.Group, Help: f.Help, Value: File(path)}}
}

// settings returns what the file at path says, nothing for no path.
func (f *ConfigFile) settings(path string) ([]setting, error) {
	if path == "" {
		return nil, nil
	}
	data, err := f.Read(path, maxConfigSize)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	settings, err := parseConfig(data, path)
	if err != nil {
		return nil, err
	}
	if err := checkSettings(f.Options(), settings); err != nil || f.More == nil {
		return settings, err
	}
	parts, err := f.More(path, maxConfigSize)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	for _, p := range parts {
		if settings, err = f.add(settings, p); err != nil {
			return nil, err
		}
	}
	return settings, resolve(f.Options(), settings) // what is good in each may not be so together
}

// parseConfig reads a config file: lines "name = value" with the names of the flags, "#" comments, blank lines. A "#"
// at the start of a line or after white space begins a comment. Every error begins with source:line.
func parseConfig(data []byte, source string) ([]setting, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var settings []setting
	for i, line := range strings.Split(string(data), "\n") {
		at := fmt.Sprintf("%s:%d: ", source, i+1)
		line = strings.TrimSpace(stripComment(strings.TrimSpace(line)))
		if line == "" {
			continue
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, isControl) {
			return nil, Usagef("%scontrol bytes or no UTF-8: this is not a config file", at)
		}
		name, value, found := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found {
			return nil, Usagef("%sno '=' in the line: write 'name = value', with a switch 'name = true'", at)
		}
		settings = append(settings, setting{name, value, at + name})
	}
	return settings, nil
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func stripComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

// checkSettings refuses names that options does not have, and any value that its option does not take, also one that
// the command line overrides: a file with a mistake in it would fail at the next start without that flag.
func checkSettings(options []Option, settings []setting) error {
	for _, s := range settings {
		if s.name == "config" {
			return Usagef("%s: a config file cannot name another one: give --config on the command line", s.origin)
		}
		if find(options, s.name) == nil {
			at := strings.TrimSuffix(s.origin, s.name)
			return Usagef("%sunknown name %q: %s", at, s.name, suggest(options, "", s.name))
		}
	}
	return resolve(options, settings)
}
