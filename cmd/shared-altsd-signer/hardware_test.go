package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testdevice"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// TestRule63Hardware: the commands of docs/hardware.md make a key, a request and a signer, in each device.
func TestRule63Hardware(t *testing.T) {
	for _, test := range []struct {
		part    string
		machine func(*testing.T) *machine
	}{
		{tpmFile, func(t *testing.T) *machine { m, _ := onTPM(t); return m }},
		{tpmHandle, func(t *testing.T) *machine { m, _ := onTPM(t); return m }},
		{inToken, func(t *testing.T) *machine { m, _ := onToken(t); return m }},
	} {
		t.Run(test.part, func(t *testing.T) {
			m := test.machine(t)
			m.setUp(test.part)
			out, err := m.check()
			if err != nil || !strings.Contains(out, "P-256 in ") || !strings.Contains(out, alpha+", good until") || !strings.Contains(out, "signature    good") {
				t.Fatalf("check: %s%v", out, err)
			}
			_, asPrinted := m.document(certificate)
			m.run(asPrinted)
			p := m.serve()
			if err := m.sign(m.statement()); err != nil {
				t.Error(err)
			}
			next := m.statement()
			next.NotBefore, next.NotAfter = next.NotBefore.AddDate(1, 0, 0), next.NotAfter.AddDate(1, 0, 0)
			if err := m.sign(next); err == nil || !strings.Contains(err.Error(), "more than 10m0s apart") {
				t.Errorf("a statement of next year: %v", err)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRule63Passphrases: the document's commands for a passphrase, which is given as systemd gives it.
func TestRule63Passphrases(t *testing.T) {
	m, _ := onTPM(t)
	m.setUp(tpmFile)
	commands, _ := m.document(passphrase)
	m.run(commands)
	m.request("--pin-file signer.pin")
	if out, err := m.check(); err == nil || !strings.Contains(out, "has a passphrase") {
		t.Errorf("without the passphrase: %s, %v", out, err)
	}
	m.shell("mkdir -m 0700 credentials\ncp etc/signer.pin credentials/pin\nchmod 0400 credentials/pin")
	m.tools.Env = append(m.tools.Env, "CREDENTIALS_DIRECTORY="+m.tools.Path("credentials"))
	if out, err := m.check(); err != nil {
		t.Errorf("with the passphrase: %s, %v", out, err)
	}
	m.serve()
	if err := m.sign(m.statement()); err != nil {
		t.Error(err)
	}
}

// TestRule63Refused: what can never sign ends the start, with the cure; what may come does not.
func TestRule63Refused(t *testing.T) {
	m, p := onTPM(t)
	m.setUp(tpmFile)
	other, _ := onTPM(t)
	other.setUp(tpmFile)
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"another TPM's", []string{"--key", "tpm:" + other.tools.Path("etc/machine-key.pem")}, "made by another TPM"},
		{"a wrapped key as a file", []string{"--key", "file:" + m.tools.Path("etc/machine-key.pem")}, "name it as tpm:"},
		{"another certificate", []string{"--certificates", other.tools.Path("etc/machine.pem")}, "none of its 1 certificates is of the signer's key"},
		{"a PIN in the URI", []string{"--key", "pkcs11:object=a?module-path=/m.so&pin-value=1234"}, "think of a new PIN"},
		{"no TPM", []string{"--device", m.tools.Path("nothing")}, "there is no TPM at"},
		{"not a TPM", []string{"--device", "/dev/null"}, "does not answer"},
		{"a file as TPM", []string{"--device", m.tools.Path("etc/machine.pem")}, "neither the device"},
	} {
		out, err := m.check(test.args...)
		if err == nil || !strings.Contains(out, test.want) || strings.Contains(out, "1234") {
			t.Errorf("%s: %s, %v, want %q", test.name, out, err, test.want)
		}
	}
	if out, err := m.command("serve", "--socket", m.socket, "--key", "tpm:"+other.tools.Path("etc/machine-key.pem")).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "made by another TPM") {
		t.Errorf("serve with another TPM's key: %s, %v", out, err)
	}
	// A TPM that comes later.
	p.Kill()
	s := m.serve()
	if err := m.sign(m.statement()); err == nil || !strings.Contains(err.Error(), "there is no TPM at") {
		t.Errorf("without the TPM: %v", err)
	}
	p.Start()
	if _, err := s.Log.WaitText(0, "the key is open"); err != nil {
		t.Fatal(err)
	}
	if err := m.sign(m.statement()); err != nil {
		t.Error(err)
	}
}

// TestRule63WrongPIN: the signer goes on with a wrong PIN, tries it once, however often it is asked, and takes the right one
// once it is there.
func TestRule63WrongPIN(t *testing.T) {
	m, _ := onToken(t)
	m.setUp(inToken)
	pin := m.tools.Write("pin", "9999")
	s := m.serve("--pin-file", pin)
	for range 3 {
		if err := m.sign(m.statement()); err == nil || !strings.Contains(err.Error(), "refuse") {
			t.Errorf("with a wrong PIN: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if strings.Contains(s.Log.String(), "9999") {
		t.Error("the log has the PIN")
	}
	m.tools.Write("pin", testdevice.PIN)
	if _, err := s.Log.WaitText(0, "the key is open"); err != nil {
		t.Fatal(err)
	}
	if err := m.sign(m.statement()); err != nil {
		t.Error(err)
	}
}

// TestRequests: each kind of key signs a request that openssl takes, for names that are a machine's.
func TestRequests(t *testing.T) {
	m, token := onToken(t)
	m.setUp(inToken)
	for label, kind := range map[string]string{"p384": "EC:secp384r1", "ed25519": "EC:edwards25519", "rsa": "rsa:2048"} {
		token.Generate(label, kind, "--usage-sign")
		out, err := m.command("request", "--key", token.URI(label, ""), "Alpha.Example.COM", "other.example.com").Output()
		if err != nil {
			t.Errorf("%s: %v", label, err)
			continue
		}
		m.tools.Write("machine.csr", string(out))
		m.tools.Run("openssl", "req", "-in", "machine.csr", "-noout", "-verify")
		block, _ := pem.Decode(out)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || request.Subject.CommonName != alpha || !slices.Equal(request.DNSNames, []string{alpha, "other.example.com"}) ||
			!slices.ContainsFunc(request.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.String() == "2.5.29.15" }) {
			t.Errorf("%s: %+v, %v", label, request, err)
		}
	}
	for _, name := range []string{"192.0.2.1", "*.example.com", "localhost", "a_b"} {
		if out, err := m.command("request", name).CombinedOutput(); err == nil || !strings.Contains(string(out), "NAME") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}

// TestRule63Apart: the daemon has no device's code, and a signer without cgo has TPMs and says of tokens what to do.
func TestRule63Apart(t *testing.T) {
	list := func(program string) string {
		t.Helper()
		out, err := exec.Command("go", "list", "-deps", "../"+program).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, module := range []string{"github.com/google/go-tpm/", "github.com/miekg/pkcs11", "internal/signer/device"} {
		if strings.Contains(list("shared-altsd"), module) || !strings.Contains(list("shared-altsd-signer"), module) {
			t.Errorf("%s is in the daemon, or not in the signer", module)
		}
	}
	path := filepath.Join(testprog.Dir(t), name)
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for key, want := range map[string]string{"pkcs11:object=a?module-path=/m.so": "built without cgo", "handle:0x81000100": "there is no TPM at"} {
		out, err := exec.Command(path, "request", "--key", key, "--device", path+".none", alpha).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %s, %v, want %q", key, out, err, want)
		}
	}
}

func TestManual(t *testing.T) {
	var out strings.Builder
	if err := newProgram().WriteManual(&out, manual); err != nil || !strings.Contains(out.String(), "PKCS #11") {
		t.Errorf("%v: %s", err, out.String())
	}
	for _, args := range [][]string{{"serve"}, {"check", "--key", "handle:0x81000100"}, {"request", "--key", "handle:0x81000100"}, {"serve", "--key", "handle:1"}} {
		if code := newProgram().Run(args, io.Discard, &out); code != 2 {
			t.Errorf("%q: exit status %d", args, code)
		}
	}
}
