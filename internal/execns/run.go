// Package execns runs a program in a place where a stock gRPC library finds this machine's daemon: a mount namespace
// with the product name of Google's cloud, and with a hosts file that leads to a relay to the daemon's UNIX socket. A
// PID namespace around it sees to it that nothing which trusts the relay's address outlives the relay.
//
// Run is the part outside. A Go program cannot enter a user namespace once it runs, for it has several threads by then;
// so Run starts this program a second time, as init of the new namespaces, and that starts it a third time, to become
// the command. Both call Stage.
package execns

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/standin"
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
	// Loopback says that connect(2) is not to be redirected, and the relay is at port 8080 of a loopback address.
	Loopback bool
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
	if err := checkOrders(); err != nil {
		return 0, err
	}
	// With --prepared the command is to die with the thread that starts it (PR_SET_PDEATHSIG), so that thread is kept.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 64)
	standin.Notify(signals)
	giveBack := standin.KeepTerminal()
	redirect := !c.Prepared && !c.Loopback && canRedirect()
	ended, err := c.relayFor(r, redirect, command, signals)
	if redirect && errors.Is(err, errNoRedirect) { // the command has not been started yet
		ended, err = c.relayFor(r, false, command, signals)
	}
	if err != nil {
		return 0, err
	}
	giveBack()
	return standin.ExitLike(ended), nil
}

// relayFor listens, starts the command, and relays until the command's end.
func (c *Config) relayFor(r *relay, redirect bool, command []string, signals <-chan os.Signal) (
	ended syscall.WaitStatus, err error) {
	l, addr, err := c.listen(redirect)
	if err != nil {
		return 0, err
	}
	// Not before nothing lives any more that could connect to whoever takes the address next.
	defer l.Close()
	own, path, err := listenOwn()
	if err != nil {
		return 0, err
	}
	defer removeOwn(path)
	defer own.Close()
	go r.serveOwn(own)
	p, err := c.start(l, addr, path, command, r.reports.Say)
	if err != nil {
		return 0, err
	}
	go func() {
		if err := r.serve(l); err != nil {
			c.Report(err)
		}
	}()
	done := make(chan struct{})
	defer close(done)
	go standin.PassOn(signals, p, done)
	return p.wait()
}

// listen returns the relay's socket, and the address that the command has for the handshaker: nowhere, where that is
// redirected; or a random one of 127.0.0.0/8, so that each Run has its own; or the one that the prepared hosts file
// names.
func (c *Config) listen(redirect bool) (l *net.TCPListener, addr net.IP, err error) {
	switch {
	case c.Prepared:
		if addr, err = preparedAddress(); err != nil {
			return nil, nil, err
		}
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: addr, Port: handshakerPort})
		if err != nil {
			return nil, nil, fmt.Errorf("no relay at the address that %s gives for %s: %w", hostsFile, handshakerName, err)
		}
		return l, addr, nil
	case redirect:
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return l, nowhere, err
	}
	for attempt := 0; ; attempt++ {
		var b [3]byte
		rand.Read(b[:])
		addr := net.IPv4(127, 64|b[0]&63, b[1], 1+b[2]%254)
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: addr, Port: handshakerPort})
		if err == nil {
			return l, addr, nil
		}
		if attempt == 20 {
			return nil, nil, fmt.Errorf("no loopback address has port %d free: %w (gRPC fixes this port; a program that listens "+
				"on it at every address takes them all: find it with ss -ltnp 'sport = :%d' and let it listen on one address or "+
				"another port)", handshakerPort, err, handshakerPort)
		}
	}
}

// A process is the command.
type process interface {
	standin.Process
	// wait waits for the end of the command and of all its descendants, and returns the command's status.
	wait() (syscall.WaitStatus, error)
}

// start starts the command, with the socket of its own, in namespaces of its own where the view is still to be made.
func (c *Config) start(l *net.TCPListener, addr net.IP, own string, command []string, report func(string, error)) (
	process, error) {
	if os.Getenv(javaProxy) != "" {
		c.Report(fmt.Errorf("%s is kept from the command: it would send the handshaker's connections to that proxy, too "+
			"(-Dhttps.proxyHost knows exceptions)", javaProxy))
	}
	env, command, err := guardJava(environ(os.Environ(), own, addr), command)
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{}}
	if c.Prepared {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
		}
		argv := c.stageArgs(stageHere, strconv.Itoa(os.Getpid()))
		pid, err := syscall.ForkExec("/proc/self/exe", append(argv, command...), attr)
		if err != nil {
			return nil, err
		}
		return &child{pid, c.Report}, nil
	}
	attr.Sys.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	if !mayMount() {
		// The account keeps its number in the new user namespace; the one capability that the mounts need is given up
		// before the command runs.
		attr.Sys.Cloneflags |= syscall.CLONE_NEWUSER
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	p, err := c.startInside(l, addr, command, attr, report)
	if err != nil {
		return nil, &Error{NoNamespace, fmt.Errorf("making namespaces: %w", err)}
	}
	return p, nil
}

// stageArgs returns how this program is started as the stage, up to the command.
func (c *Config) stageArgs(args ...string) []string {
	return slices.Concat([]string{StageName}, c.StageArgs, args)
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
