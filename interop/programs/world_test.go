package programs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A world is two machines, alpha.example.com and beta.example.com, with a network between them, and a third,
// gamma.example.com, which lives in alpha's network. All trust one CA.
type world struct {
	dir                string // that every account may enter
	bin                string // shared-altsd is there
	self               string // this test binary
	alpha, beta, gamma *machine
	machines           []*machine
}

func newWorld() (*world, error) {
	program, err := testprog.Plain()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/tmp", "altsd-programs-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, bin: filepath.Dir(program), self: filepath.Join(dir, "self")}
	return w, w.make()
}

func (w *world) make() error {
	if err := errors.Join(os.Chmod(w.dir, 0o755), testprog.CopySelf(w.self)); err != nil {
		return err
	}
	ca, err := testca.NewCA(testca.Options{Name: "example.com"})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.dir, "ca.pem"), ca.PEM(), 0o644); err != nil {
		return err
	}
	add := func(at **machine, name, addr string, within *machine, firstUID uint32, accounts ...string) {
		m := &machine{w: w, name: name + ".example.com", addr: addr, within: within, dir: filepath.Join(w.dir, name)}
		m.socket = filepath.Join(m.dir, "daemon.socket")
		for i, a := range accounts {
			m.accounts = append(m.accounts, account{a, firstUID + uint32(i)})
		}
		*at, w.machines = m, append(w.machines, m)
	}
	// mallory is a local account of beta that nobody there has let in.
	add(&w.alpha, "alpha", "10.77.0.1", nil, 62100, "alice", "bob", "postgres", "prometheus")
	add(&w.beta, "beta", "10.77.0.2", nil, 62200, "alice", "bob", "postgres", "mallory", "backup", "sshd", "web", "node")
	add(&w.gamma, "gamma", "10.77.0.1", w.alpha, 62300, "alice")
	for _, m := range w.machines {
		if err := m.make(); err != nil {
			return err
		}
	}
	if err := w.connect(); err != nil {
		return err
	}
	for _, m := range w.machines {
		issued, err := ca.Issue(testca.Leaf{Hosts: []string{m.name}})
		if err != nil {
			return err
		}
		credentials := filepath.Join(m.dir, "machine.pem")
		if err := os.WriteFile(credentials, issued.PEM(), 0o600); err != nil {
			return err
		}
		m.daemon, err = testprog.Start(m.command(root, "shared-altsd", "serve", "--socket", m.socket, "--credentials", credentials,
			"--ca", filepath.Join(w.dir, "ca.pem")))
		if err != nil {
			return fmt.Errorf("the daemon of %s: %w", m.name, err)
		}
	}
	return nil
}

// connect lays a cable from alpha to beta.
func (w *world) connect() error {
	ip := func(words string) error {
		out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", words, err, out)
		}
		return nil
	}
	name := fmt.Sprintf("altsd%d", os.Getpid()%100000)
	if err := ip(fmt.Sprintf("link add %sa netns %d type veth peer name %sb netns %d", name, w.alpha.netPID(), name, w.beta.netPID())); err != nil {
		return err
	}
	for m, end := range map[*machine]string{w.alpha: name + "a", w.beta: name + "b"} {
		for _, words := range []string{"link set lo up", "addr add " + m.addr + "/24 dev " + end, "link set " + end + " up"} {
			if err := m.inNetwork(func() error { return ip(words) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) end() error {
	var errs []error
	for _, m := range w.machines {
		if m.daemon != nil {
			errs = append(errs, m.daemon.Stop(), testprog.Faults(m.daemon.Log.String()))
		}
	}
	for _, m := range w.machines {
		if m.holder != nil && m.holder.Process != nil {
			errs = append(errs, m.ends.Close(), m.holder.Wait())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// The machines are apart: each has its own accounts and loopback address, and knows who is asked for.
func TestMachines(t *testing.T) {
	w := theWorld(t)
	if got := w.alpha.must(t, w.alpha.account("alice"), "id", "-un"); got != "alice\n" {
		t.Errorf("%q", got)
	}
	if got := w.beta.run(t, w.beta.account("alice"), "id", "prometheus"); got.code == 0 {
		t.Errorf("beta has alpha's accounts: %+v", got)
	}
	if got := w.beta.must(t, w.beta.account("alice"), "shared-altsd", "whoami"); !strings.Contains(got, "alice@beta.example.com") {
		t.Errorf("%q", got)
	}
	w.beta.serve(t, w.beta.command(w.beta.account("web"), "shared-altsd", "pong", ":7077"))
	w.beta.waitPort(t, 7077)
	got := w.alpha.must(t, w.alpha.account("alice"), "shared-altsd", "ping", "--target-account", "web@beta.example.com", "beta.example.com:7077")
	if !strings.Contains(got, "web@beta.example.com") {
		t.Errorf("%q", got)
	}
}
