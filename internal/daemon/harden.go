package daemon

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// harden is NoDumps for the daemon, and makes every file that it creates its own until it says otherwise.
func harden() error {
	unix.Umask(0o077)
	// The runtime ends a program of over 10,000 threads. The kernel may hold one for each connection of a hostile user.
	debug.SetMaxThreads(100_000)
	return NoDumps()
}

// NoDumps keeps the key material of this process out of core dumps and away from other processes of the same user
// (ptrace, /proc/PID/mem).
func NoDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switching core dumps off: prctl(PR_SET_DUMPABLE): %w", err)
	}
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// A system call filter may forbid that where the limit is 0 already.
	var now unix.Rlimit
	if err != nil && (unix.Getrlimit(unix.RLIMIT_CORE, &now) != nil || now.Cur != 0) {
		return fmt.Errorf("switching core dumps off: setrlimit(RLIMIT_CORE): %w", err)
	}
	return nil
}
