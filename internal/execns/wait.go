package execns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/standin"
)

// A child is a command in no namespace of ours, as exec sees it. exec is made to inherit all of the command's
// descendants that lose their parent.
type child struct {
	pid    int
	report func(error)
}

func (c *child) Signal(s syscall.Signal) { syscall.Kill(c.pid, s) }

// wait waits for the command's end, and ends all its descendants. When the command stops, this process stops too, so
// that the shell sees it.
func (c *child) wait() (syscall.WaitStatus, error) {
	for {
		pid, status, err := standin.Wait4(-1, syscall.WUNTRACED)
		switch {
		case err != nil:
			return 0, err
		case pid != c.pid:
		case status.Stopped():
			standin.StopLike()
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
		if _, _, err := standin.Wait4(-1, unix.WALL); err != nil {
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
