// Package matrix tests stock gRPC libraries of several languages against real daemons and against each other.
package matrix

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A world is two machines that trust each other, alpha.test and beta.test, and a third, gamma.test, which trusts them
// and is not trusted by them. Each is a daemon of its own on this machine.
type world struct {
	dir     string // readable by every account
	program string // shared-altsd
	self    string // this test binary
	alpha   *daemon
	beta    *daemon
	gamma   *daemon
	caller  account // runs clients
	server  account // runs servers
	other   string  // name of an account that runs neither
}

// An account of the real machine that programs run as.
type account struct {
	name     string
	uid, gid int
}

// on gives the account's identity on a machine.
func (a account) on(d *daemon) string { return a.name + "@" + d.name + ".test" }

func TestMain(m *testing.M) { os.Exit(testprog.Main(m, shared.End)) }

var shared = testprog.Shared[*world]{Make: newWorld, Close: (*world).end}

func theWorld(t *testing.T) *world {
	t.Helper()
	return shared.Get(t)
}

func newWorld() (*world, error) {
	program, err := testprog.Plain()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "altsd-matrix-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, program: program, self: filepath.Join(dir, "peer")}
	return w, w.build()
}

func (w *world) build() error {
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	if err := w.chooseAccounts(); err != nil {
		return err
	}
	if err := testprog.CopySelf(w.self); err != nil {
		return err
	}
	known, err := testca.NewCA(testca.Options{Name: "known"})
	if err != nil {
		return err
	}
	unknown, err := testca.NewCA(testca.Options{Name: "unknown"})
	if err != nil {
		return err
	}
	trusted := filepath.Join(w.dir, "ca.pem")
	if err := os.WriteFile(trusted, known.PEM(), 0o644); err != nil {
		return err
	}
	for name, ca := range map[string]*testca.CA{"alpha": known, "beta": known, "gamma": unknown} {
		d := &daemon{name: name, socket: filepath.Join(w.dir, name+".socket"), credentials: filepath.Join(w.dir, name+".pem"),
			program: w.program, args: []string{"--ca", trusted, "--server-accounts", w.server.name}}
		issued, err := ca.Issue(testca.Leaf{Hosts: []string{name + ".test"}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.credentials, issued.PEM(), 0o600); err != nil {
			return err
		}
		if err := d.start(); err != nil {
			return err
		}
		switch name {
		case "alpha":
			w.alpha = d
		case "beta":
			w.beta = d
		case "gamma":
			w.gamma = d
		}
	}
	return nil
}

// chooseAccounts takes two system accounts that every Debian has, or one's own for both where root's rights are
// missing.
func (w *world) chooseAccounts() error {
	names := []string{"daemon", "games"}
	w.other = "mail"
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return err
		}
		names = []string{me.Username, me.Username}
	}
	for i, to := range []*account{&w.caller, &w.server} {
		u, err := user.Lookup(names[i])
		if err != nil {
			return err
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return err
		}
		*to = account{u.Username, uid, gid}
	}
	return nil
}

