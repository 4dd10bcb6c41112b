package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// document reads a file of the work tree.
func document(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Each command of ours that documents, units and the help print is one that there is, with flags that it has.
func TestCommandsOfDocuments(t *testing.T) {
	texts := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/clients/*.md", "docs/spec/*.md", "deploy/systemd/*", "deploy/systemd-user/*"} {
		paths, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			path, _ = filepath.Rel("../..", path)
			text := document(t, path)
			if strings.HasSuffix(path, ".md") { // code alone: the rest is prose
				text = strings.Join(regexp.MustCompile("(?m)^    .*$|`[^`]+`").FindAllString(strings.ReplaceAll(text, "\\\n", ""), -1), "\n")
			}
			texts[path] = text
		}
	}
	commands := newProgram().Commands
	for _, c := range commands {
		texts["the help of "+c.Name] = strings.Join(regexp.MustCompile(`(?m)^  .*$`).FindAllString(c.About, -1), "\n")
	}
	// As a command: at the start of a line or of a quotation, after a path, sudo, an operator or another command's "--".
	ours := regexp.MustCompile("(?m)(?:^ *|`|bin/|sudo |-- |[;&(] ?)shared-altsd ([a-z][a-z-]*)([^\n`#|;&]*)")
	seen, flags := map[string]bool{}, 0
	for from, text := range texts {
		for _, m := range ours.FindAllStringSubmatch(text, -1) {
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == m[1] })
			if i < 0 {
				if m[1] != "version" && m[1] != "starts" { // which is an event of the log
					t.Errorf("%s: no command %q: %s", from, m[1], m[0])
				}
				continue
			}
			seen[m[1]] = true
			arguments, _, _ := strings.Cut(m[2], " -- ")
			for _, flag := range regexp.MustCompile(`--([a-z][a-z-]*)`).FindAllStringSubmatch(arguments, -1) {
				flags++
				if flag[1] != "help" && !slices.ContainsFunc(allOptions(commands[i]), func(o cli.Option) bool { return o.Name == flag[1] }) {
					t.Errorf("%s: %s has no --%s: %s", from, m[1], flag[1], m[0])
				}
			}
		}
	}
	if len(seen) < 8 || flags < 25 {
		t.Errorf("found only %d flags of %v", flags, seen)
	}
}

// The config files that documents print and the packages have, the lines that are comments there included, are ones that
// serve reads.
func TestConfigFilesOfDocuments(t *testing.T) {
	block := func(path, first, end string) string {
		_, rest, _ := strings.Cut(document(t, path), first)
		text, _, found := strings.Cut(rest, end)
		if !found || !strings.Contains(text, "ca ") {
			t.Fatalf("%s has no config file after %q", path, first)
		}
		return text
	}
	for name, text := range map[string]string{
		"operate.md":    block("docs/operate.md", "    # /etc/shared-altsd/shared-altsd.conf\n", "\n\n"),
		"install.md":    block("docs/install.md", "cat >shared-altsd.conf <<'END'\n", "    END\n"),
		"the packages'": regexp.MustCompile(`(?m)^# ([a-z-]+ = )`).ReplaceAllString(document(t, "deploy/systemd/shared-altsd.conf"), "$1"),
	} {
		path := filepath.Join(t.TempDir(), "conf")
		write(t, path, []byte(text))
		code, _, said := altsd(t, "serve", "--config", path, "--credentials", "/nowhere/machine.pem")
		if code != 1 || !strings.Contains(said, "/nowhere: no such file") {
			t.Errorf("%s: exit status %d: %s", name, code, said)
		}
	}
	// A drop-in, which takes the place of the packaged CA.
	path := filepath.Join(t.TempDir(), "conf.d", "50-site.conf")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path, []byte(block("docs/operate.md", "in the place of the packaged ca = /etc/shared-altsd/ca.pem\n", "\n\n")))
	main := write(t, filepath.Join(filepath.Dir(path), "../shared-altsd.conf"), []byte(document(t, "deploy/systemd/shared-altsd.conf")))
	code, _, said := altsd(t, "fetch-crl", "--config", main, "--into", t.TempDir())
	if code != 1 || !strings.Contains(said, "/etc/shared-altsd/hpc-ca.pem") {
		t.Errorf("the drop-in of operate.md: exit status %d: %s", code, said)
	}
}
