// Package testdevice is devices with keys for tests, with the tools by which an administrator makes keys in them: a TPM 2.0 by
// swtpm, and a PKCS #11 token by SoftHSM. A test skips where they are not installed.
package testdevice

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Need skips the test where one of the programs is not there.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v: make debian-packages installs what is needed", err)
		}
	}
}

// A Tools runs an administrator's commands in a directory, with what they need in their environment.
type Tools struct {
	Dir string
	Env []string
	t   testing.TB
}

// Run runs a program and returns what it prints.
func (x *Tools) Run(program string, args ...string) string {
	x.t.Helper()
	out, err := x.Try(program, args...)
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

// Shell runs a script, each line of which has to succeed.
func (x *Tools) Shell(script string) string {
	x.t.Helper()
	return x.Run("bash", "-euo", "pipefail", "-c", script)
}

// Try is Run for what may fail.
func (x *Tools) Try(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = x.Dir, append(os.Environ(), x.Env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %q: %w\n%s%s", program, args, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// Read returns a file of the directory.
func (x *Tools) Read(name string) []byte {
	x.t.Helper()
	b, err := os.ReadFile(filepath.Join(x.Dir, name))
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

// Path returns the path of a file of the directory.
func (x *Tools) Path(name string) string { return filepath.Join(x.Dir, name) }

// Write makes a file in the directory that its owner alone may read.
func (x *Tools) Write(name, content string) string {
	x.t.Helper()
	if err := os.WriteFile(x.Path(name), []byte(content), 0o600); err != nil {
		x.t.Fatal(err)
	}
	return x.Path(name)
}

// A TPM is a running swtpm. It serves one connection at a time, so that tools wait until a signer has closed its own. Nothing
// but Shell clears it of what a tool has left in it, as the kernel's resource manager does it at a tool's end.
type TPM struct {
	Tools
	// Socket is where the commands go.
	Socket string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// StartTPM starts a new TPM, which ends with the test.
func StartTPM(t testing.TB) *TPM {
	t.Helper()
	Need(t, "swtpm", "tpm2_create", "openssl")
	dir := testprog.Dir(t)
	p := &TPM{Tools: Tools{Dir: dir, t: t}, Socket: filepath.Join(dir, "tpm")}
	tcti := "swtpm:path=" + p.Socket
	p.Env = []string{"TPM2TOOLS_TCTI=" + tcti, "TPM2OPENSSL_TCTI=" + tcti}
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Shell runs a script, each line of which has to succeed, as on a machine whose TPM is /dev/tpmrm0.
func (p *TPM) Shell(script string) string {
	p.t.Helper()
	return p.Tools.Shell("trap 'for k in t l; do tpm2_flushcontext -Q -$k 2>/dev/null || :; done' DEBUG\n" + script + "\n:")
}

// Start starts it again after Kill, with the state that it had: this is a reset.
func (p *TPM) Start() {
	p.t.Helper()
	for _, path := range []string{p.Socket, p.Socket + ".ctrl"} {
		os.Remove(path) // of the one before
	}
	p.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+p.Dir, "--server", "type=unixio,path="+p.Socket,
		"--ctrl", "type=unixio,path="+p.Socket+".ctrl", "--flags", "not-need-init,startup-clear")
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	for until := time.Now().Add(testprog.Patience); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat(p.Socket + ".ctrl")
		if err == nil { // a socket has a name before it is listened to
			var conn net.Conn
			if conn, err = net.Dial("unix", p.Socket); err == nil {
				conn.Close()
				return
			}
		}
		select {
		case <-p.ended:
			p.t.Fatal("swtpm has ended")
		default:
		}
		if time.Now().After(until) {
			p.t.Fatalf("swtpm does not start: %v", err)
		}
	}
}

// Signal sends it a signal.
func (p *TPM) Signal(s os.Signal) { p.cmd.Process.Signal(s) }

// Kill ends it: the TPM is gone.
func (p *TPM) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
	os.Remove(p.Socket)
}

// A Token is a token of SoftHSM with the label "machine" and the PIN 1234.
type Token struct {
	Tools
	Module string
	tokens string
}

// PIN is that of a Token.
const PIN = "1234"

// NewToken makes a token. SoftHSM finds it by the environment, also that of this process.
func NewToken(t testing.TB) *Token {
	t.Helper()
	Need(t, "softhsm2-util", "pkcs11-tool")
	dir := testprog.Dir(t)
	k := &Token{Tools: Tools{Dir: dir, t: t}, tokens: filepath.Join(dir, "tokens")}
	for _, m := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"} {
		if _, err := os.Stat(m); err == nil {
			k.Module = m
		}
	}
	if k.Module == "" {
		t.Skip("SoftHSM's module is not there: make debian-packages installs what is needed")
	}
	conf := k.Write("softhsm2.conf", "directories.tokendir = "+k.tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	if err := os.Mkdir(k.tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	k.Env = []string{"SOFTHSM2_CONF=" + conf}
	k.Run("softhsm2-util", "--init-token", "--free", "--label", "machine", "--so-pin", "87654321", "--pin", PIN)
	return k
}

// Generate makes a key pair with a label, of a type as pkcs11-tool names it.
func (k *Token) Generate(label, keyType string, more ...string) {
	k.t.Helper()
	k.Run("pkcs11-tool", append([]string{"--module", k.Module, "--token-label", "machine", "--login", "--pin", PIN, "--keypairgen",
		"--key-type", keyType, "--label", label, "--id", HexID(label)}, more...)...)
}

// URI names a key, with what else the URI is to say.
func (k *Token) URI(label, query string) string {
	return "pkcs11:token=machine;object=" + label + ";type=private?module-path=" + k.Module + query
}

// PullOut takes the token away; the module finds a reader without one.
func (k *Token) PullOut() {
	k.t.Helper()
	if err := errors.Join(os.Rename(k.tokens, k.tokens+".out"), os.Mkdir(k.tokens, 0o700)); err != nil {
		k.t.Fatal(err)
	}
}

// PutBack brings it back.
func (k *Token) PutBack() {
	k.t.Helper()
	if err := errors.Join(os.Remove(k.tokens), os.Rename(k.tokens+".out", k.tokens)); err != nil {
		k.t.Fatal(err)
	}
}

// HexID is the id of a key that Generate has made, as tools take it.
func HexID(label string) string { return fmt.Sprintf("%x", label) }

// Sign has a key sign a statement as peers demand it, and returns why it fails, or why they would refuse the signature.
func Sign(ctx context.Context, k signer.Key) error {
	statement := []byte("a statement")
	signature, err := certbind.SignBy(k.Public(), statement, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return k.Sign(ctx, digest, opts)
	})
	if err == nil && !certbind.ValidSignature(k.Public(), statement, signature) {
		err = errors.New("the signature is not one of the key's that peers accept")
	}
	return err
}
