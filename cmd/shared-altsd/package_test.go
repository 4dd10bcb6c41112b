package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The unit gives to serve what check takes for it.
func TestPackagePaths(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/shared-altsd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" serve --config " + packageConfig + " --credentials ${CREDENTIALS_DIRECTORY}/machine.pem\n",
		"\nLoadCredential=machine.pem:" + packageCredentials + "\n",
		"\nStateDirectory=" + strings.TrimPrefix(packageState, "/var/lib/") + "\n"} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("no %q in the unit", want)
		}
	}
}

// rootWithProgram returns a directory to chroot to, with the static program as /shared-altsd.
func rootWithProgram(t *testing.T) string {
	t.Helper()
	static, err := testprog.Static()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(static)
	if err != nil {
		t.Fatal(err)
	}
	dir := testprog.Dir(t)
	if err := os.Chmod(write(t, filepath.Join(dir, "shared-altsd"), data), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// On a machine with the package, which is here what the program sees as the root of its file system, check without flags
// judges what the unit's daemon has, and a renewed certificate by the CAs of the configuration.
func TestCheckPackage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can show a program another root")
	}
	machine := rootWithProgram(t)
	put := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(machine, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, data)
	}
	ca := newCA(t, testca.Options{})
	check := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command("/shared-altsd", append([]string{"check"}, args...)...)
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: machine}, "/"
		out, _ := cmd.CombinedOutput()
		for _, w := range strings.Split(want, "|") {
			if !strings.Contains(string(out), w) {
				t.Errorf("check %v: no %q in:\n%s", args, w, out)
			}
		}
	}
	const said = "config    " + packageConfig + ", since no --config is given\n"
	check("--credentials is missing")
	put(packageConfig, []byte("ca = /etc/ca.pem\ncrl = /etc/crl\n"))
	put("/etc/ca.pem", ca.PEM())
	put("/etc/crl", testca.MustCRL(t, ca, nil, testca.CRLOptions{}))
	if err := os.MkdirAll(filepath.Join(machine, packageState), 0o700); err != nil {
		t.Fatal(err)
	}
	check("--credentials: |" + packageCredentials + ": no such file")
	put(packageCredentials, issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	check(said + "machine   a.test\n|0 remembered in " + packageState + "\n|would accept this machine as a.test")
	put("/renewed.pem", issue(t, newCA(t, testca.Options{}), testca.Leaf{Hosts: []string{"b.test"}}).PEM())
	check(said+"machine   b.test\n|does not lead to a CA|would refuse", "--credentials", "/renewed.pem")
	// With both named, and with a file of one's own, it is not asked.
	put(packageConfig, []byte("nonsense\n"))
	check(packageConfig + ":1:")
	check("machine   b.test\n|would refuse", "--credentials", "/renewed.pem", "--ca", "/etc/ca.pem")
	put("/own.conf", []byte("ca = /etc/ca.pem\n"))
	check("--credentials is missing", "--config", "/own.conf")
}
