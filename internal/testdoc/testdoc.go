// Package testdoc takes the blocks of code out of the project's pages, for tests that run what is printed there.
//
// Above each block stands who answers for it: a hidden line <!-- test TestName -->, with one or more names of tests that take
// the block from the page; a hidden line <!-- example --> for what is no command, such as an output or a diagram; or a visible
// line *Not run by a test: REASON.*
package testdoc

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A Block is one block of code of a page, with the mark above it.
type Block struct {
	Line     int    // of its first line of code
	Section  string // the heading above it
	Text     string // without what indents or fences it
	Language string // that a fence names
	Tests    []string
	Example  bool
	NotRun   string // the reason
}

// Marked reports whether somebody answers for the block.
func (b Block) Marked() bool { return len(b.Tests) > 0 || b.Example || b.NotRun != "" }

// Root returns the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		t.Fatal("no go.mod above the test's folder")
	}
}

// Page returns the blocks of a page, whose path begins at the repository's folder.
func Page(t testing.TB, page string) []Block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	return blocks
}

// Blocks returns the code of the blocks of a page that are a test's, in their order. There has to be one.
func Blocks(t testing.TB, page, test string) []string {
	t.Helper()
	var texts []string
	for _, b := range Page(t, page) {
		if slices.Contains(b.Tests, test) {
			texts = append(texts, b.Text)
		}
	}
	if len(texts) == 0 {
		t.Fatalf("%s has no block of %s: write <!-- test %s --> above it", page, test, test)
	}
	return texts
}

var (
	hidden  = regexp.MustCompile(`^<!-- (?:(example)|test((?: Test\w+)+)) -->$`)
	visible = regexp.MustCompile(`(?s)^\*Not run by a test: (.+)\.\*$`)
	fence   = regexp.MustCompile("^ {0,3}(```+)\\s*(\\S*)\\s*$")
	heading = regexp.MustCompile(`^#+ +(.*?)\s*$`)
)

const indent = "    "

// Parse returns the blocks of code of a text in Markdown. A block is fenced by ```, or indented by four spaces behind a blank
// line, a heading or a mark; blank lines between indented ones are part of it.
func Parse(text string) ([]Block, error) {
	var blocks []Block
	var above []string // the last lines that were no code, back to a blank one
	section, blank := "", true
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch m := fence.FindStringSubmatch(line); {
		case m != nil:
			b := Block{Line: i + 2, Section: section, Language: m[2]}
			end := slices.IndexFunc(lines[i+1:], func(l string) bool { return strings.TrimSpace(l) == m[1] })
			if end < 0 {
				return nil, fmt.Errorf("line %d: a fence without an end", i+1)
			}
			b.Text = strings.Join(lines[i+1:i+1+end], "\n") + "\n"
			b.mark(above)
			blocks, above, blank = append(blocks, b), nil, true
			i += end + 1
		case strings.HasPrefix(line, indent) && strings.TrimSpace(line) != "" && blank:
			b := Block{Line: i + 1, Section: section}
			end := i + 1
			for j := i; j < len(lines) && (strings.HasPrefix(lines[j], indent) || strings.TrimSpace(lines[j]) == ""); j++ {
				if strings.TrimSpace(lines[j]) != "" {
					end = j + 1
				}
			}
			for _, l := range lines[i:end] {
				b.Text += strings.TrimPrefix(l, indent) + "\n"
			}
			b.mark(above)
			blocks, above, blank = append(blocks, b), nil, true
			i = end - 1
		case strings.TrimSpace(line) == "":
			blank = true
		default:
			if blank {
				above = nil
			}
			above, blank = append(above, line), hidden.MatchString(line)
			if m := heading.FindStringSubmatch(line); m != nil {
				section, above, blank = m[1], nil, true
			}
		}
	}
	return blocks, nil
}

// mark takes the mark from the lines above a block.
func (b *Block) mark(above []string) {
	if len(above) == 0 {
		return
	}
	if m := hidden.FindStringSubmatch(above[len(above)-1]); m != nil {
		if b.Example = m[1] != ""; !b.Example {
			b.Tests = strings.Fields(m[2])
		}
	} else if m := visible.FindStringSubmatch(strings.Join(above, "\n")); m != nil {
		b.NotRun = m[1]
	}
}
