package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// The commands of docs/policy.md do what it says, with its first rules, at a daemon that has them.
func TestPolicyDocument(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may deny")
	}
	blocks := testdoc.Blocks(t, "docs/policy.md", t.Name())
	dir, denied := rulesIn(t, blocks[0], "")
	p, ca, _ := one(t, testca.Options{}, testca.Leaf{}, "--policy", dir, "--denied", denied)
	stolen := write(t, filepath.Join(t.TempDir(), "stolen.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"stolen.test"}}).CertPEM)
	ran := 0
	for line := range strings.Lines(strings.Join(blocks[1:], "")) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "shared-altsd" {
			t.Fatalf("no command: %q", line)
		}
		for i, w := range words {
			words[i] = map[string]string{"./policy.d": dir, "stolen.pem": stolen}[w]
			if words[i] == "" {
				words[i] = w
			}
		}
		args := words[1:]
		if args[0] == "deny" {
			args = append(args, "--denied", denied)
		}
		if args[0] == "deny" || !strings.Contains(line, "--policy") {
			args = append(args, "--socket", p.socket)
		}
		code, out, errs := altsd(t, args...)
		t.Logf("%q: %d %s%s", line, code, out, errs)
		if code != 0 {
			t.Errorf("%s: exit status %d: %s%s", line, code, out, errs)
		}
		ran++
	}
	if ran < 8 {
		t.Errorf("%d commands", ran)
	}
}
