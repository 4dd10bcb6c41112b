package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// commands are the lines of a page's blocks of a test, without remarks.
func commands(t *testing.T, page, test string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(strings.Join(testdoc.Blocks(t, page, test), "")) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			found = append(found, line)
		}
	}
	return found
}

const readmeCommands = "TestReadmeCommands"

// README's two commands are run by CI as they stand there, on a machine that has nothing but Go, git and make.
func TestReadmeCommands(t *testing.T) {
	if all := commands(t, "README.md", readmeCommands); len(all) != 2 {
		t.Errorf("README has %q", all)
	}
	for file, want := range map[string]string{"../.ci/run": "\n.ci/fresh\n", "../.ci/fresh": "<!-- test " + readmeCommands + " -->"} {
		if !strings.Contains(read(t, file), want) {
			t.Errorf("%s has no %q", file, want)
		}
	}
}

// CONTRIBUTING's commands are README's, or CI runs them itself.
func TestTargetsRunInCI(t *testing.T) {
	for _, c := range commands(t, "CONTRIBUTING.md", t.Name()) {
		if !slices.Contains(commands(t, "README.md", readmeCommands), c) && !strings.Contains(read(t, "../.ci/run"), "\n"+c+"\n") {
			t.Errorf(".ci/run does not run %q", c)
		}
	}
}

// The targets that the guide for auditors names are there.
func TestTargetsExist(t *testing.T) {
	text := ""
	for _, file := range []string{"Makefile", "deploy/deploy.mk", "interop/interop.mk", "docs/audit.mk"} {
		text += read(t, "../"+file)
	}
	for _, c := range commands(t, "docs/spec/audit.md", t.Name()) {
		target, found := strings.CutPrefix(c, "make ")
		if !found || !regexp.MustCompile(`(?m)^`+target+`:`).MatchString(text) {
			t.Errorf("docs/spec/audit.md has %q, the Makefile has not", c)
		}
	}
}
