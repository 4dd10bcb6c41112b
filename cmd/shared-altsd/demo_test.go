package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The demo works for whoever runs the tests and for an account without privileges, and leaves nothing behind.
func TestDemo(t *testing.T) {
	attr, _ := ordinaryUser(t)
	for name, attr := range map[string]*syscall.SysProcAttr{"self": nil, "ordinary": attr} {
		t.Run(name, func(t *testing.T) {
			dir := testprog.Dir(t)
			if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program(t), "demo")
			cmd.SysProcAttr = attr
			cmd.Dir = "/"
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				`handshake of [0-9]{4} bytes \([0-9]+ sent, [0-9]+ received\) in [0-9.]+ ms`,
				`the server is [a-z0-9._-]+@beta\.demo\n`, `the client is [a-z0-9._-]+@alpha\.demo\n`,
				`\(target_mismatch\)`, `the peer's daemon refused: .*\(unknown_ca\)`, `All came out as it should\.`,
			} {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("no %s in\n%s", want, out)
				}
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Where the daemons cannot work the demo says why and fails: here in a directory that rule 23 refuses.
func TestDemoFails(t *testing.T) {
	dir := testprog.Dir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "chmod go-w") ||
		strings.Contains(string(out), "All came out") {
		t.Errorf("%v\n%s", err, out)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
