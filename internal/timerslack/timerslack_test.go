package timerslack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const slack = 5 * time.Millisecond

// The program that Set executes again is this one.
func TestMain(m *testing.M) {
	if err := Set(slack); err != nil {
		println("timerslack:", err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Every thread has the slack, those that come later as well, and a child has what we began with.
func TestSet(t *testing.T) {
	if os.Getenv(Variable) != "" {
		t.Error("children would be told that they were executed again")
	}
	// Threads, each held by a call of its own.
	var wg sync.WaitGroup
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		wg.Go(func() {
			var b [1]byte
			unix.SetNonblock(int(r.Fd()), false)
			unix.Read(int(r.Fd()), b[:])
		})
	}
	threads := func() (n int) {
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			b, err := os.ReadFile("/proc/" + filepath.Base(task) + "/timerslack_ns")
			if errors.Is(err, os.ErrNotExist) {
				continue // it has ended
			}
			if errors.Is(err, unix.EPERM) {
				t.Skip("needs root: to read the timer slack of other threads")
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(string(b)); got != "5000000" {
				t.Errorf("a thread of %d has %s ns", len(tasks), got)
			}
			n++
		}
		return n
	}
	for threads() < 20 {
		time.Sleep(time.Millisecond)
	}
	w.Close()
	wg.Wait()
	r.Close()
}

func TestInherited(t *testing.T) {
	child := func(start func(*exec.Cmd) error) string {
		var out strings.Builder
		cmd := exec.Command("cat", "/proc/self/timerslack_ns")
		cmd.Stdout = &out
		if err := start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	if got := child((*exec.Cmd).Start); got != "5000000" {
		t.Errorf("a child has %s ns", got)
	}
	if got := child(func(c *exec.Cmd) error { return Inherited(c.Start) }); got != "50000" {
		t.Errorf("a child that inherits has %s ns", got)
	}
	failed := errors.New("failed")
	if err := Inherited(func() error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || now != int(slack) {
		t.Errorf("then %d, %v", now, err)
	}
}

// What somebody else puts into the environment ends nothing.
func TestVariable(t *testing.T) {
	for _, v := range []string{"", "x", "-1", "0"} {
		t.Setenv(Variable, v)
		if err := Set(slack); err == nil || os.Getenv(Variable) != "" {
			t.Errorf("%q was taken: %v", v, err)
		}
	}
	t.Setenv(Variable, "50000")
	if err := Set(slack + 1); err == nil {
		t.Error("a slack that was not set was taken")
	}
	if inherited.Load() != 50_000 || own.Load() != int64(slack) {
		t.Errorf("left behind: %d, %d", inherited.Load(), own.Load())
	}
}

// A thread that has slept has its slack again.
func TestSleep(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Sleep(time.Microsecond)
	if got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || got != int(slack) {
		t.Errorf("%d ns, %v", got, err)
	}
}
