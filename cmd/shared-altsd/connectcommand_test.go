package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// runConnect runs connect with a command to its end.
func runConnect(t testing.TB, env []string, args ...string) (status *os.ProcessState, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return cmd.ProcessState, out.String(), errs.String()
}

// COMMAND has a socket in a directory of its own, which is gone when it has ended, however it ends.
func TestConnectCommand(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "").echo()
	mine := ownedDir(t, uint32(os.Geteuid()))
	if err := os.Chmod(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	talk := func(script string, flags ...string) []string {
		return append(far.args(append([]string{"--listen", "unix:socket"}, flags...)...), "--", "sh", "-c", script)
	}
	for _, tt := range []struct {
		name, parent string
		env          []string
	}{
		{"XDG_RUNTIME_DIR", mine, []string{"XDG_RUNTIME_DIR=" + mine}},
		{"XDG_RUNTIME_DIR of others", "/tmp", []string{"XDG_RUNTIME_DIR=/tmp", "TMPDIR="}},
		{"TMPDIR", mine, []string{"XDG_RUNTIME_DIR=", "TMPDIR=" + mine}},
		{"neither", "/tmp", []string{"XDG_RUNTIME_DIR=", "TMPDIR="}},
	} {
		state, out, errs := runConnect(t, tt.env, talk(`stat -c '%a %u %F' $D $D/socket; echo $D; echo 100% $E; touch $D/left`,
			"--setenv", "D=%d", "--setenv", "E=100%%%p")...)
		lines := strings.Split(out, "\n")
		uid := strconv.Itoa(os.Geteuid())
		if !state.Success() || errs != "" || len(lines) != 5 || lines[0] != "700 "+uid+" directory" || lines[1] != "600 "+uid+" socket" ||
			lines[3] != "100% 100%0" {
			t.Fatalf("%s: %v, %q, %s", tt.name, state, lines, errs)
		}
		if filepath.Dir(lines[2]) != tt.parent {
			t.Errorf("%s: the directory is %s", tt.name, lines[2])
		}
		if _, err := os.Lstat(lines[2]); err == nil {
			t.Errorf("%s: %s is still there", tt.name, lines[2])
		}
	}
	// Statuses, and what COMMAND inherits.
	for _, tt := range []struct {
		script string
		code   int
		signal syscall.Signal
	}{{"exit 0", 0, 0}, {"exit 7", 7, 0}, {"kill -TERM $$", -1, syscall.SIGTERM}, {"kill -KILL $$", -1, syscall.SIGKILL}} {
		state, _, errs := runConnect(t, nil, talk(tt.script)...)
		ws := state.Sys().(syscall.WaitStatus)
		if state.ExitCode() != tt.code || ws.Signaled() && ws.Signal() != tt.signal || errs != "" {
			t.Errorf("%s: %v %s", tt.script, state, errs)
		}
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"/nothing/there"}, 127, "command not found"}, {[]string{"no-such-command"}, 127, "command not found"},
		{[]string{"/etc/passwd"}, 126, "cannot run"},
	} {
		state, _, errs := runConnect(t, nil, append(append(far.args("--listen", "unix:s"), "--"), tt.args...)...)
		if state.ExitCode() != tt.code || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: %v %s", tt.args, state, errs)
		}
	}
	state, _, errs := runConnect(t, nil, "connect", "--socket", "/nowhere/socket", "--listen", "unix:s", far.target, "--", "true")
	if state.ExitCode() != 125 || !strings.Contains(errs, "no daemon") {
		t.Errorf("without a daemon: %v %s", state, errs)
	}
	left, err := filepath.Glob(filepath.Join(mine, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// Signals go to COMMAND, and the directory is gone when a SIGTERM has ended it; what COMMAND has sent arrives, also after it
// has ended.
func TestConnectCommandSignals(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "")
	begin := func(script string) (cmd *exec.Cmd, dir string) {
		cmd = exec.Command(program(t), append(far.args("--listen", "unix:socket", "--listen", "127.0.0.1:0", "--setenv", "D=%d",
			"--setenv", "P=%p"), "--", "bash", "-c", script)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return cmd, strings.TrimSpace(line)
	}
	cmd, dir := begin(`trap 'exit 9' USR1; echo $D; while :; do sleep 0.01; done`)
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != fs.ModeDir|0o700 || safepath.Owner(info) != uint32(os.Geteuid()) {
		t.Errorf("%v, %v", info, err)
	}
	if os.Geteuid() == 0 { // nobody else comes near
		asUID(t, 2, func() {
			if c, err := net.Dial("unix", filepath.Join(dir, "socket")); err == nil {
				c.Close()
				t.Error("another account connects")
			}
		})
	}
	cmd.Process.Signal(syscall.SIGUSR1)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("after SIGUSR1 to connect: %v", cmd.ProcessState)
	}
	cmd, dir = begin(`echo $D; exec sleep 1000`)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		t.Errorf("after SIGTERM to connect: %v", cmd.ProcessState)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	// bash's /dev/tcp: the last bytes are on their way when it has ended. They are more than the kernel holds, or it might have
	// ended before it is looked up whose connection this is, which is nobody's then.
	const much = 32 << 20
	cmd, _ = begin(fmt.Sprintf(`echo $D; exec 3<>/dev/tcp/127.0.0.1/$P; head -c %d /dev/zero >&3`, much))
	c := far.accept()
	got, err := io.ReadAll(c)
	c.CloseWrite()
	if len(got) != much || err != nil {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	cmd.Wait()
	if !cmd.ProcessState.Success() {
		t.Errorf("%v", cmd.ProcessState)
	}
}

// What cannot be is said in one line, which names whose matter it is.
func TestConnectFailures(t *testing.T) {
	t.Parallel()
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "")
	refusing := testnet.Refusing(t)
	with := func(dial, target string, flags ...string) []string {
		return append(append([]string{"connect", "--socket", daemon.socket, "--dial", dial}, flags...), target)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"connection refused", with(refusing, far.target), 1, []string{refusing, "connection refused", "nothing listens"}},
		{"no such name", with("no-such-host.invalid:1", far.target), 1, []string{"no-such-host.invalid", "--dial"}},
		{"no daemon", []string{"connect", "--socket", "/nowhere/socket", "--dial", far.dial, far.target}, 1, []string{"this machine's own daemon", "/nowhere/socket", "systemctl"}},
		{"another account", with(far.dial, "postgres@a.test:6432", "--service", far.service), 1, []string{"postgres@a.test", me(t) + "@a.test", "target_mismatch"}},
		{"another machine", with(far.dial, me(t)+"@b.test:6432", "--service", far.service), 1, []string{"@b.test", "target_mismatch"}},
		{"another service", with(far.dial, me(t)+"@a.test:6432"), 1, []string{"no_application_protocol", `altsd-tcp/1:6432`, "another service"}},
		{"no gRPC server", with(far.dial, far.target, "--grpc"), 1, []string{"no_application_protocol", "no gRPC server"}},
		{"silence", with(silent.Addr().String(), far.target, "--handshake-timeout", "300ms"), 1, []string{"not finished after", "something else"}},
		{"no peer", []string{"connect"}, 2, []string{"no peer given"}},
		{"no port", []string{"connect", "bob@b.test"}, 2, []string{"no port"}},
		{"no account", []string{"connect", "b.test:1"}, 2, []string{"names no account"}},
		{"an address", []string{"connect", "bob@[::1]:1"}, 2, []string{"--dial HOST:PORT"}},
		{"two peers", []string{"connect", "a@b.test:1", "c@d.test:1"}, 2, []string{"c@d.test:1"}},
		{"no command", []string{"connect", "a@b.test:1", "--"}, 2, []string{"no command"}},
		{"nothing to connect to", []string{"connect", "a@b.test:1", "--", "true"}, 2, []string{"--listen unix:NAME"}},
		{"private without command", []string{"connect", "--listen", "unix:x", "a@b.test:1"}, 2, []string{"absolute path"}},
		{"not loopback", []string{"connect", "--listen", "0.0.0.0:1", "a@b.test:1"}, 2, []string{"not an address of loopback"}},
		{"a name", []string{"connect", "--listen", "localhost:1", "a@b.test:1"}, 2, []string{"127.0.0.1:PORT"}},
		{"--setenv without command", []string{"connect", "--setenv", "A=b", "a@b.test:1"}, 2, []string{"--setenv"}},
		{"--setenv with what is none", []string{"connect", "--setenv", "A=%x", "a@b.test:1"}, 2, []string{"another %"}},
		{"--for for nobody", []string{"connect", "--for", "no-such-account", "--listen", "127.0.0.1:0", "a@b.test:1"}, 2, []string{"no-such-account"}},
		{"--for without listener", []string{"connect", "--for", "root", "a@b.test:1"}, 2, []string{"--listen"}},
		{"--http without TCP", []string{"connect", "--http", "--listen", "unix:/run/x", "a@b.test:1"}, 2, []string{"127.0.0.1:PORT"}},
		{"--unclean without UNIX", []string{"connect", "--unclean", "hold", "--listen", "127.0.0.1:0", "a@b.test:1"}, 2, []string{"unix:PATH"}},
		{"--grpc and --http", []string{"connect", "--grpc", "--http", "--listen", "127.0.0.1:0", "a@b.test:1"}, 2, []string{"--grpc and --http"}},
		{"a service's name", []string{"connect", "--service", "A", "a@b.test:1"}, 2, []string{"--service", "a-z"}},
	} {
		code, out, errs := altsd(t, tt.args...)
		if code != tt.code || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit status %d, %q, %q", tt.name, code, out, errs)
		}
		for _, want := range tt.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: no %q in %q", tt.name, want, errs)
			}
		}
	}
}

