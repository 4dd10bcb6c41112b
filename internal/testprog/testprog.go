// Package testprog runs the real program in tests.
package testprog

import (
	"os"
	"testing"
)

// Dir returns a directory, removed when the test ends, that passes rule 23 and is short enough for a socket, whatever
// TMPDIR is.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "altsd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
