package standin

import (
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// KeepTerminal returns a function that gives the terminal back to this process's group, if that has it now: an
// interactive shell cannot do so at its end where it has no name for that group, outside its PID namespace.
func KeepTerminal() func() {
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
