package docs_test

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// pages returns the project's pages, by their paths from its folder.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "dist", "bin"}, d.Name()):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".md"):
			name, err := filepath.Rel("..", path)
			if err != nil {
				return err
			}
			found = append(found, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Each block of code of each page is one that a test takes from there, an example, or says visibly that it was not run.
func TestBlocksAreMarked(t *testing.T) {
	tests, texts := map[string][]string{}, map[string]string{} // the folders by the name, and what stands in the tests of each
	for name := range functions(t) {
		folder, test, _ := strings.Cut(name, ".")
		tests[test] = append(tests[test], folder)
	}
	for _, page := range pages(t) {
		for _, b := range testdoc.Page(t, page) {
			if !b.Marked() {
				t.Errorf("%s:%d: nobody answers for this block: internal/testdoc says how", page, b.Line)
			}
			for _, test := range b.Tests {
				if !slices.ContainsFunc(tests[test], func(folder string) bool {
					return strings.Contains(testsOf(t, texts, folder), strings.TrimPrefix(page, "docs/"))
				}) {
					t.Errorf("%s:%d: no package with a test %s names this page in its tests: %v", page, b.Line, test, tests[test])
				}
			}
		}
	}
}

// testsOf returns the text of the tests of a folder, which is kept.
func testsOf(t *testing.T, texts map[string]string, folder string) string {
	t.Helper()
	if texts[folder] == "" {
		files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			texts[folder] += read(t, file)
		}
	}
	return texts[folder]
}
