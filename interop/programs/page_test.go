package programs

import (
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// page is where these tests take what they run from: what is printed there is what was run.
const page = "docs/forwards.md"

// step returns the code below a comment that begins so, in the blocks of the page that are this test's, with what it has for
// examples replaced, old and new by turns.
func step(t testing.TB, comment string, replaced ...string) string {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	// A comment may be given with the beginning of its code, where several begin alike.
	comment, begin, _ := strings.Cut(comment, "\n")
	rest, found := "\n"+strings.Join(testdoc.Blocks(t, page, name), "\n"), true
	for first := true; first || found && !strings.HasPrefix(rest, begin); first = false {
		if _, rest, found = strings.Cut(rest, "\n# "+comment); found {
			_, rest, found = strings.Cut(rest, "\n")
		}
	}
	if !found {
		t.Fatalf("%s has no %q of %s", page, comment, name)
	}
	text, _, _ := strings.Cut(rest, "\n\n")
	text = strings.TrimSuffix(text, "\n") + "\n"
	for i := 0; i < len(replaced); i += 2 {
		if !strings.Contains(text, replaced[i]) {
			t.Fatalf("%s, %q has no %q", page, comment, replaced[i])
		}
		text = strings.ReplaceAll(text, replaced[i], replaced[i+1])
	}
	return text
}
