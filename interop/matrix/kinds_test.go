package matrix

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A kind is a gRPC library, in the way that it is used with shared-altsd.
type kind struct {
	name string
	// slow kinds are downloaded, and take part in make interop-all alone.
	slow bool
	// For docs/clients.md: what was run, and what it takes to use the daemon with it.
	version func(w *world) (string, error)
	how     string
	// argv gives the command of a program of this kind; args are its role, address and target accounts.
	argv func(w *world, d *daemon, args []string) []string
	// script gives the command of another program of interop/python, for the kinds in Python.
	script func(w *world, d *daemon, name string, args ...string) []string
	// server and client start one in the place of argv, where that takes more than a program.
	server func(t *testing.T, w *world, d *daemon) (address string)
	client func(t *testing.T, w *world, d *daemon, target, accounts string) *testprog.Talker
	// build makes the program, once; the error says what is missing on this machine.
	build func(w *world) error
	// Whether the library shows attributes, and the server's identity to a client.
	attributes, serverIdentity bool
	// How many handshakes a client may begin at once with one server. C-core's server up to 1.67 works on 40, and gives
	// these places to connections in the order of their coming, also to those that have not said anything. A client's
	// library, too, works on so many only (40, or 100 in grpc-go): beyond that they may wait for each other.
	serverCap int
	// Debian's Python cannot name target accounts, only the machine.
	machinesOnly bool
	// Envoy tells its daemon no target, and compares the server's account itself.
	comparesItself bool
}

// all is every kind that there is.
func all() []*kind {
	return []*kind{goALTS, goOwn, cpp, cppNew, pythonDebian, pythonNew, pythonAIO, javaNew, javaOld, envoyProxy}
}

// everything: the slow kinds take part as well.
var everything = os.Getenv("SHARED_ALTSD_INTEROP") == "all"

// kinds returns those that take part.
func kinds() []*kind {
	var these []*kind
	for _, k := range all() {
		if everything || !k.slow {
			these = append(these, k)
		}
	}
	return these
}

// wrongTarget returns an account that no server is.
func (k *kind) wrongTarget(w *world) string {
	if k.machinesOnly {
		return w.server.name + "@elsewhere.test"
	}
	return w.other + "@beta.test"
}

var (
	goALTS = &kind{name: "go", how: "`exec`", build: none, serverCap: 200, attributes: true, serverIdentity: true, version: goVersion,
		argv: func(w *world, d *daemon, args []string) []string {
			return append(underExec(w, d), append([]string{w.self, "go"}, args...)...)
		}}
	goOwn = &kind{name: "altscreds", how: "this module's `altscreds`", build: none, serverCap: 200, attributes: true, serverIdentity: true, version: goVersion,
		argv: func(w *world, d *daemon, args []string) []string {
			return append([]string{w.self, "altscreds"}, args...)
		}}
)

func none(*world) error { return nil }

func goVersion(*world) (string, error) { return "grpc-go " + grpc.Version, nil }

// underExec begins the command of a program that exec starts.
func underExec(w *world, d *daemon) []string {
	return []string{w.program, "exec", "--socket", d.socket, "--"}
}

var builds = struct {
	sync.Mutex
	done map[*kind]error
}{done: map[*kind]error{}}

// need builds what the kind needs, and skips the test where that cannot be had.
func (k *kind) need(t *testing.T, w *world) {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	err, ok := builds.done[k]
	if !ok {
		err = k.build(w)
		builds.done[k] = err
	}
	if errors.Is(err, testcache.ErrMissing) {
		t.Skipf("%s: %v", k.name, err)
	} else if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
}

// serverOf starts a server of the kind on beta.test and gives its address.
func serverOf(t *testing.T, w *world, k *kind) string {
	t.Helper()
	return serverOn(t, w, k, w.beta)
}

// serverOn starts a server of the kind on a machine and gives its address.
func serverOn(t *testing.T, w *world, k *kind, d *daemon) string {
	t.Helper()
	if k.server != nil {
		return k.server(t, w, d)
	}
	return listening(t, run(t, w, w.server, d, k.name+" server", k.argv(w, d, []string{"server", "127.0.0.1:0"})))
}

// listening returns the address of a server that has been started.
func listening(t *testing.T, p *testprog.Talker) string {
	t.Helper()
	port, ok := strings.CutPrefix(p.Line(), "port ")
	if !ok {
		t.Fatalf("%s: no port", p.Name)
	}
	return "127.0.0.1:" + port
}

// clientOf starts a client of the kind on a machine.
func clientOf(t *testing.T, w *world, k *kind, d *daemon, target, accounts string) *testprog.Talker {
	t.Helper()
	if k.client != nil {
		return k.client(t, w, d, target, accounts)
	}
	return run(t, w, w.caller, d, k.name+" client", k.argv(w, d, []string{"client", target, accounts}))
}
