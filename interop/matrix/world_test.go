// Package matrix tests stock gRPC libraries of several languages against real daemons and against each other.
package matrix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A world is two machines that trust each other, alpha.test and beta.test, a third, gamma.test, which trusts them and is
// not trusted by them, and a fourth, delta.test, whose certificate has expired. Each is a daemon of its own on this
// machine.
type world struct {
	dir     string // readable by every account
	program string // shared-altsd
	self    string // this test binary
	alpha   *daemon
	beta    *daemon
	gamma   *daemon
	delta   *daemon
	caller  account // runs clients
	server  account // runs servers
	other   string  // name of an account that runs neither
}

// An account of the real machine that programs run as.
type account struct {
	name     string
	uid, gid int
}

// on returns the account's identity on a machine.
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
	for _, m := range []struct {
		name string
		at   **daemon
		ca   *testca.CA
		leaf testca.Leaf
	}{
		{"alpha", &w.alpha, known, testca.Leaf{}},
		{"beta", &w.beta, known, testca.Leaf{}},
		{"gamma", &w.gamma, unknown, testca.Leaf{}},
		{"delta", &w.delta, known, testca.Leaf{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}},
	} {
		d := &daemon{name: m.name, socket: filepath.Join(w.dir, m.name+".socket"), credentials: filepath.Join(w.dir, m.name+".pem"),
			program: w.program, args: []string{"--ca", trusted, "--server-accounts", w.server.name}}
		m.leaf.Hosts = []string{m.name + ".test"}
		issued, err := m.ca.Issue(m.leaf)
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.credentials, issued.PEM(), 0o600); err != nil {
			return err
		}
		if err := d.start(); err != nil {
			return err
		}
		*m.at = d
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
	for _, d := range []*daemon{w.alpha, w.beta, w.gamma, w.delta} {
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
	dir, err := os.MkdirTemp(filepath.Dir(d.socket), d.name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // its clients are of other accounts
		t.Fatal(err)
	}
	v := *d
	v.socket, v.args = filepath.Join(dir, "socket"), append(args, "--ca", d.args[1])
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
