package version

import (
	"strings"
	"testing"
)

// A program that the tests are built into has no commit of its own.
func TestVersion(t *testing.T) {
	if Number() == "" {
		t.Error("no version")
	}
	if line := Line(); !strings.HasPrefix(line, "shared-altsd "+Number()+" (go1.") || !strings.HasSuffix(line, ")") {
		t.Error(line)
	}
	if built := Built(); !built.IsZero() {
		t.Error(built)
	}
}
