package localsock

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// listenAs listens at path as uid, on a thread that ends with that.
func listenAs(t *testing.T, uid int, path string) {
	t.Helper()
	var l net.Listener
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		l, err = net.Listen("unix", path)
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// In a user namespace every account from outside shows as the overflow uid, the daemon's and a stranger's alike.
func TestRule43OverflowUID(t *testing.T) {
	if os.Geteuid() != 0 {
		if !overflow(65534) || overflow(0) || overflow(1000) {
			t.Error("65534 alone is the overflow uid")
		}
		return
	}
	dir := testprog.Dir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for uid, believed := range map[int]bool{0: true, 4711: true, 65534: false} {
		path := filepath.Join(dir, "socket")
		listenAs(t, uid, path)
		c, err := Dial(context.Background(), path, uint32(uid))
		if believed {
			if err != nil {
				t.Errorf("uid %d: %v", uid, err)
				continue
			}
			c.Close()
		} else if untrusted, ok := errors.AsType[*UntrustedError](err); !ok || !untrusted.Overflow() ||
			!strings.Contains(err.Error(), "shared-altsd exec") {
			t.Errorf("uid %d: %v", uid, err)
		}
		os.Remove(path)
	}
}
