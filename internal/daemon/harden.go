package daemon

import (
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/nodumps"
)

// harden is nodumps.Set for the daemon, and makes every file that it creates its own until it says otherwise.
func harden() error {
	unix.Umask(0o077)
	// The runtime ends a program of over 10,000 threads. The kernel may hold one for each connection of a hostile user.
	debug.SetMaxThreads(100_000)
	return nodumps.Set()
}
