// Package timerslack lets the kernel be late with this process's timers, so that it wakes less often.
//
// Go's scheduler sleeps for tens of microseconds at a time while there is work, with a thread that does nothing else, and
// an idle processor is woken for each. With slack, most of these sleeps end with an interrupt that comes anyway.
package timerslack

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Variable is what the environment has, for a moment, in a process that was executed again: the slack in nanoseconds that
// it was started with.
const Variable = "SHARED_ALTSD_TIMER_SLACK"

// own and inherited are the slacks in nanoseconds that Set has set, and that it found; 0 before.
var own, inherited atomic.Int64

// Set sets the slack of all threads of this process, and so of those that they make. A thread's is its own: all have to
// stop for a moment. In a program with C in it Go cannot do that, and Set executes the program again, with one thread
// that has it. So it comes before anything is opened, and needs no privilege; on error nothing has changed.
func Set(slack time.Duration) error {
	is, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("prctl(PR_GET_TIMERSLACK): %w", err)
	}
	was := strconv.Itoa(is)
	if v, ok := os.LookupEnv(Variable); ok {
		os.Unsetenv(Variable)
		if was, err = v, nil; int64(is) != int64(slack) {
			return fmt.Errorf("a program that was executed again with a timer slack of %d ns has %d", slack, is)
		}
	} else if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(slack), 0); e == unix.ENOTSUP {
		return again(slack, is)
	} else if e != 0 {
		return fmt.Errorf("prctl(PR_SET_TIMERSLACK): %w", e)
	}
	ns, err := strconv.ParseInt(was, 10, 64)
	if err != nil || ns <= 0 {
		return fmt.Errorf("%s is %q, which is no timer slack", Variable, was)
	}
	inherited.Store(ns)
	own.Store(int64(slack))
	return nil
}

// again executes this program again, and returns only an error.
func again(slack time.Duration, was int) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := set(int64(slack)); err != nil {
		return err
	}
	err = syscall.Exec(path, os.Args, append(os.Environ(), Variable+"="+strconv.Itoa(was)))
	return errors.Join(fmt.Errorf("executing %s again: %w", path, err), set(int64(was)))
}

// Inherited calls start with the slack that this process was started with, for a child that start makes: it gets that of
// the thread that makes it.
func Inherited(start func() error) error {
	slack := own.Load()
	if slack == 0 {
		return start()
	}
	runtime.LockOSThread() // which makes no thread of ours
	defer runtime.UnlockOSThread()
	if err := set(inherited.Load()); err != nil {
		return err
	}
	return errors.Join(start(), set(slack))
}

// Sleep sleeps for d and hardly longer, slack or not. It keeps a thread meanwhile, and so is for microseconds.
func Sleep(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if slack := own.Load(); slack != 0 && set(1) == nil {
		defer set(slack)
	}
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal may end it, which is early and no harm
}

func set(slack int64) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_TIMERSLACK): %w", err)
	}
	return nil
}
