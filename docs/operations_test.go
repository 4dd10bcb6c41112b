package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// texts returns the strings of the program, those that are put together of several counted as one.
func texts(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	var folded func(ast.Expr) string
	folded = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
				return s
			}
		case *ast.BinaryExpr:
			return folded(e.X) + folded(e.Y)
		}
		return "\n"
	}
	files := token.NewFileSet()
	for _, p := range packages(t) {
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BinaryExpr:
					all.WriteString(folded(n) + "\n")
					return n.Op != token.ADD
				case *ast.BasicLit:
					all.WriteString(folded(n) + "\n")
				}
				return true
			})
		}
	}
	return all.String()
}

// foreign are errors of the kernel, of systemd and of gRPC's libraries.
var foreign = map[string]bool{"connect": true, "connection refused": true, "ALTS is only supported on GCP": true,
	"Failed at step CREDENTIALS": true}

// The errors that refusals.md explains by their text are ones that the program has: each part of one between its
// variables stands in a string of the program.
func TestErrorsByText(t *testing.T) {
	program := texts(t)
	_, section, _ := strings.Cut(read(t, "refusals.md"), "\n## Errors by their text\n")
	variable := regexp.MustCompile(`\.\.\.|"[^"]*"|\b(?:N|FILE|DIR|LINE|PATH|HOST|ADDRESS|NAME|65534|5s|the socket)\b|/etc/hosts|` +
		`no such file or directory|permission denied`)
	rows, known := 0, 0
	for _, row := range regexp.MustCompile("(?m)^\\| `.*$").FindAllString(section, -1) {
		text := strings.Split(row, " | ")[0]
		if !strings.Contains(text, " ") || regexp.MustCompile("^\\| (`[a-z_]+`(, )?)+$").MatchString(text) {
			continue // names of reasons
		}
		rows++
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
			for _, part := range variable.Split(m[1], -1) {
				part = strings.Trim(part, " :,(')")
				if len(part) < 4 || foreign[part] || strings.HasPrefix(part, "--") {
					continue
				}
				if known++; !strings.Contains(program, part) {
					t.Errorf("refusals.md explains %q, and the program never says %q", m[1], part)
				}
			}
		}
	}
	if rows < 25 || known < 35 {
		t.Errorf("found only %d rows with %d texts", rows, known)
	}
}

// What README says of an installation by hand is in docs/install.md, whose commands the deployment tests run.
func TestInstallationByHand(t *testing.T) {
	blocks := strings.Join(testdoc.Blocks(t, "README.md", t.Name()), "")
	lines := regexp.MustCompile(`(?m)^([^#\n]*[^# \n])`).FindAllStringSubmatch(blocks, -1)
	if len(lines) < 4 {
		t.Errorf("README has %d lines of code there", len(lines))
	}
	for _, m := range lines {
		if !strings.Contains(read(t, "install.md"), "\n    "+m[1]+"\n") {
			t.Errorf("README has %q, docs/install.md has not", m[1])
		}
	}
}
