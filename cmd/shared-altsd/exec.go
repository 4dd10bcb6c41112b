package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/relay"
)

const (
	// Stock gRPC reaches its handshaker service at this name, with and without the dot, and this port.
	handshakerName = "metadata.google.internal"
	handshakerPort = 8080

	productNameFile = "/sys/class/dmi/id/product_name"
	productName     = "Google Compute Engine"
	hostsFile       = "/etc/hosts"

	// The exit statuses that env, nohup and timeout give, beside COMMAND's own.
	statusExecFailed = 125 // exec itself failed
	statusCannotRun  = 126 // COMMAND was found, and the system does not run it
	statusNotFound   = 127
)

var execCommand = &command{
	name:     "exec",
	args:     "-- COMMAND [ARGUMENT]...",
	summary:  "run a program whose gRPC looks for ALTS where Google's cloud has it (Python, Java, Go)",
	verbatim: true,
	about: `
Runs COMMAND so that an unchanged gRPC library finds this machine's daemon: in a mount namespace of its own, in which
` + productNameFile + ` reads "` + productName + `" and /etc/hosts maps ` + handshakerName + ` to
a loopback address. There exec itself relays to the daemon's UNIX socket, as the account that runs it and for sockets of
that account alone. No privileges are needed where the system allows user namespaces.

  shared-altsd exec -- python3 greeter_server.py

Arguments, environment, directory, open files, terminal, signals and exit status pass through. exec lives as long as
COMMAND does: run it in the foreground. Exit status: COMMAND's, or 125 if exec failed, 126 if COMMAND cannot be run, 127
if it is not found.`,
	setup: func() ([]option, func([]string) error) {
		var c execConfig
		return []option{
				{name: "socket", arg: "PATH", set: setString(&c.socket), help: "The daemon's UNIX socket; otherwise $" +
					altscreds.SocketVariable + ", otherwise " + localsock.DefaultPath + "."},
				{name: "prepared", set: setSwitch(&c.prepared),
					help: "Make no namespace: the product name and the line in /etc/hosts are there already, by options of " +
						"systemd or of a container. exec then relays from the address that /etc/hosts gives."},
			}, func(args []string) error {
				if os.Args[0] == stageName {
					return stage(args)
				}
				if len(args) == 0 {
					return usagef("no command given: shared-altsd exec -- COMMAND [ARGUMENT]...")
				}
				return c.run(args)
			}
	},
}

type execConfig struct {
	socket   string
	prepared bool
}

// complain writes one line of exec's own to standard error, which it shares with COMMAND.
func complain(err error) { fmt.Fprintf(os.Stderr, "shared-altsd exec: %s\n", oneLine(err.Error())) }

func execFailed(err error) error {
	complain(err)
	return exitStatus(statusExecFailed)
}

// run starts the relay and COMMAND, and stays as COMMAND's parent until that ends.
func (c *execConfig) run(command []string) error {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return execFailed(errors.New("real and effective account differ: exec is not for setuid programs"))
	}
	c.socket = localsock.Path(c.socket)
	r, err := relay.New(c.socket, complain)
	if err != nil {
		return execFailed(err)
	}
	if err := r.Probe(); err != nil {
		return execFailed(err)
	}
	l, err := c.listen()
	if err != nil {
		return execFailed(err)
	}
	addr := l.Addr().(*net.TCPAddr).IP.String()

	// COMMAND is to die with the thread that starts it (PR_SET_PDEATHSIG), so that thread is kept.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 64)
	for _, s := range passedOn() {
		if !signal.Ignored(s) { // nohup's SIGHUP stays ignored
			signal.Notify(signals, s)
		}
	}
	pid, err := c.start(addr, command)
	if err != nil {
		return execFailed(err)
	}
	go func() {
		if err := r.Serve(l); err != nil {
			complain(err)
		}
	}()
	go func() {
		for s := range signals {
			if n := s.(syscall.Signal); !fromTerminal(n) {
				syscall.Kill(pid, n)
			}
		}
	}()
	return exitLike(await(pid))
}

