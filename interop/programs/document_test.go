package programs

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

var update = flag.Bool("update", false, "write the table of docs/clients.md anew")

// compareGRPC holds the table of docs/clients.md to what was run.
func compareGRPC(t *testing.T, w *world, pairs []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| in the output | library | as client | as server |\n|---|---|---|---|\n")
	header, rule := "| server, client:", "|---"
	for _, k := range grpcKinds {
		version, err := k.version(w)
		if err != nil {
			t.Fatal(err)
		}
		client, server := "`connect --grpc`", "`listen --http`"
		if k.alts {
			client, server = "itself", "itself"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", k.name, version, client, server)
		header, rule = header+" | "+k.name, rule+"|---"
	}
	fmt.Fprintf(&b, "\n%s |\n%s|\n%s\n", header, rule, strings.Join(pairs, ""))
	const path = "../../docs/clients.md"
	if table := testprog.Table(t, path, "interop/programs", b.String(), *update); table != b.String() {
		t.Errorf("%s has another table than\n%swrite it anew: SHARED_ALTSD_PROGRAMS=1 go test ./interop/programs -run TestGRPC -update", path, &b)
	}
}
