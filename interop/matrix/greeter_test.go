package matrix

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func pythonKind(t *testing.T) *kind {
	t.Helper()
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == "python" })
	if i < 0 {
		t.Fatal("no python")
	}
	return kinds[i]
}

// TestPythonGreeter runs the greeter of interop/python, server and client on one machine, each as an account of its
// own.
func TestPythonGreeter(t *testing.T) {
	w := theWorld(t)
	pythonKind(t).need(t, w)
	address, greet := greeter(t, w)
	if got := greet(); got != greeting(w) {
		t.Errorf("of %s: %q", address, got)
	}
}

func greeting(w *world) string { return fmt.Sprintf("Hello world, you are %s", w.caller.on(w.alpha)) }

// greeter starts the server and gives its address, and what runs the client, with an environment, and gives its line.
func greeter(t *testing.T, w *world) (address string, greet func(env ...string) string) {
	t.Helper()
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
	address = "localhost:" + port
	return address, func(env ...string) string {
		t.Helper()
		argv := append(append([]string{"env"}, env...), script("greeter_client.py", address)...)
		return run(t, w, w.caller, w.alpha, "greeter_client.py", argv).line()
	}
}

// TestRule44CoreProxies: C-core sends what it dials by a proxy, but for the handshaker, whichever lists of exceptions there
// are.
func TestRule44CoreProxies(t *testing.T) {
	w := theWorld(t)
	pythonKind(t).need(t, w)
	address, greet := greeter(t, w)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 64)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI
		connect(rw, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	for _, lists := range [][]string{{}, {"no_proxy=*"}, {"no_grpc_proxy=*"}, {"no_proxy=*", "no_grpc_proxy="}, {"no_proxy=a.test"},
		{"no_grpc_proxy=a.test", "no_proxy=*"}} {
		if got := greet(append(lists, "http_proxy=http://"+l.Addr().String())...); got != greeting(w) {
			t.Errorf("%q: %q", lists, got)
		}
		if got := <-asked; got != "CONNECT "+address {
			t.Errorf("%q: the proxy was asked for %q", lists, got)
		}
		for len(asked) > 0 {
			if got := <-asked; got != "CONNECT "+address {
				t.Errorf("%q: the proxy was asked for %q", lists, got)
			}
		}
	}
}

// connect is what a proxy does with CONNECT.
func connect(rw http.ResponseWriter, r *http.Request) {
	there, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	rw.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		there.Close()
		return
	}
	defer here.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(there, buffered)
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
	<-sent
}
