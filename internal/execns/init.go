package execns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/standin"
)

// An initProcess is pid 1 of the PID namespace in which the command and all its descendants live.
//
// Whoever binds the relay's address is the handshaker of all that still connects to it. So the address must stay taken
// until nothing is left that has it in its hosts file, whichever process a SIGKILL ends. The kernel, when a process
// ends, closes its descriptors before it kills its children, even at the end of a PID namespace: one holder of the
// listening socket is not enough. Therefore exec holds it, and this process, too. When exec ends, this one kills all
// others and reaps them before it ends itself; when this one is killed, the kernel kills all others, and exec lets go of
// the socket only once it has reaped this one, for which the kernel has reaped all others.
type initProcess struct {
	exec  control
	begun sync.WaitGroup // until pid is known
	pid   int            // the command's
}

// runInit makes the view in which addr is the handshaker's, starts the stage with exec's pid and the command as its
// arguments, and never returns once that has been done. failed is told of what fails later.
func runInit(exec control, addr net.IP, stage, args []string, failed func(error)) error {
	p := &initProcess{exec: exec}
	p.begun.Add(1)
	// Signals that come to the whole process group, or from a service manager, are the command's to obey; caught, not
	// ignored, so that the command does not inherit it.
	unheard := make(chan os.Signal, 1)
	standin.Notify(unheard)
	go p.follow()
	runtime.LockOSThread()
	own := os.Getenv(localsock.Variable)
	v := &view{dir: viewDir(own), addr: addr}
	if err := v.mount(); err != nil {
		return err
	}
	if err := mountProc(); err != nil {
		return err
	}
	if addr.Equal(nowhere) {
		inherited, err := unix.Dup(int(exec)) // without close-on-exec
		if err != nil {
			return err
		}
		defer unix.Close(inherited)
		stage = append(stage, stageAsk, strconv.Itoa(inherited))
	} else {
		stage = append(stage, stageCommand)
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}
	pid, err := syscall.ForkExec("/proc/self/exe", append(stage, args...), attr)
	if err != nil {
		return err
	}
	p.pid = pid
	p.begun.Done()
	go func() {
		err := v.keep()
		failed(err)
		unix.Kill(-1, unix.SIGKILL)
	}()
	status := p.await()
	killAll()
	v.end()
	removeOwn(own) // exec may have been killed
	p.exec.tell(news{kind: commandEnded, status: status})
	os.Exit(0)
	return nil
}

// follow passes the signals on that exec sends; when exec has ended, it kills all, so that await returns.
func (p *initProcess) follow() {
	for {
		s, alive := p.exec.nextSignal()
		p.begun.Wait()
		if !alive {
			unix.Kill(-1, unix.SIGKILL)
			return
		}
		unix.Kill(p.pid, s)
	}
}

// await waits for the command's end, reaps what has lost its parent, and tells exec when the command stops.
func (p *initProcess) await() syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WUNTRACED|unix.WALL, nil)
		switch {
		case err == syscall.EINTR || pid != p.pid && err == nil:
		case err == nil && status.Stopped():
			p.exec.tell(news{kind: commandStopped, status: status, pid: pid})
		default:
			return status
		}
	}
}

// killAll ends all processes of this namespace but this one, and returns when nothing is left of them. One that may not
// be killed, root's of a kind without CAP_KILL, is waited for.
func killAll() {
	for {
		unix.Kill(-1, unix.SIGKILL)
		if _, err := syscall.Wait4(-1, nil, unix.WALL, nil); errors.Is(err, syscall.ECHILD) {
			return
		}
	}
}

// An inside is a command in namespaces of its own, as exec sees it.
type inside struct {
	control control
	init    int            // pid of the namespace's init
	to      netip.AddrPort // the relay
	report  func(kind string, err error)
}

// startInside starts init, and by it the command, in the namespaces of attr, where the handshaker is at addr. init gets
// a descriptor of the relay's listening socket, which it keeps open and does nothing with.
func (c *Config) startInside(l *net.TCPListener, addr net.IP, command []string, attr *syscall.ProcAttr,
	report func(string, error)) (*inside, error) {
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(int(theirs))
	held, err := duplicate(l)
	if err != nil {
		return nil, err
	}
	defer unix.Close(held)
	// They are the only ones without close-on-exec that are not the command's own; init closes the gap at once.
	for _, fd := range []int{int(theirs), held} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return nil, err
		}
	}
	argv := c.stageArgs(stageInit, strconv.Itoa(int(theirs)), strconv.Itoa(held), addr.String(), strconv.Itoa(os.Getpid()))
	pid, err := syscall.ForkExec("/proc/self/exe", append(argv, command...), attr)
	if err != nil {
		return nil, err
	}
	if addr.Equal(nowhere) && !mayTakeFrom(pid) {
		unix.Close(int(ours))
		_, _, err := standin.Wait4(pid, 0)
		return nil, errors.Join(errNoRedirect, err)
	}
	return &inside{control: ours, init: pid, to: l.Addr().(*net.TCPAddr).AddrPort(), report: report}, nil
}

// duplicate returns another descriptor of l's socket.
func duplicate(l *net.TCPListener) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return 0, cerr
	}
	return fd, err
}

func (i *inside) Signal(s syscall.Signal) { i.control.signal(s) }

// wait waits until the namespace is no more. When the command stops, this process stops too, so that the shell sees it.
func (i *inside) wait() (syscall.WaitStatus, error) {
	defer unix.Close(int(i.control))
	var ended *syscall.WaitStatus
	var refused error
	for {
		n, alive := i.control.nextNews()
		if !alive {
			break
		}
		switch n.kind {
		case commandEnded:
			ended = &n.status
		case redirected:
			if n.fd == 0 {
				refused = errNoRedirect
				continue
			}
			go (&redirection{asks: n.fd, to: i.to, report: i.report}).serve()
		case commandStopped:
			if stopped(n.pid) { // still: a Ctrl-Z stopped this process as well, and whoever continued it did so to both
				standin.StopLike()
				i.control.signal(syscall.SIGCONT)
			}
		}
	}
	_, status, err := standin.Wait4(i.init, 0)
	if err == nil && ended != nil {
		status = *ended
	}
	return status, errors.Join(err, refused)
}
