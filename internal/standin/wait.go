package standin

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wait4 is wait4(2), until it says something.
func Wait4(pid, options int) (int, syscall.WaitStatus, error) {
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

// StopLike stops this process as the command is stopped, and returns when it is continued.
func StopLike() { syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) }

// ExitLike returns the exit status of a command that exited, and ends this process like one that a signal ended.
func ExitLike(ended syscall.WaitStatus) int {
	if !ended.Signaled() {
		return ended.ExitStatus()
	}
	// The core that there is to see is the command's. Go's runtime has handlers of its own, which would not end it
	// quietly.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	defaultAction(ended.Signal())
	syscall.Kill(syscall.Getpid(), ended.Signal())
	return 128 + int(ended.Signal())
}
