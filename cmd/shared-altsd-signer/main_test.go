package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdevice"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestMain(m *testing.M) { os.Exit(testprog.Main(m)) }

const (
	alpha = "alpha.example.com"
	// The headings of docs/hardware.md.
	tpmFile, tpmHandle, inToken = "A key in the TPM, in a file", "A key in the TPM, at a handle", "A key in a PKCS #11 token"
	certificate, passphrase     = "The certificate", "A passphrase"
)

// A machine is one whose key is in a device, set up by the commands of the document.
type machine struct {
	t      *testing.T
	tools  *testdevice.Tools
	shell  func(script string) string
	dir    string // in the place of /etc/shared-altsd
	here   *strings.Replacer
	ca     *testca.CA
	leaf   *x509.Certificate
	socket string
}

// onTPM and onToken make a machine with a device, which they return.
func onTPM(t *testing.T) (*machine, *testdevice.TPM) {
	t.Helper()
	p := testdevice.StartTPM(t)
	m := newMachine(t, &p.Tools, "/dev/tpmrm0", p.Socket)
	m.shell = p.Shell
	return m, p
}

func onToken(t *testing.T) (*machine, *testdevice.Token) {
	t.Helper()
	k := testdevice.NewToken(t)
	m := newMachine(t, &k.Tools, "/usr/lib/softhsm/libsofthsm2.so", k.Module)
	m.shell = k.Shell
	return m, k
}

func newMachine(t *testing.T, tools *testdevice.Tools, is, here string) *machine {
	m := &machine{t: t, tools: tools, dir: tools.Path("etc"), socket: tools.Path("signer.socket"), ca: testca.MustCA(t, testca.Options{})}
	m.here = strings.NewReplacer("/etc/shared-altsd", m.dir, is, here)
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// document returns what the blocks below a heading of the document have that a test takes: commands, and a config file.
func (m *machine) document(section string) (commands, config string) {
	m.t.Helper()
	var texts []string
	for _, b := range testdoc.Page(m.t, "docs/hardware.md") {
		if b.Section == section && len(b.Tests) > 0 {
			texts = append(texts, m.here.Replace(b.Text))
		}
	}
	if len(texts) == 0 {
		m.t.Fatalf("docs/hardware.md has nothing under %q", section)
	}
	return texts[0], strings.Join(texts[1:], "")
}

// setUp does what a part of the document says, with the PIN typed, and writes the config file, in which the daemon is this
// account. Then it has a request made, and the CA sign it.
func (m *machine) setUp(part string) {
	m.t.Helper()
	commands, config := m.document(part)
	m.run("exec <<<" + testdevice.PIN + "\n" + commands)
	config = strings.Replace(config, "client       = shared-altsd", "client       = "+strconv.Itoa(os.Geteuid()), 1)
	if part == inToken {
		config += "\npin-file = " + filepath.Join(m.dir, "signer.pin") + "\n"
	}
	m.write("signer.conf", config, 0o644)
	m.request("")
}

// request has a request made, and the CA sign it.
func (m *machine) request(more string) {
	m.t.Helper()
	commands, _ := m.document(certificate)
	m.run(strings.Replace(commands, "--config", more+" --config", 1))
	m.certify()
}

// run runs commands of the document, with the program on the path, where no account of the packages is there.
func (m *machine) run(commands string) {
	m.t.Helper()
	m.shell("chgrp() { :; }\nPATH=" + filepath.Dir(program(m.t)) + ":$PATH\n" + strings.TrimSpace(commands))
}

func program(t testing.TB) string {
	t.Helper()
	path, err := testprog.Signer()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// certify has the CA sign the request.
func (m *machine) certify() {
	m.t.Helper()
	block, _ := pem.Decode(m.tools.Read("etc/machine.csr"))
	if block == nil {
		m.t.Fatal("the request is no PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := request.CheckSignature(); err != nil || len(request.DNSNames) != 1 || request.DNSNames[0] != alpha {
		m.t.Fatalf("the request is for %q: %v", request.DNSNames, err)
	}
	issued := testca.MustIssue(m.t, m.ca, testca.Leaf{Hosts: []string{alpha}, PublicKey: request.PublicKey})
	m.leaf = issued.Cert
	m.write("machine.pem", string(issued.CertPEM), 0o644)
}

func (m *machine) write(name, content string, mode os.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	os.Remove(path)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		m.t.Fatal(err)
	}
}

// command is the signer with its config file.
func (m *machine) command(args ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command(program(m.t), append(args, "--config", filepath.Join(m.dir, "signer.conf"))...)
	cmd.Env = append(append(os.Environ(), "LISTEN_FDS=", "CREDENTIALS_DIRECTORY="), m.tools.Env...)
	return cmd
}

// check runs check, and returns what it says.
func (m *machine) check(args ...string) (string, error) {
	m.t.Helper()
	out, err := m.command(append([]string{"check"}, args...)...).CombinedOutput()
	return string(out), err
}

// serve starts the signer, which ends with the test.
func (m *machine) serve(args ...string) *testprog.Process {
	m.t.Helper()
	p, err := testprog.Start(m.command(append([]string{"serve", "--socket", m.socket}, args...)...))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := testprog.Faults(p.Log.String()); err != nil {
			m.t.Error(err)
		}
		p.Kill()
	})
	return p
}

// statement is one that the signer makes.
func (m *machine) statement() *certbind.Statement {
	now := time.Now().Truncate(time.Second)
	return &certbind.Statement{StaticKey: [32]byte{1}, Leaf: sha256.Sum256(m.leaf.Raw), Machine: alpha, Account: "alice",
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(6 * time.Hour)}
}

// sign has the signer sign a statement.
func (m *machine) sign(st *certbind.Statement) error {
	m.t.Helper()
	c := signer.NewClient(m.socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), testprog.Patience)
	defer cancel()
	key, err := c.Key(ctx)
	if err != nil {
		return err
	}
	signature, err := key.SignStatement(ctx, st)
	if err != nil {
		return err
	}
	bytes, err := st.Marshal()
	if err != nil {
		return err
	}
	if !certbind.ValidSignature(m.leaf.PublicKey, bytes, signature) {
		m.t.Error("the signature is not the key's")
	}
	return nil
}
