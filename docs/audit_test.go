// Package docs_test holds the documents for auditors to the code: what they name exists, and what exists is named.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// functions returns "package folder.Name" of each test and fuzz target there is.
func functions(t *testing.T) map[string]bool {
	t.Helper()
	found, err := allFunctions()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var allFunctions = sync.OnceValues(func() (map[string]bool, error) {
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\((?:t|f|m) \*testing\.[TFM]\)`)
	found := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		folder, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declaration.FindAllStringSubmatch(string(text), -1) {
			found[filepath.ToSlash(folder)+"."+m[1]] = true
		}
		return nil
	})
	return found, err
})

var named = regexp.MustCompile("`([a-z0-9/-]+\\.(?:Test|Fuzz)\\w+)`")

func TestNamedTestsExist(t *testing.T) {
	have := functions(t)
	for _, file := range []string{"spec/rules.md", "spec/audit.md"} {
		names := named.FindAllStringSubmatch(read(t, file), -1)
		if len(names) == 0 {
			t.Errorf("%s names no test", file)
		}
		for _, m := range names {
			if !have[m[1]] {
				t.Errorf("%s names %s, which does not exist", file, m[1])
			}
		}
	}
}

// rules is how many rules.md has.
const rules = 69

// Each rule stands there in its place with at least one test, and each TestRuleNN under its rule.
func TestRulesHaveTests(t *testing.T) {
	sections, last := map[int]string{}, 0
	for _, s := range regexp.MustCompile(`(?m)^### `).Split(read(t, "spec/rules.md"), -1)[1:] {
		number, _, _ := strings.Cut(s, ". ")
		n, err := strconv.Atoi(number)
		if err != nil || n <= last {
			t.Fatalf("after rule %d there is %.40q", last, s)
		}
		if !named.MatchString(s) {
			t.Errorf("rule %d names no test", n)
		}
		sections[n], last = s, n
	}
	if len(sections) != rules {
		t.Fatalf("%d rules, want %d", len(sections), rules)
	}
	number := regexp.MustCompile(`\.TestRule(\d+)(?:And(\d+))?`)
	for name := range functions(t) {
		m := number.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		for _, digits := range m[1:] {
			if n, err := strconv.Atoi(digits); err == nil && !strings.Contains(sections[n], "`"+name+"`") {
				t.Errorf("rule %d does not name %s", n, name)
			}
		}
	}
}

func TestFuzzTargetsAreNamed(t *testing.T) {
	text := read(t, "spec/audit.md")
	for name := range functions(t) {
		if strings.Contains(name, ".Fuzz") && !strings.Contains(text, "`"+name+"`") {
			t.Errorf("audit.md does not say what %s is for", name)
		}
	}
}

// requirements returns the version of each module of go.mod.
func requirements(t *testing.T) map[string]string {
	t.Helper()
	modules := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(\S+\.\S+) (v\S+)`).FindAllStringSubmatch(read(t, "../go.mod"), -1) {
		modules[m[1]] = m[2]
	}
	if len(modules) == 0 {
		t.Fatal("go.mod has no module")
	}
	return modules
}

func TestModulesAreNamed(t *testing.T) {
	text := read(t, "spec/audit.md")
	modules := requirements(t)
	for path := range modules {
		if !strings.Contains(text, "\n| `"+path+"` |") {
			t.Errorf("audit.md does not say why %s is there", path)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.]+\\.[a-z]+/\\S+)` \\|").FindAllStringSubmatch(text, -1) {
		if modules[m[1]] == "" {
			t.Errorf("audit.md says why %s is there, which go.mod does not have", m[1])
		}
	}
}

func TestNamedFilesExist(t *testing.T) {
	for _, m := range regexp.MustCompile("`([\\w./-]+\\.(?:go|md|mk|sh|json|pv|pvl))`").FindAllStringSubmatch(read(t, "spec/audit.md"), -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("audit.md names a file that is not there: %v", err)
		}
	}
}

// A walk names each file once, with functions that are there.
func TestWalks(t *testing.T) {
	_, text, found := strings.Cut(read(t, "spec/audit.md"), "\n## One handshake, from accept to the key\n")
	if !found {
		t.Fatal("audit.md has no walk")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	name := regexp.MustCompile("`(\\w+)`")
	seen := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+\\.go)` \\| ([^|]+) \\|").FindAllStringSubmatch(text, -1) {
		file := row[1]
		if seen[file] {
			t.Errorf("%s is named twice", file)
		}
		seen[file] = true
		code := read(t, filepath.Join("..", file))
		for _, m := range name.FindAllStringSubmatch(row[2], -1) {
			if !regexp.MustCompile(`(?m)^func (?:\(.*?\) )?` + m[1] + `[(\[]`).MatchString(code) {
				t.Errorf("%s has no function %s", file, m[1])
			}
		}
	}
	if len(seen) == 0 {
		t.Error("the walk has no row")
	}
}

// The Noise library asks for golang.org/x/crypto of 2021, v0.0.0; what is built in must be a release of our choice.
func TestRule06Crypto(t *testing.T) {
	version := requirements(t)["golang.org/x/crypto"]
	parts := strings.Split(version, ".")
	if len(parts) != 3 || parts[0] != "v0" {
		t.Fatalf("golang.org/x/crypto is at %q", version)
	}
	if minor, err := strconv.Atoi(parts[1]); err != nil || minor < 58 {
		t.Errorf("golang.org/x/crypto is at %s, want v0.58 or later", version)
	}
}
