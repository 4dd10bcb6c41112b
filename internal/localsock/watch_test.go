package localsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// reachable reports whether who connects to the path gets to s.
func reachable(t *testing.T, s *Listener, path string) bool {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer c.Close()
	got, err := s.Accept() // is there, if it came here
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	return true
}

// A socket whose file is gone, or was replaced by what nobody needs, is bound again with its mode; what somebody else has
// put there stays.
func TestRule23BoundAgain(t *testing.T) {
	stale := func(t *testing.T, path string) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	foreign := func(t *testing.T, path string) {
		if os.Geteuid() != 0 {
			t.Skip("only root can make files of others")
		}
		stale(t, path)
		if err := os.Lchown(path, 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name      string
		happens   func(t *testing.T, path string)
		done, err string // "" for none
	}{
		{"nothing", func(*testing.T, string) {}, "", ""},
		{"removed", func(*testing.T, string) {}, "had been removed, and it was bound again", ""},
		{"removed with its lock", func(t *testing.T, path string) { os.Remove(path + lockSuffix) }, "bound again", ""},
		{"a stale socket", stale, "nobody serves", ""},
		{"a stale socket of another account's", foreign, "", "uid 4711"},
		{"a plain file", func(t *testing.T, path string) { testprog.Write(t, path, []byte("precious")) }, "", "not a socket"},
		{"a live server", func(t *testing.T, path string) { listenAs(t, os.Geteuid(), path) }, "", "served by another program"},
		{"the directory too", func(t *testing.T, path string) { os.RemoveAll(filepath.Dir(path)) }, "", "no such file"},
		{"a directory that is not safe", func(t *testing.T, path string) { os.Chmod(filepath.Dir(path), 0o777) }, "", "chmod go-w"},
		{"a lock of another daemon's", func(t *testing.T, path string) {
			os.Remove(path + lockSuffix)
			f, err := lockFile(path + lockSuffix)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, "", "another shared-altsd serves"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(mkdir(t, testprog.Dir(t), "d", 0o755), "socket")
			s, err := Listen(path, 0o640, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			first := s.Unix()
			if tt.name != "nothing" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				tt.happens(t, path)
			}
			before, _ := os.Lstat(path)
			for again := range 2 { // what is in the way is so the second time as well
				done, err := s.Watch()
				if again == 1 && tt.err == "" {
					tt.done = ""
				}
				if (done != "") != (tt.done != "") || !strings.Contains(done, tt.done) || (err != nil) != (tt.err != "") ||
					err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("call %d: %q, %v, want %q, %q", again, done, err, tt.done, tt.err)
				}
			}
			after, _ := os.Lstat(path)
			switch {
			case tt.err != "":
				if before != nil && (after == nil || !os.SameFile(before, after)) || before == nil && after != nil {
					t.Error("what is there was changed")
				}
				if s.Unix() != first {
					t.Error("another listener")
				}
			case !reachable(t, s, path):
				t.Error("not to be reached")
			case after.Mode() != fs.ModeSocket|0o640:
				t.Errorf("mode %v", after.Mode())
			case !isAt(s.lock, path+lockSuffix):
				t.Error("the lock is not at its path")
			}
			// What was in the way goes away.
			if err := errors.Join(os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o755)); err != nil {
				t.Fatal(err)
			}
			if done, err := s.Watch(); err != nil || !strings.Contains(done, "bound again") || !reachable(t, s, path) {
				t.Errorf("when the way is free: %q, %v", done, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after the end: %v", err)
			}
			if done, err := s.Watch(); done != "" || err != nil {
				t.Errorf("after the end: %q, %v", done, err)
			}
		})
	}
}

// Who loses his lock to another daemon says so, and neither takes the socket from it nor removes it at his end.
func TestRule23SecondDaemon(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	first, err := Listen(path, 0o666, -1)
	if err != nil {
		t.Fatal(err)
	}
	// The lock's file alone is gone: the first one's socket keeps the second from starting.
	os.Remove(path + lockSuffix)
	if _, err := Listen(path, 0o666, -1); err == nil || !strings.Contains(err.Error(), "served by another program") {
		t.Fatalf("beside a live one without a lock file: %v", err)
	}
	if done, err := first.Watch(); err != nil || !strings.Contains(done, "lock file") {
		t.Fatalf("%q, %v", done, err)
	}
	// All is gone, and the second one comes before the first has noticed.
	os.Remove(path)
	os.Remove(path + lockSuffix)
	second, err := Listen(path, 0o666, -1)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := first.Watch(); done != "" || err == nil || !strings.Contains(err.Error(), "another shared-altsd serves") {
		t.Errorf("the first: %q, %v", done, err)
	}
	if done, err := second.Watch(); done != "" || err != nil || !reachable(t, second, path) {
		t.Errorf("the second: %q, %v", done, err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if !reachable(t, second, path) {
		t.Error("the first one's end took the second one's socket")
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// Nobody gets in by the mode that a socket is made with, and the kernel knows it by the name that it has.
func TestRule23BoundUnderItsName(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	defer unix.Umask(unix.Umask(0))
	stop, tried := make(chan struct{}), make(chan int)
	if os.Geteuid() == 0 {
		go func() {
			runtime.LockOSThread() // the thread ends with this
			n := 0
			defer func() { tried <- n }()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 4711, 4711, 4711); errno != 0 {
				t.Error(errno)
				return
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
				unix.Close(fd)
				if n++; err == nil {
					t.Error("another account got in")
					return
				}
			}
		}()
	}
	for range 300 {
		s, err := Listen(path, 0o600, -1)
		if err != nil {
			t.Fatal(err)
		}
		table, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(table), " "+path+"\n") {
			t.Fatal("the kernel does not know the socket by its path")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if os.Geteuid() == 0 {
		t.Log(<-tried, "attempts")
	}
}

// The socket of the service manager cannot be bound again: what is wrong is said, with what to do.
func TestInheritedIsWatched(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	watch := func(s *Listener, want string) {
		t.Helper()
		done, err := s.Watch()
		if done != "" || (err != nil) != (want != "") || err != nil && (!strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "systemctl restart")) {
			t.Errorf("%q, %v, want %q", done, err, want)
		}
	}
	inherited := func(path string) *Listener {
		t.Helper()
		s, err := Inherited(l, path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := inherited(path)
	watch(s, "")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	watch(s, "was removed")
	watch(inherited(path), "is not there")
	watch(inherited(filepath.Join(dir, "none", "socket")), "") // a directory that the daemon does not see
	testprog.Write(t, path, nil)
	watch(s, "another file is in its place")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	watch(s, "")
}
