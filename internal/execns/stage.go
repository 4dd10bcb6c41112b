package execns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/standin"
)

// StageName is the name under which Run starts this program again: a program that finds it in os.Args[0] calls Stage
// with what Config.StageArgs leave of its arguments.
const StageName = "shared-altsd-exec-stage"

// The stages, each with its arguments in front of the command.
const (
	stageInit    = "init"    // the numbers of two descriptors, the handshaker's address, the pid of Run's process
	stageCommand = "command" // the same pid
	stageAsk     = "ask"     // the same, and the number of a descriptor by which Run's process takes on redirection
	stageHere    = "here"    // the same pid, which is that of the parent
)

// Stage is a stage on the way to the command. It returns only if that fails.
func (c *Config) Stage(args []string) error {
	switch {
	case len(args) > 5 && args[0] == stageInit:
		var fds [2]int
		for i := range fds {
			var err error
			if fds[i], err = strconv.Atoi(args[1+i]); err != nil {
				return err
			}
			unix.CloseOnExec(fds[i])
		}
		start := slices.Clone(os.Args[:len(os.Args)-len(args)])
		return runInit(control(fds[0]), net.ParseIP(args[3]), start, args[4:], c.Report)
	case len(args) > 3 && args[0] == stageAsk:
		exec, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		unix.CloseOnExec(exec)
		runtime.LockOSThread() // the filter is this thread's
		fd, refused := filterConnects()
		if err := control(exec).tell(news{kind: redirected, fd: fd}); err != nil {
			return err
		}
		if refused != nil {
			os.Exit(1) // exec knows, and does without
		}
		unix.Close(fd)
		return c.Stage(slices.Concat([]string{stageCommand}, args[2:]))
	case len(args) > 2 && args[0] == stageCommand:
		if err := dropAmbient(); err != nil {
			return err
		}
	case len(args) > 2 && args[0] == stageHere:
		// Without the relay the command could make no call any more: a SIGKILL of Run's process is meant for both.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("PR_SET_PDEATHSIG: %w", err)
		}
		if strconv.Itoa(os.Getppid()) != args[1] {
			return errors.New("exec was killed")
		}
	default:
		return errors.New("this is for shared-altsd exec alone")
	}
	runtime.LockOSThread()
	namePID(args[1])
	return standin.Become(args[2:])
}

// namePID changes the variables by which a service manager names the process that they are for: its child, with the pid
// that exec has for itself. The command takes that place.
func namePID(exec string) {
	for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"} {
		if os.Getenv(name) == exec {
			os.Setenv(name, strconv.Itoa(os.Getpid()))
			if name == "LISTEN_PID" {
				os.Unsetenv("LISTEN_PIDFDID") // names exec once more, and would be believed rather
			}
		}
	}
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
