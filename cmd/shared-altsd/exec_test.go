package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/standin"
)

// What stock gRPC looks at.
const (
	productNameFile = "/sys/class/dmi/id/product_name"
	productName     = "Google Compute Engine"
	hostsFile       = "/etc/hosts"
	handshakerName  = "metadata.google.internal"
	handshakerPort  = "8080"
)

// A copy of the test binary with this variable is shared-altsd itself: exec starts itself again by /proc/self/exe.
const beMain = "SHARED_ALTSD_EXEC_TEST"

// roles are what the test binary can be, beside shared-altsd, by its one argument.
var roles = map[string]func(){"dial-handshaker": dialHandshaker, "be-stranger": beStranger, "shake-hands": shakeHands,
	"call-by-alts": callByALTS, "reach-nowhere": reachNowhere,
	"other-network": otherNetwork, "take-port": portTaker, "slow-signer": slowSigner, "make-load": makeLoad}

// Under the race detector a process sleeps for a second at its end, unless told not to.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

func init() {
	if os.Getenv(beMain) == "" {
		return
	}
	if f := roles[os.Args[len(os.Args)-1]]; f != nil && len(os.Args) == 2 {
		f()
	}
	main()
}

// dialHandshaker does what a gRPC library does under exec, and prints what the other side says.
func dialHandshaker() {
	for _, name := range []string{handshakerName, handshakerName + "."} {
		c, err := net.Dial("tcp", net.JoinHostPort(name, handshakerPort))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		b, err := io.ReadAll(c)
		fmt.Printf("%s%v\n", b, err)
	}
	os.Exit(0)
}

// execTest is a place where any account can run shared-altsd and reach a UNIX socket that tells callers their uid.
type execTest struct {
	program, socket string
	uid             int // account that runs exec
}

// eachAccount runs f as root would use exec, and as an account without privileges. Without root it is one and the same.
func eachAccount(t *testing.T, f func(*testing.T, execTest)) {
	dir, err := os.MkdirTemp("", "exec-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	e := execTest{program: filepath.Join(dir, "shared-altsd"), socket: filepath.Join(dir, "socket"), uid: os.Geteuid()}
	if err := os.WriteFile(e.program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(e.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			cred, err := peercred.FromConn(c)
			fmt.Fprintf(c, "uid %d %v ", cred.UID, err)
			c.Close()
		}
	}()
	run := func(t *testing.T) {
		temporary := filepath.Join(dir, "tmp")
		if err := errors.Join(os.Mkdir(temporary, 0o777), os.Chmod(temporary, 0o777|os.ModeSticky)); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(temporary)
		f(t, e)
		// The directories of COMMAND's sockets are gone, whoever was killed; where exec was, init needs a moment.
		left, deadline := []os.DirEntry{nil}, time.Now().Add(10*time.Second)
		for len(left) > 0 && time.Now().Before(deadline) {
			left, _ = os.ReadDir(temporary)
		}
		if len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if e.uid != 0 {
		t.Run("user", run)
		return
	}
	t.Run("root", run)
	e.uid = 54321
	t.Run("user", run)
}

// command returns the command that runs args under exec, as the account.
func (e execTest) command(args ...string) *exec.Cmd {
	cmd := exec.Command(e.program, append([]string{"exec", "--socket", e.socket, "--"}, args...)...)
	cmd.Env = []string{beMain + "=1", "PATH=" + os.Getenv("PATH"), "no_proxy=a.example", noRaceSleep,
		"TMPDIR=" + filepath.Join(filepath.Dir(e.program), "tmp")}
	cmd.Dir = "/"
	if e.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(e.uid), Gid: uint32(e.uid)}}
	}
	return cmd
}

