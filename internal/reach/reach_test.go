package reach

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// listen listens at a path of its own, which every account may connect to.
func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	path := filepath.Join(testprog.Dir(t), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

// Each way for a daemon not to be there has words of its own, and a next step.
func TestWhatKeepsItFromAnswering(t *testing.T) {
	for _, tt := range []struct {
		name  string
		make  func(t *testing.T) (socket string)
		what  string
		next  string
		cause error
	}{
		{"no directory", func(t *testing.T) string { return filepath.Join(testprog.Dir(t), "none", "socket") },
			"there is no socket", "systemctl start", fs.ErrNotExist},
		{"no file", func(t *testing.T) string { return filepath.Join(testprog.Dir(t), "socket") },
			"there is no socket", "systemctl status", fs.ErrNotExist},
		{"a plain file", func(t *testing.T) string { return testprog.Write(t, filepath.Join(testprog.Dir(t), "f"), nil) },
			"is not a socket", "remove it", unix.ECONNREFUSED},
		{"nobody listens", func(t *testing.T) string {
			l, path := listen(t)
			l.SetUnlinkOnClose(false)
			l.Close()
			return path
		}, "nobody listens at the socket", "systemctl start", unix.ECONNREFUSED},
		{"nobody accepts", func(t *testing.T) string {
			_, path := listen(t)
			return path
		}, "(process ", "journalctl", os.ErrDeadlineExceeded},
		{"a full queue", func(t *testing.T) string {
			path := filepath.Join(testprog.Dir(t), "socket")
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				t.Cleanup(func() { unix.Close(fd) })
				err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0))
			}
			if err != nil {
				t.Fatal(err)
			}
			first, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { first.Close() })
			return path
		}, "queue of the socket", "systemctl status", unix.EAGAIN},
		{"who hangs up", func(t *testing.T) string {
			l, path := listen(t)
			go testnet.ServeEach(l, func(net.Conn) {})
			return path
		}, "hangs up", "try again", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			socket := tt.make(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := Daemon(ctx, socket, 0)
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.What, tt.what) || !strings.Contains(e.What, socket) || !strings.Contains(e.Next, tt.next) ||
				tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Under systemd it is the service manager that holds the socket, and the daemon behind it that does not start.
func TestTheServiceManagerHoldsIt(t *testing.T) {
	name, err := os.ReadFile("/proc/self/comm")
	if err == nil {
		err = os.WriteFile("/proc/self/comm", []byte("systemd"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/self/comm", name, 0)
	_, path := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := Daemon(ctx, path, 0); err == nil || !strings.Contains(err.Error(), "the service manager holds the socket") ||
		!strings.Contains(err.Error(), "shared-altsd check") {
		t.Error(err)
	}
}

// A gRPC server is there, whatever it serves; and a socket that comes back in a moment is waited for.
func TestItAnswers(t *testing.T) {
	defer func(bind, answer time.Duration) { bindWait, answerWait = bind, answer }(bindWait, answerWait)
	bindWait, answerWait = testprog.Patience, testprog.Patience
	path := filepath.Join(testprog.Dir(t), "socket")
	s := grpc.NewServer()
	defer s.Stop()
	go func() {
		time.Sleep(5 * bindRetry)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		s.Serve(l)
	}()
	if err := Daemon(t.Context(), path, 0); err != nil {
		t.Error(err)
	}
}

// An account that may not connect is told what it lacks.
func TestPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become an account that may not")
	}
	_, path := listen(t)
	as := func(want string) {
		t.Helper()
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // the thread ends with this
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 4711, 4711, 4711); errno != 0 {
				done <- errno
				return
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				defer unix.Close(fd)
				err = Explain(path, unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
			}
			done <- err
		}()
		if err := <-done; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, 0, 1)); err != nil {
		t.Fatal(err)
	}
	as("its mode is 0660 and its group daemon")
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	as("may not enter the socket's directory")
}
