package execns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// StageName is the name under which Run starts this program a second time: a program that finds it in os.Args[0] calls
// Stage with what Config.StageArgs leave of its arguments.
const StageName = "shared-altsd-exec-stage"

// noView stands for the relay's address where the view is prepared already.
const noView = "-"

// Stage prepares the namespaces that it runs in and becomes the command, so it returns only if that fails. Its
// arguments are the pid of Run's process, the relay's address or noView, and the command.
func Stage(args []string) error {
	if len(args) < 3 {
		return errors.New("this is for shared-altsd exec alone")
	}
	parent, view, command := args[0], args[1], args[2:]
	runtime.LockOSThread()
	if view != noView {
		if err := mountView(net.ParseIP(view)); err != nil {
			return err
		}
		if err := dropAmbient(); err != nil {
			return err
		}
	}
	// A service manager names the process that its sockets are for.
	if os.Getenv("LISTEN_PID") == parent {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	// Without the relay the command could make no call any more: a SIGKILL of Run's process is meant for both.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_PDEATHSIG: %w", err)
	}
	if strconv.Itoa(os.Getppid()) != parent {
		return errors.New("exec was killed")
	}
	return become(command)
}

// become runs the command in this process, found as a shell finds it.
func become(command []string) error {
	path, err := exec.LookPath(command[0])
	if err == nil || errors.Is(err, exec.ErrDot) {
		err = unix.Exec(path, command, os.Environ())
		if err == unix.ENOEXEC { // a script without a first line that names its shell
			err = unix.Exec("/bin/sh", append([]string{"sh", path}, command[1:]...), os.Environ())
		}
		err = &fs.PathError{Op: "run", Path: path, Err: err}
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &Error{NotFound, fmt.Errorf("command not found: %s (%w)", command[0], err)}
	}
	return &Error{CannotRun, fmt.Errorf("cannot run %s: %w", command[0], err)}
}

// dropAmbient returns up the capability that the mounts needed. Root has it by being root, and keeps it.
func dropAmbient() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("dropping ambient capabilities: %w", err)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}
