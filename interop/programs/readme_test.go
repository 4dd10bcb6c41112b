package programs

import (
	"regexp"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// The first lines of README are what the accounts of two machines see who type them.
func TestReadme(t *testing.T) {
	w := theWorld(t)
	prompt := regexp.MustCompile(`^(\w+)@(\w+):~\$ (.*)$`)
	lines := strings.Split(strings.TrimSuffix(testdoc.Blocks(t, "README.md", t.Name())[0], "\n"), "\n")
	commands := 0
	for i := 0; i < len(lines); {
		m := prompt.FindStringSubmatch(lines[i])
		if m == nil {
			t.Fatalf("%q is no command", lines[i])
		}
		i, commands = i+1, commands+1
		machine := w.alpha
		if m[2] == "beta" {
			machine = w.beta
		}
		who := machine.account(m[1])
		if command, behind := strings.CutSuffix(m[3], " &"); behind {
			machine.serve(t, machine.command(who, "sh", "-c", "exec "+command))
			machine.waitPort(t, 7000)
			continue
		}
		o := machine.run(t, who, "sh", "-c", m[3])
		said := strings.Split(strings.TrimSuffix(o.stdout+o.stderr, "\n"), "\n")
		for _, line := range said {
			if i == len(lines) || prompt.MatchString(lines[i]) {
				t.Fatalf("%s says more than README: %q", m[3], line)
			}
			want := strings.ReplaceAll(regexp.QuoteMeta(lines[i]), `\.\.\.`, ".*")
			if !regexp.MustCompile("^" + want + "$").MatchString(line) {
				t.Errorf("%s says\n%s\nin README\n%s", m[3], line, lines[i])
			}
			i++
		}
	}
	// What docs/forwards.md has, here with an echo at the other end.
	w.beta.forward(t, w.beta.account("bob"), "--listen", ":7001", "--allow", "alice@alpha.example.com", "--", "cat")
	line := testdoc.Blocks(t, page, t.Name())[0]
	if o := w.alpha.run(t, w.alpha.account("alice"), "sh", "-c", line); o.code != 0 || o.stdout != "hello\n" {
		t.Errorf("%s: %+v", line, o)
	}
	if commands < 3 {
		t.Errorf("README has %d commands", commands)
	}
}
