package matrix

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

var update = flag.Bool("update", false, "write the tables of docs/clients.md and docs/refusals.md anew, as make interop-all's tests")

// tableIn returns what the document has from this package, and writes it anew if that is asked for.
func tableIn(t *testing.T, path, anew string) string {
	t.Helper()
	return testprog.Table(t, path, "interop/matrix", anew, *update && everything)
}

const anew = "write it anew: SHARED_ALTSD_INTEROP=all go test ./interop/matrix -run 'Matrix|Refusals' -update"

const clientsPath = "../../docs/clients.md"

// compareLibraries compares docs/clients.md with what has been run. The pairs have shown that each row is right.
func compareLibraries(t *testing.T, w *world) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // the two accounts are one
	}
	var b strings.Builder
	b.WriteString("\n| in the output | library | used by | a server is told of its caller | a client is told of its server |\n|---|---|---|---|---|\n")
	told := func(account, attributes bool) string {
		switch {
		case account && attributes:
			return "account, attributes"
		case account:
			return "account"
		}
		return "nothing"
	}
	var lines []string
	for _, k := range kinds() {
		version, err := k.version(w)
		if err != nil {
			t.Error(err)
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s |\n", k.name, version, k.how, told(true, k.attributes),
			told(k.serverIdentity, k.attributes)))
	}
	fmt.Fprintf(&b, "%s\n", strings.Join(lines, ""))
	table := tableIn(t, clientsPath, b.String())
	for _, line := range lines {
		if !strings.Contains(table, line) {
			t.Errorf("%s does not have the line %s; %s", clientsPath, line, anew)
		}
	}
	if everything && table != b.String() {
		t.Errorf("%s has other lines than\n%s%s", clientsPath, &b, anew)
	}
}

const refusalsPath = "../../docs/refusals.md"

// compareRefusals compares docs/refusals.md with what has been seen.
func compareRefusals(t *testing.T, all []seen) {
	t.Helper()
	if os.Geteuid() != 0 || t.Failed() {
		return
	}
	var b strings.Builder
	b.WriteString("\n| library | what happened | status | text | after |\n|---|---|---|---|---|\n")
	for _, l := range together(all) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(l.kinds, ", "), strings.Join(l.what, "; "), l.row)
	}
	table := tableIn(t, refusalsPath, b.String())
	if everything {
		if table != b.String() {
			t.Errorf("%s has something else than\n%s%s", refusalsPath, &b, anew)
		}
		return
	}
	for _, s := range all {
		if !slices.ContainsFunc(strings.Split(table, "\n"), func(l string) bool {
			columns := strings.SplitN(strings.Trim(l, "| "), " | ", 3)
			return len(columns) == 3 && slices.Contains(strings.Split(columns[0], ", "), s.kind) &&
				slices.Contains(strings.Split(columns[1], "; "), s.what) && columns[2] == s.row()
		}) {
			t.Errorf("%s does not have, for %s and %q, the line | %s |; %s", refusalsPath, s.kind, s.what, s.row(), anew)
		}
	}
}

// A line is a row of the table of refusals: what has the same row is in it together.
type line struct {
	kinds, what []string
	row         string
}

// together puts the kinds that show a refusal in the same way together, and then the refusals that they show so.
func together(all []seen) (lines []*line) {
	var byWhat []*line
	for _, s := range all {
		i := slices.IndexFunc(byWhat, func(l *line) bool { return l.what[0] == s.what && l.row == s.row() })
		if i < 0 {
			i, byWhat = len(byWhat), append(byWhat, &line{what: []string{s.what}, row: s.row()})
		}
		byWhat[i].kinds = append(byWhat[i].kinds, s.kind)
	}
	for _, l := range byWhat {
		if i := slices.IndexFunc(lines, func(m *line) bool { return m.row == l.row && slices.Equal(m.kinds, l.kinds) }); i >= 0 {
			lines[i].what = append(lines[i].what, l.what...)
		} else {
			lines = append(lines, l)
		}
	}
	at := func(l *line) int { return slices.IndexFunc(all, func(s seen) bool { return s.kind == l.kinds[0] }) }
	slices.SortStableFunc(lines, func(a, b *line) int { return at(a) - at(b) })
	return lines
}
