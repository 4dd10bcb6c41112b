package standin

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PassedOn returns the signals that go to the command. The others stop or continue this process itself, or are of no
// concern to the command.
func PassedOn() []os.Signal {
	list := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPWR}
	for s := syscall.Signal(35); s <= 64; s++ {
		list = append(list, s) // real-time signals, which systemd uses
	}
	return list
}

// Notify has to those of PassedOn sent that this process does not ignore: nohup's SIGHUP stays ignored.
func Notify(to chan<- os.Signal) {
	for _, s := range PassedOn() {
		if !signal.Ignored(s) {
			signal.Notify(to, s)
		}
	}
}

// A Process takes signals.
type Process interface{ Signal(syscall.Signal) }

// PassOn sends the command each signal that arrives and that it does not have already, until done.
func PassOn(signals <-chan os.Signal, p Process, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if n := s.(syscall.Signal); !fromTerminal(n) {
				p.Signal(n)
			}
		case <-done:
			return
		}
	}
}

// fromTerminal reports whether s is one that the terminal sends to its whole foreground process group, which the
// command shares with this process: the command has it already.
func fromTerminal(s syscall.Signal) bool {
	return (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) && inForeground()
}

// defaultAction returns s back the action that it has in a new process. A struct sigaction of zeros says so on every
// architecture; none has one longer than this.
func defaultAction(s syscall.Signal) {
	var action [64]byte
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
