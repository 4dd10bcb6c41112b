package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What pages name of the Go library and of the header for C++ is there.
func TestNamesOfLibraries(t *testing.T) {
	exported := map[string]bool{}
	for _, name := range packages(t)["altscreds"].GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../altscreds", name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				exported[n.Name.Name] = true
			case *ast.TypeSpec:
				exported[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					exported[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					exported[name.Name] = true
				}
			}
			return true
		})
	}
	header := read(t, "../clients/cpp/shared_altsd.h")
	found := 0
	for _, page := range pages(t) {
		text := read(t, filepath.Join("..", page))
		for _, m := range regexp.MustCompile(`\baltscreds\.([A-Z]\w*)`).FindAllStringSubmatch(text, -1) {
			if found++; !exported[m[1]] && !strings.HasPrefix(m[1], "Test") && !strings.HasPrefix(m[1], "Fuzz") {
				t.Errorf("%s names altscreds.%s, which is not there", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`\bshared_altsd::(\w+)`).FindAllStringSubmatch(text, -1) {
			if found++; !strings.Contains(header, " "+m[1]+"(") {
				t.Errorf("%s names shared_altsd::%s, which is not there", page, m[1])
			}
		}
		// The fields of options, as they are written in the examples.
		for _, block := range regexp.MustCompile("(?s)```go\n.*?```").FindAllString(text, -1) {
			for _, m := range regexp.MustCompile(`(?m)^\t([A-Z]\w*):`).FindAllStringSubmatch(block, -1) {
				if found++; !exported[m[1]] {
					t.Errorf("%s has a field %s, which altscreds has not", page, m[1])
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d names were found", found)
	}
}
