package versions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testcache"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestMain(m *testing.M) { os.Exit(testprog.Main(m, today.End)) }

// A release is the programs of one version, and its sources.
type release struct {
	name                         string
	program, static, signer, app string
	source                       string
}

// root is the top of the work tree.
const root = "../.."

// builder builds the last release, whose version and commit are in the other file.
const (
	builder = root + "/deploy/last-release.sh"
	pointer = root + "/deploy/last-release"
)

var last = testprog.Shared[*release]{Make: buildLast, Close: func(*release) error { return nil }}

// buildLast builds the last release, once for each commit and Go.
func buildLast() (*release, error) {
	dir, err := testcache.Get("last-release-"+runtime.Version(), []string{pointer, builder}, func(dir string) error {
		return testcache.Run(nil, "", "sh", builder, "programs", dir)
	})
	if err != nil {
		return nil, fmt.Errorf("the last release cannot be built: %w", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return &release{"last", in("shared-altsd"), in("shared-altsd-static"), in("shared-altsd-signer"), in("testapp"), in("source")}, nil
}

// today is what is here.
var today = testprog.Shared[*release]{Make: func() (*release, error) {
	r := &release{name: "today", source: root}
	var errs [4]error
	r.program, errs[0] = testprog.Path()
	r.static, errs[1] = testprog.Static()
	r.signer, errs[2] = testprog.Signer()
	r.app, errs[3] = buildApp()
	return r, errors.Join(errs[:]...)
}, Close: func(r *release) error { return os.RemoveAll(filepath.Dir(r.app)) }}

// buildApp builds the application of today.
func buildApp() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "altsd-app-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "testapp")
	return path, errors.Join(testcache.Run([]string{"CGO_ENABLED=0"}, root, "go", "build", "-o", path, "./deploy/testapp"),
		os.Chmod(dir, 0o755))
}

// releases returns the last release and what is here.
func releases(t testing.TB) (was, is *release) {
	t.Helper()
	return last.Get(t), today.Get(t)
}

// both is for what is done with each release.
func both(t testing.TB) []*release {
	was, is := releases(t)
	return []*release{was, is}
}

// A site is machines that trust one CA, in a directory of their own.
type site struct {
	t   testing.TB
	dir string
	ca  *testca.CA
}

func newSite(t testing.TB) *site {
	s := &site{t, testprog.Dir(t), testca.MustCA(t, testca.Options{Name: "Example CA"})}
	s.write("ca.pem", s.ca.PEM())
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// write puts a file into the site's directory, whole at once, and returns its path.
func (s *site) write(name string, data []byte) string {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return testprog.Write(s.t, s.path(name), data)
}

// A machine is a place in a site where the daemons of several releases run one after the other.
type machine struct {
	*site
	name, socket string
	flags        []string
	release      *release
	process      *testprog.Process
}

// machine gives a machine of the site a certificate, and flags beside the usual ones.
func (s *site) machine(name string, flags ...string) *machine {
	s.t.Helper()
	leaf := testca.MustIssue(s.t, s.ca, testca.Leaf{Hosts: []string{name}})
	m := &machine{site: s, name: name, socket: s.path(name + ".sock")}
	m.flags = append([]string{"serve", "--socket", m.socket, "--credentials", s.write(name+".pem", leaf.PEM()),
		"--ca", s.path("ca.pem"), "--denied", s.path(name + ".denied")}, flags...)
	if err := os.MkdirAll(s.path(name+".denied/denied.d"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// start runs the daemon of a release, in the place of the one that runs.
func (m *machine) start(r *release, more ...string) *machine {
	m.t.Helper()
	m.stop()
	program := r.program
	if m.name == "static.test" {
		program = r.static
	}
	p, err := testprog.Start(exec.Command(program, append(m.flags, more...)...))
	if err != nil {
		m.t.Fatalf("the daemon of %s: %v", r.name, err)
	}
	m.process, m.release = p, r
	m.t.Cleanup(func() {
		p.Kill()
		if m.t.Failed() {
			m.t.Logf("%s, by the daemon of %s:\n%s", m.name, r.name, p.Log)
		}
		if err := testprog.Faults(p.Log.String()); err != nil {
			m.t.Error(err)
		}
	})
	return m
}

func (m *machine) stop() {
	m.t.Helper()
	if m.process != nil {
		if err := m.process.Stop(); err != nil {
			m.t.Error(err)
		}
		m.process = nil
	}
}

// account is that of the test on the machine.
func (m *machine) account() string { return me() + "@" + m.name }

// me is the name of the account that runs the tests.
var me = func() string {
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
}

// An outcome is what a command that has ended did.
type outcome struct {
	code     int
	out, err string
}

func (o outcome) String() string { return fmt.Sprintf("exit status %d\n%s%s", o.code, o.out, o.err) }

// run runs a program to its end.
func run(t testing.TB, input string, program string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testprog.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %q: %v %v\n%s", program, args, err, ctx.Err(), &errs)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// tell has a command of a release ask the machine's daemon.
func (m *machine) tell(r *release, command string, args ...string) outcome {
	m.t.Helper()
	args = append([]string{command, "--socket", m.socket}, args...)
	return run(m.t, "", r.program, args...)
}

// background runs a program until the test ends, and returns it with what it says once it says ready.
func background(t testing.TB, ready, program string, args ...string) (p *testprog.Process, line string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	p, err := testprog.Launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.Ended:
		case <-time.After(5 * time.Second):
			p.Kill()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", cmd, p.Log)
		}
	})
	next, err := p.Log.WaitText(0, ready)
	if err != nil {
		t.Fatal(err)
	}
	return p, p.Log.All()[next-1]
}

// uid is the account of tests and daemons, as the flag --daemon-uid has it.
var uid = strconv.Itoa(os.Getuid())
