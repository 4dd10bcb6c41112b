package matrix

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// run starts a program as the account.
func run(t *testing.T, w *world, a account, d *daemon, name string, argv []string) *testprog.Talker {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{bePeer + "=1", "SHARED_ALTS_SOCKET=" + d.socket, "PATH=" + os.Getenv("PATH"),
		"PYTHONDONTWRITEBYTECODE=1", "GORACE=atexit_sleep_ms=0"}
	if a.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	p := testprog.Talk(t, name, cmd)
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM) }) // for what does not end with its standard input
	return p
}
