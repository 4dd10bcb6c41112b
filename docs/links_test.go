package docs_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fenced   = regexp.MustCompile("(?ms)^```.*?^```")
	indented = regexp.MustCompile(`(?m)^    .*$`)
	quoted   = regexp.MustCompile("`[^`\n]*`")
	link     = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	linked   = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	unnamed  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	anchor   = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
)

// linksOf returns where a page's links lead, without those to other sites: a page has them outside of code.
func linksOf(t *testing.T, page string) []string {
	t.Helper()
	text := fenced.ReplaceAllString(read(t, filepath.Join("..", page)), "")
	text = quoted.ReplaceAllString(indented.ReplaceAllString(text, ""), "`x`")
	var found []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
			found = append(found, m[1])
		}
	}
	return found
}

// anchors returns what a page's headings are called in links, as forges make it of them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	text = fenced.ReplaceAllString(text, "")
	for _, m := range headings.FindAllStringSubmatch(text, -1) {
		name := unnamed.ReplaceAllString(strings.ToLower(linked.ReplaceAllString(m[1], "$1")), "")
		found[strings.ReplaceAll(strings.TrimSpace(name), " ", "-")] = true
	}
	for _, m := range anchor.FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return found
}

// Each link of a page leads to a file that is there, and to a heading of it.
func TestLinks(t *testing.T) {
	links, names := 0, map[string]map[string]bool{}
	for _, page := range pages(t) {
		for _, to := range linksOf(t, page) {
			links++
			file, name, _ := strings.Cut(to, "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil || strings.HasPrefix(target, "..") {
				t.Errorf("%s: the link %s leads to nothing", page, to)
				continue
			}
			if name == "" {
				continue
			}
			if names[target] == nil {
				names[target] = anchors(read(t, filepath.Join("..", target)))
			}
			if !names[target][name] {
				t.Errorf("%s: the link %s leads to no heading of %s", page, to, target)
			}
		}
	}
	if links < 150 {
		t.Errorf("only %d links were found", links)
	}
}

// glob returns the files of a pattern, of which there has to be one.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Errorf("%s: no file: %v", pattern, err)
	}
	return files
}

// packaged returns, of the source tree, which files the daemon's package has among its documents: there the same tree begins at
// /usr/share/doc/shared-altsd.
func packaged(t *testing.T) map[string]bool {
	t.Helper()
	const place = "/usr/share/doc/shared-altsd/"
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  - src: (\S+)\n    dst: (\S+)$`).FindAllStringSubmatch(read(t, "../deploy/packages/nfpm.yaml"), -1) {
		to, ours := strings.CutPrefix(m[2], place)
		if !ours || to == "copyright" {
			continue
		}
		for _, file := range glob(t, filepath.Join("..", m[1])) {
			file = strings.TrimPrefix(filepath.ToSlash(file), "../")
			name := to
			if strings.HasSuffix(to, "/") {
				name += path.Base(file)
			}
			if name != file {
				t.Errorf("%s of the source tree is %s%s in the package, and links to it lead to nothing there", file, place, name)
			}
			found[file] = true
		}
	}
	return found
}

// Each link of a page that the package has leads to a file that it has too.
func TestLinksInPackage(t *testing.T) {
	have := packaged(t)
	for _, page := range pages(t) {
		if !have[page] {
			if strings.HasPrefix(page, "docs/") {
				t.Errorf("the package does not have %s", page)
			}
			continue
		}
		for _, to := range linksOf(t, page) {
			file, _, _ := strings.Cut(to, "#")
			if target := path.Join(path.Dir(page), file); file != "" && !have[target] {
				t.Errorf("%s links to %s, which the package does not have", page, target)
			}
		}
	}
}

var sourcePath = regexp.MustCompile("`((?:deploy|docs|interop|internal|cmd|service|certbind|noiseproto|altscreds|clients|\\.ci)/[\\w./@-]+)`")

// Each file of the source tree that a page names is there. Those of the examples, which an administrator copies, are in the
// package as well.
func TestPathsInPages(t *testing.T) {
	var sources []string // of what the packages have, wherever
	for _, file := range glob(t, "../deploy/packages/*.yaml") {
		for _, m := range regexp.MustCompile(`(?m)^  - src: (\S+)$`).FindAllStringSubmatch(read(t, file), -1) {
			sources = append(sources, m[1])
		}
	}
	inPackage := func(name string) bool {
		name = strings.TrimSuffix(name, "/")
		return slices.ContainsFunc(sources, func(source string) bool {
			matches, err := path.Match(source, name)
			return err == nil && matches || strings.HasPrefix(source, name+"/")
		})
	}
	paths := 0
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" {
			continue // of what was
		}
		manual := strings.HasPrefix(page, "docs/") && !strings.HasPrefix(page, "docs/spec/")
		for _, m := range sourcePath.FindAllStringSubmatch(read(t, filepath.Join("..", page)), -1) {
			paths++
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil && !functionOrField(m[1]) {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
			if manual && (strings.HasPrefix(m[1], "deploy/") || strings.HasPrefix(m[1], "docs/")) && !inPackage(m[1]) {
				t.Errorf("%s names %s, which no package has", page, m[1])
			}
		}
	}
	if paths < 100 {
		t.Errorf("only %d paths were found", paths)
	}
}

// functionOrField reports whether a path is one of a package with a name behind it, as in internal/x.TestName.
func functionOrField(name string) bool {
	folder, _, found := strings.Cut(path.Base(name), ".")
	_, err := os.Stat(filepath.Join("..", path.Dir(name), folder))
	return found && err == nil
}

// What units, scripts, messages and pages name below /usr/share/doc/shared-altsd is there.
func TestPathsOfDocuments(t *testing.T) {
	have := packaged(t)
	place := regexp.MustCompile(`/usr/share/doc/shared-altsd/([\w./@-]*\w)`)
	found := 0
	for _, folder := range []string{"../deploy", "../cmd", "../internal", "../docs"} {
		err := filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(file, "_test.go") {
				return err
			}
			for _, m := range place.FindAllStringSubmatch(read(t, file), -1) {
				if filepath.Base(file) == "nfpm.yaml" {
					continue // which puts them there
				}
				if found++; !have[m[1]] {
					t.Errorf("%s names %s, and the package has no such file", strings.TrimPrefix(file, "../"), m[0])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 5 {
		t.Errorf("only %d paths were found", found)
	}
}

// A reader who begins at README gets to each page by links.
func TestPagesAreReached(t *testing.T) {
	reached := map[string]bool{}
	var follow func(page string)
	follow = func(page string) {
		if reached[page] {
			return
		}
		reached[page] = true
		for _, to := range linksOf(t, page) {
			if file, _, _ := strings.Cut(to, "#"); strings.HasSuffix(file, ".md") {
				follow(path.Join(path.Dir(page), file))
			}
		}
	}
	follow("README.md")
	for _, page := range pages(t) {
		if strings.HasPrefix(page, "docs/") && !reached[page] {
			t.Errorf("no link leads to %s from README", page)
		}
	}
}