// The config file names the peer, and the command line wins; what is behind -- is a command also then.
func TestConnectConfig(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "forward.x").echo()
	conf := write(t, filepath.Join(testprog.Dir(t), "x.conf"), []byte("peer = "+far.target+"\ndial = "+far.dial+
		"\nservice = forward.x\nsocket = "+daemon.socket+"\n"))
	run := func(args ...string) (int, string, string) {
		cmd := exec.Command(program(t), append([]string{"connect", "--config", conf}, args...)...)
		cmd.Stdin = strings.NewReader("hello")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
	if code, out, errs := run(); code != 0 || out != "hello" {
		t.Errorf("exit status %d: %q %s", code, out, errs)
	}
	if code, _, errs := run("postgres@a.test:1"); code != 1 || !strings.Contains(errs, "postgres@a.test") {
		t.Errorf("exit status %d: %s", code, errs)
	}
	if code, out, errs := run("--listen", "unix:s", "--", "echo", "a@b.test:1"); code != 0 || out != "a@b.test:1\n" {
		t.Errorf("exit status %d: %q %s", code, out, errs)
	}
}

// --grpc speaks grpc and raw bytes, in which an end is that of the TCP connection.
func TestConnectGRPC(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "grpc").echo()
	cmd := exec.Command(program(t), far.args("--grpc")...)
	cmd.Stdin = bytes.NewReader(random(100000))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || out.Len() != 100000 {
		t.Errorf("%v, %d bytes: %s", err, out.Len(), errs.String())
	}
}
