package policy

import (
	"os"
	"strings"
	"testing"
)

// The rules of docs/policy.md are read as they stand there, and none of them is in vain.
func TestDocumentedRules(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for block := range strings.SplitSeq(string(text), "\n\n") {
		var lines []string
		for line := range strings.Lines(block) {
			line, code := strings.CutPrefix(line, "    ")
			if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); code && (isStatement(word) || strings.HasPrefix(word, "#")) {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			continue
		}
		blocks++
		r, err := ParseRules(files(strings.Join(lines, "")))
		if err != nil {
			t.Errorf("%s\n%v", block, err)
			continue
		}
		for _, f := range New(nil, r).Lint(nil) {
			if strings.Contains(f.Text, "never reached") {
				t.Errorf("%s\n%v", block, f)
			}
		}
	}
	if blocks < 3 {
		t.Errorf("%d blocks of rules", blocks)
	}
	// What stands in tables and text as code, where it is a rule or a condition.
	for i, code := range strings.Split(string(text), "`") {
		word, rest, _ := strings.Cut(code, " ")
		switch {
		case i%2 == 0:
		case isStatement(word) && rest != "":
			if _, err := ParseRules(files(code)); err != nil {
				t.Error(err)
			}
		case strings.HasPrefix(code, "service=") || strings.HasPrefix(code, "eku=") || strings.HasPrefix(code, "ca=") ||
			strings.HasPrefix(code, "key=") || strings.HasPrefix(code, "cert="):
			code = strings.ReplaceAll(code, "...", strings.Repeat("0", 58))
			if _, err := ParseDenied(files("deny any * *@* " + code)); err != nil && !strings.HasSuffix(code, "=") {
				t.Error(err)
			}
		}
	}
}
