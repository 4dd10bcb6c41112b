package matrix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
)

// python is the system's, which has Debian's python3-grpcio.
const python = "/usr/bin/python3"

// pythonVenv has the newest grpcio.
const pythonVenv = "python-" + newPython

func init() {
	debian := func(*world) string { return python }
	newest := func(w *world) string { return filepath.Join(w.dir, pythonVenv, "bin", "python3") }
	buildNewest := func(w *world) error {
		if _, err := os.Stat(newest(w)); err == nil { // for the other of its two kinds
			return nil
		}
		_, err := venv(w, pythonVenv, "grpcio=="+newPython, "protobuf=="+newProtobuf, "typing_extensions")
		return err
	}
	pythonDebian = pythonKind("python", "greeter_peer.py", "", debian, func(*world) error { return nil })
	pythonDebian.machinesOnly, pythonDebian.serverCap = true, 40
	pythonNew = pythonKind("python-new", "greeter_peer.py", "", newest, buildNewest)
	pythonAIO = pythonKind("python-aio", "aio_peer.py", ", `grpc.aio`", newest, buildNewest)
	pythonNew.slow, pythonAIO.slow = true, true
}

var pythonDebian, pythonNew, pythonAIO *kind

// pythonKind is gRPC for Python as an interpreter has it, which build provides.
func pythonKind(name, script, where string, interpreter func(*world) string, build func(*world) error) *kind {
	return &kind{name: name, how: "`exec`", attributes: true, serverCap: 100,
		build: func(w *world) error {
			if err := build(w); err != nil {
				return err
			}
			if err := exec.Command(interpreter(w), "-c", "import grpc, google.protobuf").Run(); err != nil {
				return fmt.Errorf("grpcio for %s: %w", interpreter(w), testcache.ErrMissing)
			}
			return pythonScripts(w)
		},
		argv: func(w *world, d *daemon, args []string) []string {
			return append(underExec(w, d), append([]string{interpreter(w), filepath.Join(w.dir, "python", script)}, args...)...)
		},
		script: func(w *world, d *daemon, name string, args ...string) []string {
			return append(underExec(w, d), append([]string{interpreter(w), filepath.Join(w.dir, "python", name)}, args...)...)
		},
		version: func(w *world) (string, error) {
			out, err := exec.Command(interpreter(w), "-c", "import grpc; print(grpc.__version__)").Output()
			v := "grpcio " + strings.TrimSpace(string(out))
			if interpreter(w) == python {
				v += " (Debian 12)"
			}
			return v + where, err
		}}
}

// pythonScripts puts the programs of interop/python where every account can read them, with their stubs.
func pythonScripts(w *world) error {
	plugin, err := exec.LookPath("grpc_python_plugin")
	if err != nil {
		return fmt.Errorf("protobuf-compiler-grpc: %w", testcache.ErrMissing)
	}
	dir := filepath.Join(w.dir, "python")
	if _, err := os.Stat(dir); err == nil { // another kind has
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, proto := range []string{"../interop.proto", "../python/helloworld.proto", "../python/altscontext.proto"} {
		out, err := exec.Command("protoc", "-I", filepath.Dir(proto), "--python_out="+dir, "--grpc_out="+dir,
			"--plugin=protoc-gen-grpc="+plugin, proto).CombinedOutput()
		if err != nil {
			return fmt.Errorf("protoc: %w: %s", err, out)
		}
	}
	programs, err := filepath.Glob("../python/*.py")
	if err != nil {
		return err
	}
	for _, from := range programs {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(from)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// TestPythonGreeter runs the greeter of interop/python, server and client on one machine, each as an account of its
// own.
func TestPythonGreeter(t *testing.T) {
	w := theWorld(t)
	for _, k := range kinds() {
		if k.script == nil || k == pythonAIO {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			k.need(t, w)
			address, greet := greeter(t, w, k)
			if got := greet(); got != greeting(w) {
				t.Errorf("of %s: %q", address, got)
			}
		})
	}
}

func greeting(w *world) string { return fmt.Sprintf("Hello world, you are %s", w.caller.on(w.alpha)) }

// greeter starts the server and gives its address, and what runs the client, with an environment, and gives its line.
func greeter(t *testing.T, w *world, k *kind) (address string, greet func(env ...string) string) {
	t.Helper()
	server := run(t, w, w.server, w.alpha, "greeter_server.py", k.script(w, w.alpha, "greeter_server.py", "127.0.0.1:0"))
	port, ok := strings.CutPrefix(server.Line(), "port ")
	if !ok {
		t.Fatal("no port")
	}
	// localhost is this machine itself; the daemon's --server-accounts has the server's account.
	address = "localhost:" + port
	return address, func(env ...string) string {
		t.Helper()
		argv := append(append([]string{"env"}, env...), k.script(w, w.alpha, "greeter_client.py", address)...)
		return run(t, w, w.caller, w.alpha, "greeter_client.py", argv).Line()
	}
}
