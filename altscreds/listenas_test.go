package altscreds_test

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// listenAs listens on a UNIX socket as another account. The kernel takes the credentials that a peer sees at listen(2);
// the thread that has changed its own ends with the goroutine that never unlocks it.
func listenAs(t *testing.T, uid int, path string) (l net.Listener) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setfsuid(uid); err != nil {
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			err = e
			return
		}
		l, err = net.Listen("unix", path)
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return l
}