// output runs a shell script under exec and returns what it prints.
func (e execTest) output(t *testing.T, script string) string {
	t.Helper()
	cmd := e.command("sh", "-c", script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", script, err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// handshakerLines returns the lines that a hosts file needs for the handshaker's names at addr.
func handshakerLines(addr string) string {
	return fmt.Sprintf("%[1]s %[2]s %[2]s.\n::ffff:%[1]s %[2]s %[2]s.\n", addr, handshakerName)
}

func TestExecView(t *testing.T) {
	before, err := os.ReadDir("/sys/class")
	if err != nil {
		t.Fatal(err)
	}
	mtu, err := os.ReadFile("/sys/class/net/lo/mtu")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	eachAccount(t, func(t *testing.T, e execTest) {
		if got := e.output(t, "cat "+productNameFile); got != productName {
			t.Errorf("product name %q", got)
		}
		var want []string
		for _, d := range before {
			want = append(want, d.Name())
		}
		if !slices.Contains(want, "dmi") {
			want = append(want, "dmi")
		}
		slices.Sort(want)
		if got := strings.Fields(e.output(t, "ls /sys/class")); !slices.Equal(got, want) {
			t.Errorf("/sys/class has %q, before %q", got, want)
		}
		if got := e.output(t, "cat /sys/class/net/lo/mtu"); got != strings.TrimSpace(string(mtu)) {
			t.Errorf("mtu %q", got)
		}
		hosts := e.output(t, "cat "+hostsFile) + "\n"
		addr, _, _ := strings.Cut(hosts, " ")
		others, ok := strings.CutPrefix(hosts, handshakerLines(addr))
		if !ok || !net.ParseIP(addr).IsMulticast() {
			t.Errorf("hosts file: %s", hosts)
		}
		for line := range strings.Lines(others) {
			if text, _, _ := strings.Cut(line, "#"); strings.Contains(strings.ToLower(text), handshakerName) {
				t.Errorf("another address in the hosts file: %s", line)
			}
		}
		// The scratch mount is gone, and the daemon sees the account itself.
		want2 := fmt.Sprintf("shared-altsd\nsocket\ntmp\n%d", e.uid)
		if got := e.output(t, "ls "+filepath.Dir(e.program)+"; id -u"); got != want2 {
			t.Errorf("%q", got)
		}
		caller := fmt.Sprintf("uid %d <nil> <nil>\n", e.uid)
		if got := e.output(t, e.program+" dial-handshaker"); got+"\n" != caller+caller {
			t.Errorf("daemon says %q", got)
		}
		const list = "a.example,metadata.google.internal,metadata.google.internal."
		if got := e.output(t, "echo $no_proxy $NO_PROXY"); got != list+" "+list {
			t.Errorf("proxies: %s", got)
		}
		if e.uid != 0 {
			if got := e.output(t, "grep -c '^Cap\\(Inh\\|Prm\\|Eff\\|Amb\\):.0000000000000000$' /proc/self/status"); got != "4" {
				t.Errorf("%s of 4 sets of capabilities are empty", got)
			}
		}
	})
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !bytes.Equal(after, mounts) {
		t.Errorf("mounts of the machine changed (%v):\n%s", err, after)
	}
}

func TestExecExitStatus(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		for _, c := range []struct {
			args   []string
			status int
			signal syscall.Signal
			text   string
		}{
			{args: []string{"sh", "-c", "exit 0"}},
			{args: []string{"sh", "-c", "exit 7"}, status: 7},
			{args: []string{"sh", "-c", "kill -TERM $$"}, signal: syscall.SIGTERM},
			{args: []string{"sh", "-c", "kill -QUIT $$"}, signal: syscall.SIGQUIT},
			{args: []string{"sh", "-c", "kill -KILL $$"}, signal: syscall.SIGKILL},
			{args: []string{"sh", "-c", "kill -USR1 $$"}, signal: syscall.SIGUSR1},
			{args: []string{"no-such-command"}, status: 127, text: "command not found: no-such-command"},
			{args: []string{"/nowhere/command"}, status: 127, text: "command not found: /nowhere/command"},
			{args: []string{"/etc"}, status: 126, text: "cannot run /etc"},
			{args: nil, status: 2, text: "no command given"},
		} {
			cmd := e.command(c.args...)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatalf("%q: %v", c.args, err)
			}
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if c.signal != 0 && (!ws.Signaled() || ws.Signal() != c.signal) || c.signal == 0 && ws.ExitStatus() != c.status {
				t.Errorf("%q: %v", c.args, cmd.ProcessState)
			}
			if !strings.Contains(string(out), c.text) || c.text == "" && len(out) > 0 {
				t.Errorf("%q says %q", c.args, out)
			}
		}
		e.socket += "-of-nobody"
		cmd := e.command("true")
		out, _ := cmd.CombinedOutput()
		text := "no shared-altsd daemon answers at " + e.socket
		cure := "or give --socket"
		if cmd.ProcessState.ExitCode() != standin.StatusFailed || !strings.Contains(string(out), text) ||
			!strings.Contains(string(out), cure) {
			t.Errorf("without a daemon: %v, %q", cmd.ProcessState, out)
		}
	})
}

func TestExecPassesThrough(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := e.command("sh", "-c", `read line; echo "$line $X $PWD $0 $1 $LISTEN_PID" >&3; ulimit -n >&3`, "a b", "")
		cmd.Dir = "/usr"
		cmd.Env = append(cmd.Env, "X=y z", "LISTEN_PID=1")
		cmd.Stdin = strings.NewReader("input\n")
		cmd.ExtraFiles = []*os.File{w}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(r)
		if want := fmt.Sprintf("input y z /usr a b  1\n%d\n", limit.Cur); string(got) != want {
			t.Errorf("%q, not %q", got, want)
		}

		// Socket activation: the pid that the sockets are for is COMMAND's.
		own := e.command("sh", "-c", `test "$LISTEN_PID" = $$`)
		own.Args = append([]string{"/bin/sh", "-c", `export LISTEN_PID=$$; exec "$@"`, "sh", own.Path}, own.Args[1:]...)
		own.Path = "/bin/sh"
		if out, err := own.CombinedOutput(); err != nil {
			t.Errorf("LISTEN_PID: %v %s", err, out)
		}
	})
}

