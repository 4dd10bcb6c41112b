// Package nodumps keeps what a process holds in memory to itself.
package nodumps

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Set keeps the key material of this process out of core dumps and away from other processes of the same user (ptrace,
// /proc/PID/mem).
func Set() error {
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
