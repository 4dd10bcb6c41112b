package versions

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// listed returns what testdata/gone has of one kind, with the reasons.
func listed(t *testing.T, kind string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/gone")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if rest, ours := strings.CutPrefix(strings.TrimSpace(line), kind+" "); ours {
			name, reason, _ := strings.Cut(rest, ": ")
			if reason == "" {
				t.Errorf("testdata/gone: %q has no reason", line)
			}
			names[name] = reason
		}
	}
	return names
}

// gone reports what is gone on purpose of one kind, and has the test fail at its end for what is listed there and is not gone, or is
// not in CHANGELOG.
func gone(t *testing.T, kind string) func(name string) bool {
	t.Helper()
	changelog, err := os.ReadFile(root + "/CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	names, used := listed(t, kind), map[string]bool{}
	for name := range names {
		word := name
		switch kind {
		case "metric", "label": // a histogram's name is that of the family
			word = regexp.MustCompile(`(_bucket|_sum|_count)$`).ReplaceAllString(strings.Fields(name)[0], "")
		case "option":
			_, word, _ = strings.Cut(name, " ")
		case "field":
			word = name[strings.LastIndex(name, `"`)+2:]
		}
		if !strings.Contains(string(changelog), word) {
			t.Errorf("%s %s is gone, and CHANGELOG does not name %s", kind, name, word)
		}
	}
	t.Cleanup(func() {
		for name := range names {
			if !used[name] {
				t.Errorf("%s %s is not gone: strike it from testdata/gone", kind, name)
			}
		}
	})
	return func(name string) bool {
		used[name] = true
		return names[name] != ""
	}
}
