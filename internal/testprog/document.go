package testprog

import (
	"os"
	"strings"
	"testing"
)

// Table returns what a document has between the lines "<!-- name -->" and "<!-- end of name -->", or anew after it has put
// that there, if update asks for it.
func Table(t testing.TB, path, name, anew string, update bool) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begins, ends := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	before, rest, ok := strings.Cut(string(text), begins)
	table, after, ended := strings.Cut(rest, ends)
	if !ok || !ended {
		t.Fatalf("%s does not have the lines %q and %q", path, begins, ends)
	}
	if !update {
		return table
	}
	if err := os.WriteFile(path, []byte(before+begins+anew+ends+after), 0o644); err != nil {
		t.Fatal(err)
	}
	return anew
}
