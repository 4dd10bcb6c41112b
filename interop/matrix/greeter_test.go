package matrix

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestPythonGreeter runs the greeter of interop/python, server and client on one machine, each as an account of its
// own.
func TestPythonGreeter(t *testing.T) {
	w := theWorld(t)
	var py *kind
	for _, k := range kinds {
		if k.name == "python" {
			py = k
		}
	}
	py.need(t, w)
	script := func(name string, args ...string) []string {
		path := filepath.Join(w.dir, "python", name)
		return append([]string{w.program, "exec", "--socket", w.alpha.socket, "--", python, path}, args...)
	}
	server := run(t, w, w.server, w.alpha, "greeter_server.py", script("greeter_server.py", "127.0.0.1:0"))
	port, ok := strings.CutPrefix(server.line(), "port ")
	if !ok {
		t.Fatal("no port")
	}
	// localhost is this machine itself; the daemon's --server-accounts has the server's account.
	client := run(t, w, w.caller, w.alpha, "greeter_client.py", script("greeter_client.py", "localhost:"+port))
	if got, want := client.line(), fmt.Sprintf("Hello world, you are %s", w.caller.on(w.alpha)); got != want {
		t.Errorf("%q, not %q", got, want)
	}
}
