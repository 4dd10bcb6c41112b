// Package execns runs a program in a place where a stock gRPC library finds this machine's daemon: a mount namespace
// with the product name of Google's cloud, and with a hosts file that leads to a relay to the daemon's UNIX socket.
//
// Run is the part outside. A Go program cannot enter a user namespace once it runs, for it has several threads by then;
// so Run starts this program a second time, inside the new namespaces, and that calls Stage.
package execns

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// handshakerPort is where stock gRPC reaches its handshaker service, at the address of handshakerName.
const handshakerPort = 8080

// Config is what Run has to know.
type Config struct {
	// Socket is the daemon's UNIX socket, and DaemonUID whom it may run as, besides root and the caller (rule 28).
	Socket    string
	DaemonUID uint32
	// Prepared says that the product name and the lines of the hosts file are there already, so that no namespace is
	// made.
	Prepared bool
	// StageArgs come before Stage's arguments when this program is started as StageName: the caller's way to Stage.
	StageArgs []string
	// Report is told of what fails while the command runs, from any goroutine.
	Report func(error)
}

// Run starts the relay and the command, stays as the command's parent until that ends, and returns its exit status. If
// a signal ended the command, Run ends this process by the same one.
func (c *Config) Run(command []string) (status int, err error) {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return 0, errors.New("real and effective account differ: exec is not for setuid programs")
	}
	r, err := newRelay(c.Socket, c.DaemonUID, c.Report)
	if err != nil {
		return 0, err
	}
	if err := r.probe(); err != nil {
		return 0, err
	}
	l, err := c.listen()
	if err != nil {
		return 0, err
	}
	addr := l.Addr().(*net.TCPAddr).IP.String()

	// The command is to die with the thread that starts it (PR_SET_PDEATHSIG), so that thread is kept.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 64)
	for _, s := range passedOn() {
		if !signal.Ignored(s) { // nohup's SIGHUP stays ignored
			signal.Notify(signals, s)
		}
	}
	pid, err := c.start(addr, command)
	if err != nil {
		return 0, err
	}
	go func() {
		if err := r.serve(l); err != nil {
			c.Report(err)
		}
	}()
	go passOn(signals, pid)
	ended, err := await(pid)
	if err != nil {
		return 0, err
	}
	return exitLike(ended), nil
}

// listen returns the relay's socket: at a random address of 127.0.0.0/8, so that each Run has its own, or at the one
// that the prepared hosts file names.
func (c *Config) listen() (*net.TCPListener, error) {
	if c.Prepared {
		addr, err := preparedAddress()
		if err != nil {
			return nil, err
		}
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: addr, Port: handshakerPort})
		if err != nil {
			return nil, fmt.Errorf("no relay at the address that %s gives for %s: %w", hostsFile, handshakerName, err)
		}
		return l, nil
	}
	for attempt := 0; ; attempt++ {
		var b [3]byte
		rand.Read(b[:])
		addr := net.IPv4(127, 64|b[0]&63, b[1], 1+b[2]%254)
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: addr, Port: handshakerPort})
		if err == nil {
			return l, nil
		}
		if attempt == 20 {
			return nil, fmt.Errorf("no loopback address has port %d free: %w (gRPC fixes this port; a program that listens "+
				"on it at every address takes them all: find it with ss -ltnp 'sport = :%d' and let it listen on one address or "+
				"another port)", handshakerPort, err, handshakerPort)
		}
	}
}

// start starts the command by way of the stage, in namespaces of its own where the view is still to be made.
func (c *Config) start(addr string, command []string) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: environ(os.Environ(), c.Socket), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{}}
	view := addr
	switch {
	case c.Prepared:
		view = noView
	case mayMount():
		attr.Sys.Cloneflags = syscall.CLONE_NEWNS
	default:
		// The account keeps its number in the new user namespace; the one capability that the mounts need is given up
		// before the command runs.
		attr.Sys.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	argv := append([]string{StageName}, c.StageArgs...)
	argv = append(argv, strconv.Itoa(os.Getpid()), view)
	pid, err = syscall.ForkExec("/proc/self/exe", append(argv, command...), attr)
	if err != nil && attr.Sys.Cloneflags&syscall.CLONE_NEWUSER != 0 {
		err = &Error{NoNamespace, fmt.Errorf("making a user namespace: %w", err)}
	}
	return pid, err
}

// mayMount reports whether this process is root with the right to mount: it then needs no user namespace, in which it
// would lose rights that the command may count on.
func mayMount() bool {
	if os.Geteuid() != 0 {
		return false
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// await waits for the command's end. When the command stops, this process stops too, so that the shell sees it.
func await(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("waiting for the command's end: %w", err)
		case status.Stopped():
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			syscall.Kill(pid, syscall.SIGCONT)
		default:
			return status, nil
		}
	}
}

// exitLike returns the exit status of a command that exited, and ends this process like one that a signal ended.
func exitLike(ended syscall.WaitStatus) int {
	if !ended.Signaled() {
		return ended.ExitStatus()
	}
	// The core that there is to see is the command's. Go's runtime has handlers of its own, which would not end it
	// quietly.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	defaultAction(ended.Signal())
	syscall.Kill(os.Getpid(), ended.Signal())
	return 128 + int(ended.Signal())
}
