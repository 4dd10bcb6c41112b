package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxConfigSize bounds a config file, bytes.
const maxConfigSize = 1 << 20

// parseConfig reads a config file: lines "name = value" with the names of the flags, "#" comments, blank lines. A "#"
// at the start of a line or after white space begins a comment. Every error begins with source:line.
func parseConfig(data []byte, source string) ([]setting, error) {
	if len(data) > maxConfigSize {
		return nil, usagef("%s:1: over %d bytes: this is not a config file", source, maxConfigSize)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var settings []setting
	for i, line := range strings.Split(string(data), "\n") {
		at := fmt.Sprintf("%s:%d: ", source, i+1)
		line = strings.TrimSpace(stripComment(strings.TrimSpace(line)))
		if line == "" {
			continue
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, isControl) {
			return nil, usagef("%scontrol bytes or no UTF-8: this is not a config file", at)
		}
		name, value, found := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found {
			return nil, usagef("%sno '=' in the line: write 'name = value', with a switch 'name = true'", at)
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
func checkSettings(options []option, settings []setting) error {
	for _, s := range settings {
		if s.name == "config" {
			return usagef("%s: a config file cannot name another one: give --config on the command line", s.origin)
		}
		if find(options, s.name) == nil {
			at := strings.TrimSuffix(s.origin, s.name)
			return usagef("%sunknown name %q: %s", at, s.name, suggest(options, "", s.name))
		}
	}
	return resolve(options, settings)
}

// configOption is --config. It is dispatch that reads the file, before the options are set.
func configOption(group string) option {
	return option{name: "config", arg: "FILE", group: group, set: setString(new(string)),
		help: "Read flags of serve from FILE as well: lines 'name = value', '#' comments. The command line wins."}
}

// loadConfig reads the config file that the command line names, if it names one. A config file is one of serve,
// whichever command reads it.
func loadConfig(line []setting) ([]setting, error) {
	for _, s := range line {
		if s.name != "config" || s.value == "" {
			continue
		}
		data, err := readBounded(s.value, maxConfigSize)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		settings, err := parseConfig(data, s.value)
		if err != nil {
			return nil, err
		}
		return settings, checkSettings(new(serveConfig).options(), settings)
	}
	return nil, nil
}
