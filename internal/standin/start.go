// Package standin is what stands in for another program, the command that it runs, has to do: find it, pass its signals
// on, stop as it stops, end as it ends.
package standin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// The exit statuses that env, nohup and timeout give, beside the command's own.
const (
	StatusFailed    = 125 // who was to run it failed
	StatusCannotRun = 126 // it was found, and the system does not run it
	StatusNotFound  = 127
)

// An Error is why the command does not run, whoever was to run it.
type Error struct {
	Found bool
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns what failed.
func (e *Error) Unwrap() error { return e.Err }

// Status returns the exit status that says so.
func (e *Error) Status() int {
	if e.Found {
		return StatusCannotRun
	}
	return StatusNotFound
}

// Become runs the command in this process, found as a shell finds it. It returns only if that fails.
func Become(command []string) error {
	return run(command, func(path string, argv []string) error { return unix.Exec(path, argv, os.Environ()) })
}

// A Child is a command that runs.
type Child struct{ pid int }

// Start starts the command with this process's files and terminal and the environment given, found as a shell finds it.
func Start(command, env []string) (c *Child, err error) {
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}}
	err = run(command, func(path string, argv []string) error {
		pid, err := syscall.ForkExec(path, argv, attr)
		c = &Child{pid}
		return err
	})
	return c, err
}

// Signal sends it a signal.
func (c *Child) Signal(s syscall.Signal) { syscall.Kill(c.pid, s) }

// Wait waits for its end. When it stops, this process stops too, so that the shell sees it.
func (c *Child) Wait() (syscall.WaitStatus, error) {
	for {
		_, status, err := Wait4(c.pid, syscall.WUNTRACED)
		if err != nil || !status.Stopped() {
			return status, err
		}
		StopLike()
		c.Signal(syscall.SIGCONT)
	}
}

// run has start run the command.
func run(command []string, start func(path string, argv []string) error) error {
	path, err := exec.LookPath(command[0])
	if err == nil || errors.Is(err, exec.ErrDot) {
		err = start(path, command)
		if err == unix.ENOEXEC { // a script without a first line that names its shell
			err = start("/bin/sh", append([]string{"sh", path}, command[1:]...))
		}
		if err == nil {
			return nil
		}
		err = &fs.PathError{Op: "run", Path: path, Err: err}
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &Error{false, fmt.Errorf("command not found: %s (%w)", command[0], err)}
	}
	return &Error{true, fmt.Errorf("cannot run %s: %w", command[0], err)}
}
