package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// accounts is how many a daemon of the tests speaks for, each at a socket of its own.
const accounts = 4

// A daemon is the real one, whose key is with the signer.
type daemon struct {
	*machine
	*testprog.Process
	program string
}

// serveDaemon starts it.
func (m *machine) serveDaemon() *daemon {
	m.t.Helper()
	path, err := testprog.Path()
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("ca.pem", string(m.ca.PEM()), 0o644)
	args := []string{"serve", "--credentials", filepath.Join(m.dir, "machine.pem"), "--key", "signer:" + m.socket,
		"--ca", filepath.Join(m.dir, "ca.pem"), "--socket", m.at("admin"), "--handshake-timeout", "2s"}
	for i := range accounts {
		args = append(args, "--socket", fmt.Sprintf("%s,uids=%d,account=%s", m.at(account(i)), os.Geteuid(), account(i)))
	}
	p, err := testprog.Start(exec.Command(path, args...))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		p.Kill()
		if err := testprog.Faults(p.Log.String()); err != nil {
			m.t.Error(err)
		}
	})
	return &daemon{m, p, path}
}

func account(i int) string { return fmt.Sprintf("box%d+", i) }

// at is the socket of an account.
func (m *machine) at(account string) string { return m.tools.Path(account + ".socket") }

// talk has an account talk with itself, which takes two handshakes of the daemon's, and returns why it cannot.
func (d *daemon) talk(i int) error {
	d.t.Helper()
	socket := d.at(account(i))
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{ApplicationProtocols: []string{"test"}, Socket: socket})
	if err != nil {
		d.t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c) // fails with the handshake
			c.Close()
		}
	}()
	c, err := altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{ApplicationProtocols: []string{"test"},
		Socket: socket, TargetAccounts: []string{account(i) + "@" + alpha}})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Handshake()
}

func (d *daemon) works(what string, i int) {
	d.t.Helper()
	if err := d.talk(i); err != nil {
		d.t.Errorf("%s: account %d: %v", what, i, err)
	}
}

// comes waits until an account that had no statement has one: what has failed is not asked for again at once.
func (d *daemon) comes(what string, i int) {
	d.t.Helper()
	var err error
	for until := time.Now().Add(testprog.Patience); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if err = d.talk(i); err == nil {
			return
		}
	}
	d.t.Errorf("%s: account %d: %v", what, i, err)
}

func (d *daemon) fails(what string, i int, want string) {
	d.t.Helper()
	if err := d.talk(i); err == nil || !strings.Contains(err.Error(), want) {
		d.t.Errorf("%s: account %d: %v, want %q", what, i, err, want)
	}
}

// status wants an exit status and a text of the daemon's status.
func (d *daemon) status(what string, code int, want string) {
	d.t.Helper()
	out, err := exec.Command(d.program, "status", "--socket", d.at("admin")).CombinedOutput()
	var ended *exec.ExitError
	got := 0
	if errors.As(err, &ended) {
		got = ended.ExitCode()
	}
	if got != code || !strings.Contains(string(out), want) {
		d.t.Errorf("%s: status %d, want %d and %q in:\n%s", what, got, code, want, out)
	}
}

// TestRule63Daemon: a real daemon whose key is in a TPM, at a handle of it, and in a token: handshakes go on by the statements in
// force while the signer is stopped, killed, or without its device, who has none is told why, and nothing has to be restarted.
func TestRule63Daemon(t *testing.T) {
	tpm := func(t *testing.T) (*machine, func(), func()) { m, p := onTPM(t); return m, p.Kill, p.Start }
	for _, test := range []struct {
		part   string
		device func(*testing.T) (m *machine, takeAway, bringBack func())
		away   string
		where  string
	}{
		{tpmFile, tpm, "there is no TPM at", "the TPM at"},
		{tpmHandle, tpm, "there is no TPM at", "handle 0x81000100"},
		{inToken, func(t *testing.T) (*machine, func(), func()) { m, k := onToken(t); return m, k.PullOut, k.PutBack }, "plug it in", "the PKCS #11 token, by"},
	} {
		t.Run(test.part, func(t *testing.T) {
			m, takeAway, bringBack := test.device(t)
			m.setUp(test.part)
			s := m.serve()
			d := m.serveDaemon()
			d.works("the signer is there", 0)
			d.status("the signer is there", 0, test.where)

			s.Cmd.Process.Signal(syscall.SIGSTOP)
			d.works("the signer is stopped", 0)
			d.fails("the signer is stopped", 1, "has not signed yet")
			s.Cmd.Process.Signal(syscall.SIGCONT)
			d.comes("the signer goes on", 1)

			takeAway()
			d.works("the device is away", 0)
			d.fails("the device is away", 2, test.away)
			d.status("the device is away", 1, test.away)
			bringBack()
			d.comes("the device is back", 2)
			d.status("the device is back", 0, test.where)

			s.Kill()
			d.works("the signer is killed", 0)
			d.fails("the signer is killed", 3, "the companion shared-altsd-signer is away")
			m.serve()
			d.comes("the signer is started again", 3)
		})
	}
}
