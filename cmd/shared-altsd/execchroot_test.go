package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// In a chroot the kernel makes no user namespace, whatever the sysctls say, and exec does not blame these alone.
func TestExecInChroot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can chroot")
	}
	dir := rootWithProgram(t)
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o700), os.Chmod(tmp, os.ModeSticky|0o777)); err != nil {
		t.Fatal(err)
	}
	start(t, append(single(t), "--socket", filepath.Join(dir, "socket"))...)
	cmd := exec.Command("/shared-altsd", "exec", "--socket", "/socket", "--", "/shared-altsd", "version")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in a chroot the kernel never does") {
		t.Errorf("%v: %s", err, out)
	}
}