func (w *world) end() error {
	var errs []error
	for _, d := range []*daemon{w.alpha, w.beta, w.gamma} {
		if d != nil {
			errs = append(errs, d.run.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// A daemon is shared-altsd serve, as an administrator would run it.
type daemon struct {
	name, socket string
	credentials  string
	program      string
	args         []string
	run          *testprog.Process
}

// variant starts another daemon of the same machine, with other flags, for the length of a test.
func (d *daemon) variant(t *testing.T, args ...string) *daemon {
	t.Helper()
	v := *d
	v.socket, v.args = filepath.Join(t.TempDir(), "socket"), append(args, "--ca", d.args[1])
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.run.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &v
}

// start returns when the daemon says that it is ready.
func (d *daemon) start() (err error) {
	args := []string{"serve", "--socket", d.socket, "--credentials", d.credentials}
	if d.run, err = testprog.Start(exec.Command(d.program, append(args, d.args...)...)); err != nil {
		return fmt.Errorf("the daemon of %s.test: %w", d.name, err)
	}
	return nil
}

// A kind is a gRPC library, in the way that it is used with shared-altsd.
type kind struct {
	name string
	// argv gives the command of a program of this kind; args are its role, address and target accounts.
	argv func(w *world, d *daemon, args []string) []string
	// build makes the program, once; the error says what is missing on this machine.
	build func(w *world) error
	// Whether the library shows attributes, and the server's identity to a client.
	attributes, serverIdentity bool
	// How many handshakes a client may begin at once with one server. C-core's server works on 40, and gives these places
	// to connections in the order of their coming, also to those that have not said anything. A client's library, too,
	// works on so many only (40, or 100 in grpc-go): beyond that they may wait for each other.
	serverCap int
	// Debian's Python cannot name target accounts, only the machine.
	machinesOnly bool
}

// wrongTarget gives an account that no server is.
func (k *kind) wrongTarget(w *world) string {
	if k.machinesOnly {
		return w.server.name + "@elsewhere.test"
	}
	return w.other + "@beta.test"
}

var kinds = []*kind{
	{name: "go", build: none, serverCap: 200, attributes: true, serverIdentity: true, argv: func(w *world, d *daemon, args []string) []string {
		return append([]string{w.program, "exec", "--socket", d.socket, "--", w.self, "go"}, args...)
	}},
	{name: "altscreds", build: none, serverCap: 200, attributes: true, serverIdentity: true, argv: func(w *world, d *daemon, args []string) []string {
		return append([]string{w.self, "altscreds"}, args...)
	}},
	{name: "c++", build: buildCPP, serverCap: 40, attributes: true, serverIdentity: true, argv: func(w *world, d *daemon, args []string) []string {
		return append([]string{filepath.Join(w.dir, "cpp", "peer"), args[0], d.socket}, args[1:]...)
	}},
	{name: "python", build: buildPython, serverCap: 40, machinesOnly: true, argv: func(w *world, d *daemon, args []string) []string {
		script := filepath.Join(w.dir, "python", "greeter_peer.py")
		return append([]string{w.program, "exec", "--socket", d.socket, "--", python, script}, args...)
	}},
}

// python is the system's, which has Debian's python3-grpcio.
const python = "/usr/bin/python3"

var errMissing = errors.New("not installed (make interop installs it on Debian)")

func none(*world) error { return nil }

func buildCPP(w *world) error {
	if err := exec.Command("pkg-config", "--exists", "grpc++", "protobuf").Run(); err != nil {
		return fmt.Errorf("libgrpc++-dev: %w", errMissing)
	}
	if _, err := exec.LookPath("grpc_cpp_plugin"); err != nil {
		return fmt.Errorf("protobuf-compiler-grpc: %w", errMissing)
	}
	out, err := exec.Command("make", "-s", "-C", "../cpp", "BUILD="+filepath.Join(w.dir, "cpp")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make -C interop/cpp: %w: %s", err, out)
	}
	return nil
}

func buildPython(w *world) error {
	if err := exec.Command(python, "-c", "import grpc, google.protobuf").Run(); err != nil {
		return fmt.Errorf("python3-grpcio: %w", errMissing)
	}
	plugin, err := exec.LookPath("grpc_python_plugin")
	if err != nil {
		return fmt.Errorf("protobuf-compiler-grpc: %w", errMissing)
	}
	dir := filepath.Join(w.dir, "python")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, proto := range []string{"../interop.proto", "../python/helloworld.proto"} {
		out, err := exec.Command("protoc", "-I", filepath.Dir(proto), "--python_out="+dir, "--grpc_out="+dir,
			"--plugin=protoc-gen-grpc="+plugin, proto).CombinedOutput()
		if err != nil {
			return fmt.Errorf("protoc: %w: %s", err, out)
		}
	}
	for _, name := range []string{"greeter_peer.py", "greeter_server.py", "greeter_client.py"} {
		text, err := os.ReadFile(filepath.Join("../python", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var builds = map[*kind]func() error{}

// need builds what the kind needs, and skips the test where that cannot be had.
func (k *kind) need(t *testing.T, w *world) {
	t.Helper()
	if builds[k] == nil {
		builds[k] = sync.OnceValue(func() error { return k.build(w) })
	}
	if err := builds[k](); errors.Is(err, errMissing) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// A process is a running program that answers each line with a line.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    chan string // closed at its end
	stderr bytes.Buffer
}

// run starts a program as the account.
func run(t *testing.T, w *world, a account, d *daemon, name string, argv []string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(argv[0], argv[1:]...), out: make(chan string, 16)}
	p.cmd.Dir = "/"
	p.cmd.Env = []string{bePeer + "=1", "SHARED_ALTS_SOCKET=" + d.socket, "PATH=" + os.Getenv("PATH"),
		"PYTHONDONTWRITEBYTECODE=1", "GORACE=atexit_sleep_ms=0"}
	p.cmd.Stderr = &p.stderr
	if a.uid != os.Geteuid() {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.out)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.out <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.in.Close()
		p.cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(testprog.Patience, func() { p.cmd.Process.Kill() })
		defer stuck.Stop()
		for range p.out {
		}
		<-read
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s on standard error: %s", p.name, p.stderr.String())
		}
	})
	return p
}

// line gives the next line that the process prints.
func (p *process) line() string {
	p.t.Helper()
	select {
	case s, ok := <-p.out:
		if !ok {
			p.t.Fatalf("%s ended", p.name)
		}
		return s
	case <-time.After(testprog.Patience):
		p.t.Fatalf("%s says nothing", p.name)
	}
	return ""
}

// ask gives the answer to a command.
func (p *process) ask(command string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return p.line()
}

// serverOf starts a server of the kind on beta.test and gives its address.
func serverOf(t *testing.T, w *world, k *kind) string {
	t.Helper()
	p := run(t, w, w.server, w.beta, k.name+" server", k.argv(w, w.beta, []string{"server", "127.0.0.1:0"}))
	port, ok := strings.CutPrefix(p.line(), "port ")
	if !ok {
		t.Fatalf("%s server: no port", k.name)
	}
	return "127.0.0.1:" + port
}

// clientOf starts a client of the kind on a machine.
func clientOf(t *testing.T, w *world, k *kind, d *daemon, target, accounts string) *process {
	t.Helper()
	return run(t, w, w.caller, d, k.name+" client", k.argv(w, d, []string{"client", target, accounts}))
}
