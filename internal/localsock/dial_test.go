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
	"time"

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
		if !Overflow(65534) || Overflow(0) || Overflow(1000) {
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

// Any account can fill the queue of those who wait to be accepted: who finds it full gets in as soon as there is room.
func TestDialWaitsForTheQueue(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)) // room for one
	}
	if err != nil {
		t.Fatal(err)
	}
	first, err := Dial(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, path, 0); !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "queue was full") {
		t.Errorf("a full queue: %v", err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		if accepted, _, err := unix.Accept(fd); err == nil {
			unix.Close(accepted)
		}
	}()
	second, err := Dial(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
