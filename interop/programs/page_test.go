package programs

import (
	"os"
	"strings"
	"testing"
)

// page has docs/forwards.md, from which these tests take what they run: what is printed there is what was run.
const page = "../../docs/forwards.md"

// step returns the code below a comment that begins so, with what it has for examples replaced, old and new by turns.
func step(t testing.TB, comment string, replaced ...string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	// A comment may be given with the beginning of its code, where several begin alike.
	comment, begin, _ := strings.Cut(comment, "\n")
	rest, found := string(b), true
	for first := true; first || found && !strings.HasPrefix(rest, begin); first = false {
		if _, rest, found = strings.Cut(rest, "\n    # "+comment); found {
			_, rest, found = strings.Cut(rest, "\n")
		}
	}
	if !found {
		t.Fatalf("%s has no %q", page, comment)
	}
	var code strings.Builder
	for line := range strings.Lines(rest) {
		line, found := strings.CutPrefix(line, "    ")
		if !found {
			break
		}
		code.WriteString(line)
	}
	text := code.String()
	for i := 0; i < len(replaced); i += 2 {
		if !strings.Contains(text, replaced[i]) {
			t.Fatalf("%s, %q has no %q", page, comment, replaced[i])
		}
		text = strings.ReplaceAll(text, replaced[i], replaced[i+1])
	}
	return text
}