// startPiped starts the command and returns its standard input and output.
func startPiped(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, io.ReadCloser) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// heed lets COMMAND get the signal where the tests ignore it, as under nohup: ignored here, it would be there, for good.
func heed(t *testing.T, s os.Signal) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, s)
	t.Cleanup(func() { signal.Stop(caught) })
}

func TestExecSignals(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR2, 40} {
			heed(t, s)
			cmd := e.command("sh", "-c",
				fmt.Sprintf("trap 'echo caught; exit 9' %d; echo ready; while :; do sleep 0.01; done", s))
			cmd.SysProcAttr = orNew(cmd.SysProcAttr)
			cmd.SysProcAttr.Setsid = true // no terminal, whatever the tests run in
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "ready" {
				t.Fatalf("%v: %q", s, lines.Text())
			}
			cmd.Process.Signal(s)
			if !lines.Scan() || lines.Text() != "caught" {
				t.Errorf("%v: %q", s, lines.Text())
			}
			if cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
				t.Errorf("%v: %v", s, cmd.ProcessState)
			}
		}

		// SIGKILL cannot be passed on; COMMAND goes all the same.
		cmd := e.command("sh", "-c", "echo $$; exec sleep 1000")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Kill()
		if _, err := io.ReadAll(out); err != nil { // ends when COMMAND, too, has closed it
			t.Fatal(err)
		}
		cmd.Wait()
	})
}

func orNew(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		return new(syscall.SysProcAttr)
	}
	return a
}

// terminal returns the two ends of a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestExecTerminal types Ctrl-C and Ctrl-Z at a program that runs under exec in a terminal's foreground.
func TestExecTerminal(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		heed(t, syscall.SIGINT)
		master, slave := terminal(t)
		// bash counts the interrupts that it gets, and ends at a third line of input.
		cmd := e.command("bash", "-c", `trap 'echo interrupt' INT; test -t 0 && echo terminal
			while read line; do echo "got $line"; test "$line" = end && exit 3; done`)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = orNew(cmd.SysProcAttr)
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		var mu sync.Mutex
		seen := ""
		news := make(chan struct{}, 1)
		go func() {
			b := make([]byte, 4096)
			for {
				n, err := master.Read(b)
				mu.Lock()
				seen += string(b[:n])
				mu.Unlock()
				select {
				case news <- struct{}{}:
				default:
				}
				if err != nil {
					return
				}
			}
		}()
		wait := func(text string) {
			t.Helper()
			deadline := time.After(30 * time.Second)
			for {
				mu.Lock()
				found := strings.Contains(seen, text)
				all := seen
				mu.Unlock()
				if found {
					return
				}
				select {
				case <-news:
				case <-deadline:
					t.Fatalf("no %q in %q", text, all)
				}
			}
		}
		wait("terminal\r\n")
		io.WriteString(master, "\x03")
		wait("^C")
		// The trap of a signal that comes just before bash begins to read is run when it has read.
		io.WriteString(master, "one\n")
		wait("interrupt\r\n")
		wait("got one\r\n")
		io.WriteString(master, "end\n")
		wait("got end\r\n")
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%v", cmd.ProcessState)
		}
		mu.Lock()
		defer mu.Unlock()
		if n := strings.Count(seen, "interrupt\r\n"); n != 1 {
			t.Errorf("one Ctrl-C interrupted %d times: %q", n, seen)
		}
	})
}

// TestExecStops has COMMAND stop itself: exec stops too, for the shell to see, and goes on with it.
func TestExecStops(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		cmd := e.command("sh", "-c", "kill -STOP $$; exit 4")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
			t.Fatalf("%v, %v", ws, err)
		}
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 4 {
			t.Errorf("%v", cmd.ProcessState)
		}
	})
}

// TestExecProcesses looks at COMMAND's PID namespace from inside.
func TestExecProcesses(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		// It is not pid 1, which would ignore signals that it has no handler for, and /proc shows it by the pid that it has.
		const self = `test $$ != 1 && read pid rest < /proc/self/stat && test -e /proc/$pid/exe &&
			echo $PPID $(ps -o args= -p $$)`
		if got := e.output(t, self); !strings.HasPrefix(got, "1 sh -c test") {
			t.Errorf("%q", got)
		}
		if got := e.output(t, "sh -c 'kill -TERM $$'; echo $?"); got != "143" {
			t.Errorf("SIGTERM's default action: %q", got)
		}
		// An orphan is init's child, and init reaps it.
		if got := e.output(t, "(sleep 0.01 &); sleep 0.2; ps -e -o stat= | grep -c Z; true"); got != "0" {
			t.Errorf("%s zombies", got)
		}
	})
}

