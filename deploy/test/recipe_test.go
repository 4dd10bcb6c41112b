//go:build deploy

package deploytest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A recipe is the code that a section of a document prints, by steps. A step is a block of code; in a block whose parts are
// headed by comments, each of these is one, by the words of its comment. A test takes the steps from here, so that what is
// printed is what was run.
type recipe struct {
	section string
	names   []string
	steps   map[string]string
	taken   map[string]bool
}

// readRecipe reads the section with a heading.
func readRecipe(t *testing.T, document, section string) *recipe {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	r := &recipe{section: document + ", " + section, steps: map[string]string{}, taken: map[string]bool{}}
	inside, fresh, name := false, true, "" // fresh: the line before was none of code
	for line := range strings.Lines(string(b)) {
		code, isCode := strings.CutPrefix(line, "    ")
		comment, isComment := strings.CutPrefix(code, "# ")
		switch {
		case strings.HasPrefix(line, "#"):
			inside = strings.TrimSpace(strings.TrimLeft(line, "#")) == section
		case !inside:
		case isCode && fresh && isComment:
			name = strings.TrimSpace(comment)
			r.names = append(r.names, name)
		case isCode && name != "":
			r.steps[name] += code
		case isCode:
			t.Fatalf("%s: no comment heads %s", r.section, code)
		case strings.TrimSpace(line) != "":
			name = ""
		}
		fresh = !isCode
	}
	if len(r.names) == 0 {
		t.Fatalf("%s has no code", r.section)
	}
	return r
}

// whole demands that by the end of the test all steps are taken, unless a part of the test was chosen.
func (r *recipe) whole(t *testing.T) *recipe {
	t.Cleanup(func() {
		if strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
			return
		}
		for _, name := range r.names {
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
