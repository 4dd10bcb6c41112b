package execns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// wait4 is wait4(2), until it says something.
func wait4(pid, options int) (int, syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, options, nil)
		if err == nil {
			return got, status, nil
		}
		if err != syscall.EINTR {
			return 0, 0, fmt.Errorf("waiting for the command's end: %w", err)
		}
	}
}

// A child is a command in no namespace of ours, as exec sees it. exec is made to inherit all of the command's
// descendants that lose their parent.
type child struct {
	pid    int
	report func(error)
}

func (c *child) signal(s syscall.Signal) { syscall.Kill(c.pid, s) }

// wait waits for the command's end, and ends all its descendants. When the command stops, this process stops too, so
// that the shell sees it.
func (c *child) wait() (syscall.WaitStatus, error) {
	for {
		pid, status, err := wait4(-1, syscall.WUNTRACED)
		switch {
		case err != nil:
			return 0, err
		case pid != c.pid:
		case status.Stopped():
			stopLike()
			syscall.Kill(c.pid, syscall.SIGCONT)
		default:
			c.killOrphans()
			return status, nil
		}
	}
}

// killOrphans ends this process's children until there are none: who loses his parent by that becomes one in turn. One
// that may not be killed, another account's, is waited for, since the relay's address must not become free before.
func (c *child) killOrphans() {
	said := false
	for {
		for _, pid := range children() {
			if err := syscall.Kill(pid, syscall.SIGKILL); errors.Is(err, syscall.EPERM) && !said {
				said = true
				c.report(fmt.Errorf("the command has ended and left process %d, which this account may not end: exec waits "+
					"until it does", pid))
			}
		}
		if _, _, err := wait4(-1, unix.WALL); err != nil {
			return
		}
	}
}

// children returns the pids of this process's children.
func children() (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if fields := stat(pid); len(fields) > 1 && string(fields[1]) == strconv.Itoa(os.Getpid()) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// stopped reports whether the process is stopped now.
func stopped(pid int) bool {
	fields := stat(pid)
	return len(fields) > 0 && string(fields[0]) == "T"
}

// stat returns the fields of /proc/PID/stat after the process's name: its state, its parent and so on.
func stat(pid int) [][]byte {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
}

// stopLike stops this process as the command is stopped, and returns when it is continued.
func stopLike() { syscall.Kill(os.Getpid(), syscall.SIGSTOP) }

// exitLike returns the exit status of a command that exited, and ends this process like one that a signal ended.
func exitLike(ended syscall.WaitStatus) int {
	if !ended.Signaled() {
		return ended.ExitStatus()
	}
	// The core that there is to see is the command's. Go's runtime has handlers of its own, which would not end it
	// quietly.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	defaultAction(ended.Signal())
	syscall.Kill(os.Getpid(), ended.Signal())
	return 128 + int(ended.Signal())
}

// keepTerminal returns a function that gives the terminal back to this process's group, if that has it now: an
// interactive shell cannot do so at its end, for outside its PID namespace it has no name for that group.
func keepTerminal() func() {
	if !inForeground() {
		return func() {}
	}
	return func() {
		if inForeground() {
			return
		}
		tty, err := openTerminal()
		if err != nil {
			return
		}
		defer unix.Close(tty)
		signal.Ignore(syscall.SIGTTOU)
		unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, unix.Getpgrp())
	}
}

func openTerminal() (int, error) {
	return unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// inForeground reports whether this process's group is the one that reads from its terminal.
func inForeground() bool {
	tty, err := openTerminal()
	if err != nil {
		return false // no terminal
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