// TestRule42NothingOutlives has COMMAND leave processes in the background, as daemons do.
func TestRule42NothingOutlives(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		expectNothingLeft(t, e.command("sh", "-c", "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &); exit 3"))
	})
}

// expectNothingLeft runs a command that ends with status 3, and fails if something of it is left.
func expectNothingLeft(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = in
	err = cmd.Run()
	in.Close()
	if cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v", err)
	}
	// What is left has the pipe open.
	out.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := out.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("something is left: %v", err)
	}
}

// TestExecGivesTerminalBack has an interactive shell as COMMAND, which takes the terminal for groups of its own.
func TestExecGivesTerminalBack(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		master, slave := terminal(t)
		cmd := e.command("bash", "--norc", "-i")
		const outer = `"$@"; echo "status $?"; read x; echo "got $x"`
		cmd.Args = append([]string{"bash", "-c", outer, "bash", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/bash"
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = orNew(cmd.SysProcAttr)
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		time.AfterFunc(30*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		io.WriteString(master, "true; exit 5\n")
		seen := ""
		for b := make([]byte, 4096); !strings.Contains(seen, "status 5\r\n"); {
			n, err := master.Read(b)
			if seen += string(b[:n]); err != nil {
				t.Fatalf("%v after %q", err, seen)
			}
		}
		io.WriteString(master, "line\n")
		rest, _ := io.ReadAll(master) // the end is an error of the terminal's
		if !strings.Contains(string(rest), "got line\r\n") {
			t.Errorf("%q", rest)
		}
		cmd.Wait()
	})
}

// TestExecPrepared makes the mounts that systemd's BindReadOnlyPaths and Docker's options make, and lets exec rely on
// them.
func TestExecPrepared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can prepare mounts")
	}
	eachAccount(t, func(t *testing.T, e execTest) {
		cmd := e.command("true")
		cmd.Args = slices.Insert(cmd.Args, 2, "--prepared")
		out, _ := cmd.CombinedOutput()
		text := "--prepared, but " + productNameFile
		if cmd.ProcessState.ExitCode() != standin.StatusFailed || !strings.Contains(string(out), text) {
			t.Errorf("unprepared: %v, %s", cmd.ProcessState, out)
		}

		dir := filepath.Dir(e.program)
		hosts := filepath.Join(dir, fmt.Sprint("hosts", e.uid))
		address := fmt.Sprintf("127.33.1.%d", 1+min(e.uid, 1))
		if err := os.WriteFile(hosts, []byte(handshakerLines(address)), 0o644); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprint("name", e.uid))
		if err := os.WriteFile(name, []byte(productName+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		script := `set -e; mount --make-rslave /; mount --bind $1 /etc/hosts
			if ! test -e /sys/class/dmi/id/product_name; then
				mount -t tmpfs t /sys/class; mkdir -p /sys/class/dmi/id; touch /sys/class/dmi/id/product_name; fi
			mount --bind $2 /sys/class/dmi/id/product_name; uid=$3; shift 3
			exec setpriv --reuid=$uid --regid=$uid --clear-groups "$@"`
		run := exec.Command("unshare", "-m", "sh", "-c", script, "sh", hosts, name, fmt.Sprint(e.uid), e.program, "exec",
			"--prepared", "--socket", e.socket, "--", "sh", "-c",
			e.program+" dial-handshaker; getent ahostsv4 metadata.google.internal. | head -n1 | cut -d' ' -f1")
		run.Env = e.command().Env
		again := exec.Command(run.Path, run.Args[1:]...)
		again.Env = run.Env
		out, err := run.CombinedOutput()
		caller := fmt.Sprintf("uid %d <nil> <nil>\n", e.uid)
		if err != nil || string(out) != caller+caller+address+"\n" {
			t.Errorf("%v, %s", err, out)
		}

		// Nothing outlives it here, either.
		left := exec.Command(again.Path, slices.Concat(again.Args[1:len(again.Args)-3],
			[]string{"sh", "-c", "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &); exit 3"})...)
		left.Env = run.Env
		expectNothingLeft(t, left)

		// Without the address in its IPv6 form the network would be asked for one.
		if err := os.WriteFile(hosts, fmt.Appendf(nil, "%s %s %[2]s.\n", address, handshakerName), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _ = again.CombinedOutput()
		if again.ProcessState.ExitCode() != standin.StatusFailed || !strings.Contains(string(out), "::ffff:127.N.N.N") {
			t.Errorf("%v, %s", again.ProcessState, out)
		}
	})
}
