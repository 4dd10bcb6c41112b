//go:build deploy

package deploytest

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// A recipe is the code that a section of a document prints, by steps. A step is a block of code; in a block whose parts are
// headed by comments, each of these is one, by the words of its comment. A test takes the steps from here, so that what is
// printed is what was run.
type recipe struct {
	section string
	names   []string
	steps   map[string]string
	taken   map[string]bool
	tests   map[string][]string // whose the step's block is
}

// readRecipe reads the blocks of the section with a heading that are marked as some test's.
func readRecipe(t *testing.T, document, section string) *recipe {
	t.Helper()
	r := &recipe{section: document + ", " + section, steps: map[string]string{}, taken: map[string]bool{}, tests: map[string][]string{}}
	for _, b := range testdoc.Page(t, document) {
		if b.Section != section || len(b.Tests) == 0 {
			continue
		}
		fresh, name := true, "" // fresh: the line before was none of code
		for line := range strings.Lines(b.Text) {
			comment, isComment := strings.CutPrefix(line, "# ")
			switch {
			case fresh && isComment:
				name = strings.TrimSpace(comment)
				r.names, r.tests[name] = append(r.names, name), b.Tests
			case name == "":
				t.Fatalf("%s: no comment heads %s", r.section, line)
			default:
				r.steps[name] += line
			}
			fresh = strings.TrimSpace(line) == ""
		}
	}
	if len(r.names) == 0 {
		t.Fatalf("%s has no code that a test takes", r.section)
	}
	return r
}

// whole demands that by the end of the test all steps are taken that are this test's, unless a part of the test was chosen.
func (r *recipe) whole(t *testing.T) *recipe {
	test, _, _ := strings.Cut(t.Name(), "/")
	ours := slices.DeleteFunc(slices.Clone(r.names), func(name string) bool { return !slices.Contains(r.tests[name], test) })
	if len(ours) == 0 {
		t.Fatalf("%s has nothing of %s", r.section, test)
	}
	t.Cleanup(func() {
		if strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
			return
		}
		for _, name := range ours {
			if !r.taken[name] && !t.Failed() {
				t.Errorf("%s: no test takes %q", r.section, name)
			}
		}
	})
	return r
}

// step returns the code of the step whose comment begins so, with what it has for examples replaced, old and new by turns.
func (r *recipe) step(t *testing.T, name string, replaced ...string) string {
	t.Helper()
	for _, n := range r.names {
		if !strings.HasPrefix(n, name) {
			continue
		}
		r.taken[n] = true
		code := r.steps[n]
		for i := 0; i < len(replaced); i += 2 {
			if !strings.Contains(code, replaced[i]) {
				t.Fatalf("%s, %q has no %q", r.section, n, replaced[i])
			}
			code = strings.ReplaceAll(code, replaced[i], replaced[i+1])
		}
		return code
	}
	t.Fatalf("%s has no step %q: %q", r.section, name, r.names)
	return ""
}
