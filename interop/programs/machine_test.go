package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// An account of one machine. Those of the two machines have no uid in common, since the kernel has but one set of them.
type account struct {
	name string
	uid  uint32
}

var root = account{"root", 0}

// on returns the account's identity on a machine.
func (a account) on(m *machine) string { return a.name + "@" + m.name }

// A machine has its own network, users and daemon.
type machine struct {
	w        *world
	name     string    // alpha.example.com
	addr     string    // on the network that it shares with the others
	dir      string    // its files: etc, which lies over some of /etc, run for all of /run, home/ACCOUNT
	accounts []account // besides root
	holder   *exec.Cmd // the process that has its network
	within   *machine  // whose network it has, if it has none of its own
	socket   string    // of its daemon
	daemon   *testprog.Process
	ends     io.Closer // of holder
}

// account returns one of the machine's.
func (m *machine) account(name string) account {
	if name == root.name {
		return root
	}
	i := slices.IndexFunc(m.accounts, func(a account) bool { return a.name == name })
	if i < 0 {
		panic(m.name + " has no account " + name)
	}
	return m.accounts[i]
}

// home returns an account's directory.
func (m *machine) home(a account) string { return filepath.Join(m.dir, "home", a.name) }

// folder makes a folder in the directory of an account, for the length of a test, and returns its path.
func (m *machine) folder(t testing.TB, a account, name string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(m.home(a), name)
	t.Cleanup(func() { os.RemoveAll(path) })
	if err := errors.Join(os.Mkdir(path, mode), os.Chown(path, int(a.uid), int(a.uid))); err != nil {
		t.Fatal(err)
	}
	return path
}

// file writes a file into the directory of an account, as its own, and returns its path.
func (m *machine) file(t testing.TB, a account, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(m.home(a), name)
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode), os.Chown(path, int(a.uid), int(a.uid))); err != nil {
		t.Fatal(err)
	}
	return path
}