// listen gives the relay's socket: at a random address of 127.0.0.0/8, so that each exec has its own, or at the one
// that the prepared hosts file names.
func (c *execConfig) listen() (*net.TCPListener, error) {
	if c.prepared {
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

// preparedAddress checks what --prepared promises and gives the relay's address.
func preparedAddress() (net.IP, error) {
	name, err := os.ReadFile(productNameFile)
	if got := strings.TrimSpace(string(name)); err != nil || got != productName {
		return nil, fmt.Errorf("--prepared, but %s does not read %q (%v): mount a file with that text over it",
			productNameFile, productName, errOr(err, got))
	}
	hosts, err := os.ReadFile(hostsFile)
	if err != nil {
		return nil, err
	}
	addr := net.ParseIP(firstOr(hostsAddresses(hosts, handshakerName), ""))
	want := []string{addr.String(), "::ffff:" + addr.String()}
	for _, n := range []string{handshakerName, handshakerName + "."} {
		if !addr.IsLoopback() || addr.To4() == nil || !slices.Equal(hostsAddresses(hosts, n), want) {
			return nil, fmt.Errorf("--prepared, but %s does not have for %s one address of 127.0.0.0/8, and after it the "+
				"same as ::ffff:127.N.N.N: add two such lines, each with the name with and without a dot at its end", hostsFile, n)
		}
	}
	return addr, nil
}

func firstOr(list []string, other string) string {
	if len(list) == 0 {
		return other
	}
	return list[0]
}

func errOr(err error, got string) any {
	if err != nil {
		return err
	}
	return fmt.Sprintf("it reads %q", got)
}

// start starts COMMAND, by way of this program's own second stage where namespaces are to be made.
func (c *execConfig) start(addr string, command []string) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: execEnv(os.Environ(), c.socket), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{}}
	view := addr
	switch {
	case c.prepared:
		view = "-" // the stage then makes no mounts
	case mayMount():
		attr.Sys.Cloneflags = syscall.CLONE_NEWNS
	default:
		// The account keeps its number in the new user namespace; the one capability that the mounts need is given up
		// before COMMAND runs.
		attr.Sys.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	argv := append([]string{stageName, "exec", "--", fmt.Sprint(os.Getpid()), view}, command...)
	pid, err = syscall.ForkExec("/proc/self/exe", argv, attr)
	if err != nil && attr.Sys.Cloneflags&syscall.CLONE_NEWUSER != 0 {
		err = fmt.Errorf("making a user namespace: %w (%s)", err, namespaceCure)
	}
	return pid, err
}

const namespaceCure = "the system has to allow user namespaces: see the sysctls user.max_user_namespaces, " +
	"kernel.unprivileged_userns_clone on Debian, kernel.apparmor_restrict_unprivileged_userns on Ubuntu; else prepare " +
	"the mounts by systemd or the container and use --prepared, as docs/clients.md shows"

// mayMount tells whether this process is root with the right to mount: it then needs no user namespace, in which it
// would lose rights that COMMAND may count on.
func mayMount() bool {
	if os.Geteuid() != 0 {
		return false
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// execEnv gives COMMAND's environment: the caller's, with proxies kept away from the handshaker's name (C-core would
// send its handshakes to a proxy) and without the variable that would lead Java elsewhere, and with the socket for
// altscreds.
func execEnv(env []string, socket string) []string {
	get := func(name string) string {
		for _, kv := range slices.Backward(env) {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v
			}
		}
		return ""
	}
	names := handshakerName + "," + handshakerName + "."
	lower, upper, grpc := get("no_proxy"), get("NO_PROXY"), get("no_grpc_proxy")
	// Programs read one of the two, so a list that stood in one alone must not be hidden by the other.
	set := []string{altscreds.SocketVariable + "=" + socket,
		"no_proxy=" + join(lower, upper, names), "NO_PROXY=" + join(upper, lower, names)}
	if grpc != "" {
		set = append(set, "no_grpc_proxy="+join(grpc, "", names))
	}
	replaced := []string{altscreds.SocketVariable, "no_proxy", "NO_PROXY", "no_grpc_proxy", "GCE_METADATA_HOST"}
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(replaced, k)
	})
	return append(kept, set...)
}

// join appends more to the list, or to the other list where this one is empty.
func join(list, other, more string) string {
	if list == "" {
		list = other
	}
	if list == "" {
		return more
	}
	return list + "," + more
}

// passedOn gives the signals that go to COMMAND. The others stop or continue exec itself, or are of no concern to
// COMMAND.
func passedOn() []os.Signal {
	list := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPWR}
	for s := syscall.Signal(35); s <= 64; s++ {
		list = append(list, s) // real-time signals, which systemd uses
	}
	return list
}

// fromTerminal tells whether s is one that the terminal sends to its whole foreground process group, which COMMAND
// shares with exec: COMMAND has it already.
func fromTerminal(s syscall.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT && s != syscall.SIGWINCH {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // no terminal
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// await waits for COMMAND's end. When COMMAND stops, exec stops too, so that the shell sees it.
func await(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return statusExecFailed << 8
		case status.Stopped():
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			syscall.Kill(pid, syscall.SIGCONT)
		default:
			return status
		}
	}
}

// exitLike ends this process as COMMAND ended: with its exit status, or by the same signal.
func exitLike(status syscall.WaitStatus) error {
	if !status.Signaled() {
		return exitStatus(status.ExitStatus())
	}
	// The core that there is to see is COMMAND's. Go's runtime has handlers of its own, which would not end it quietly.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	defaultAction(status.Signal())
	syscall.Kill(os.Getpid(), status.Signal())
	return exitStatus(128 + int(status.Signal()))
}