// make prepares the files and the network of a machine.
func (m *machine) make() error {
	var passwd, group, shadow strings.Builder
	for _, a := range append([]account{root, {"nobody", 65534}}, m.accounts...) {
		home := m.home(a)
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/bin/sh\n", a.name, a.uid, a.uid, home)
		fmt.Fprintf(&group, "%s:x:%d:\n", a.name, a.uid)
		fmt.Fprintf(&shadow, "%s:*:20000:0:99999:7:::\n", a.name)
		if err := errors.Join(os.MkdirAll(home, 0o755), os.Chown(home, int(a.uid), int(a.uid))); err != nil {
			return err
		}
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, other := range m.w.machines {
		fmt.Fprintln(&hosts, other.addr, other.name)
	}
	etc := filepath.Join(m.dir, "etc")
	err := errors.Join(os.MkdirAll(etc, 0o755), os.MkdirAll(filepath.Join(m.dir, "run/sshd"), 0o755), os.Chmod(m.dir, 0o755))
	for name, text := range map[string]string{"passwd": passwd.String(), "group": group.String(), "shadow": shadow.String(),
		"hosts": hosts.String(), "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644))
	}
	if err != nil || m.within != nil {
		return err
	}
	m.holder = exec.Command(m.w.self)
	m.holder.Env = append(os.Environ(), roleVariable+"=machine")
	m.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	m.holder.Stderr = os.Stderr
	in, err := m.holder.StdinPipe()
	if err != nil {
		return err
	}
	m.ends = in
	return m.holder.Start()
}

// beMachine keeps a network for as long as its standard input is open.
func beMachine([]string) error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// netPID returns the process that has the machine's network.
func (m *machine) netPID() int {
	if m.within != nil {
		return m.within.netPID()
	}
	return m.holder.Process.Pid
}

// command returns a command that is run on the machine by an account. If it is given the right to low ports, it has that
// and no other.
func (m *machine) command(a account, argv ...string) *exec.Cmd { return m.commandWith(a, "", argv...) }

const lowPorts = "low-ports"

func (m *machine) commandWith(a account, rights string, argv ...string) *exec.Cmd {
	cmd := exec.Command(m.w.self, append([]string{m.dir, fmt.Sprintf("/proc/%d/ns/net", m.netPID()), fmt.Sprint(a.uid), rights}, argv...)...)
	cmd.Dir = m.home(a)
	cmd.Env = []string{roleVariable + "=enter", "SHARED_ALTS_SOCKET=" + m.socket, "HOME=" + m.home(a), "USER=" + a.name, "LOGNAME=" + a.name,
		"PATH=" + m.w.bin + ":/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// enter turns this process, which has a mount namespace of its own, into a program on a machine.
func enter(args []string) error {
	runtime.LockOSThread() // namespace and rights are the thread's, and the program's in the end
	dir, network, rights, argv := args[0], args[1], args[3], args[4:]
	var uid int
	if _, err := fmt.Sscan(args[2], &uid); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	for _, name := range []string{"passwd", "group", "shadow", "hosts", "nsswitch.conf"} {
		if err := unix.Mount(filepath.Join(dir, "etc", name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over /etc/%s: %w", name, err)
		}
	}
	if err := unix.Mount(filepath.Join(dir, "run"), "/run", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over /run: %w", err)
	}
	f, err := os.Open(network)
	if err != nil {
		return err
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("the network of another machine: %w", err)
	}
	if uid != 0 {
		if err := become(uid, rights); err != nil {
			return err
		}
	}
	os.Unsetenv(roleVariable)
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

func become(uid int, rights string) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(uid, uid, uid), syscall.Setresuid(uid, uid, uid)); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if rights == lowPorts {
		bit := uint32(1 << unix.CAP_NET_BIND_SERVICE)
		sets[0] = unix.CapUserData{Effective: bit, Permitted: bit, Inheritable: bit}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0); errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	if rights == lowPorts {
		return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_BIND_SERVICE, 0, 0)
	}
	return nil
}

// An outcome is how a command ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs a command on the machine to its end.
func (m *machine) run(t testing.TB, a account, argv ...string) outcome {
	t.Helper()
	return m.feed(t, a, nil, argv...)
}

// feed is run with something on standard input.
func (m *machine) feed(t testing.TB, a account, in io.Reader, argv ...string) outcome {
	t.Helper()
	cmd := m.command(a, argv...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	cmd.WaitDelay = 5 * time.Second // for what it has left running
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testprog.Patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { cmd.Process.Kill() })()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q on %s: %v %v\n%s", argv, m.name, err, ctx.Err(), errs.String())
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must is run for what has to succeed, and returns its output.
func (m *machine) must(t testing.TB, a account, argv ...string) string {
	t.Helper()
	o := m.run(t, a, argv...)
	if o.code != 0 {
		t.Fatalf("%s, %q: exit status %d\n%s%s", a.on(m), argv, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// serve runs a program on the machine until the test ends, and shows its log if that has failed. It need not be ready.
func (m *machine) serve(t testing.TB, cmd *exec.Cmd) *testprog.Process {
	t.Helper()
	p, err := testprog.Launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.Ended:
		default:
			p.Cmd.Process.Signal(syscall.SIGTERM)
			if _, err := p.Wait(); err != nil {
				t.Error(err)
				p.Kill()
			}
		}
		if t.Failed() {
			t.Logf("%s on %s:\n%s", cmd.Args[5:], m.name, p.Log)
		}
	})
	return p
}

// forward runs shared-altsd listen with these arguments until the test ends, and returns once it is ready.
func (m *machine) forward(t testing.TB, a account, args ...string) *testprog.Process {
	t.Helper()
	p := m.serve(t, m.commandWith(a, lowPorts, append([]string{"shared-altsd", "listen"}, args...)...))
	if _, err := p.Told.WaitText(0, "READY=1"); err != nil {
		t.Fatalf("listen on %s: %v\n%s", m.name, err, p.Log)
	}
	return p
}

// waitPort waits until something listens at a port of the machine's own loopback address.
func (m *machine) waitPort(t testing.TB, port int) {
	t.Helper()
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := m.dial(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nothing listens at port %d of %s: %v", port, m.name, err)
		}
	}
}

// dial connects from the machine itself, as root.
func (m *machine) dial(addr string) (c net.Conn, err error) {
	err = m.inNetwork(func() error {
		c, err = net.Dial("tcp4", addr)
		return err
	})
	return c, err
}

// inNetwork runs f in a thread that has the machine's network meanwhile.
func (m *machine) inNetwork(f func() error) (err error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.netPID()))
	if err != nil {
		return err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer func() {
		// A thread that does not get back ends with its goroutine.
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
