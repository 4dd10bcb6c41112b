package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// single returns the flags of a machine a.test that trusts its own CA.
func single(t *testing.T) []string {
	t.Helper()
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	return []string{"--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca,
		testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}
}

func TestStartupLog(t *testing.T) {
	flags := single(t)
	p := start(t, append(flags, "--log-format", "json")...)
	p.log.waitAfter(t, 0, "shared-altsd starts")
	var line struct{ Msg, Version, Machine, Serial, Expires, Sockets, CAs, Users string }
	for _, l := range p.log.All() {
		if strings.Contains(l, "shared-altsd starts") {
			if err := json.Unmarshal([]byte(l), &line); err != nil {
				t.Fatal(err)
			}
		}
	}
	if line.Version == "" || line.Machine != "a.test" || line.Serial == "" || line.Sockets != p.socket ||
		line.CAs != flags[3] || line.Users == "" {
		t.Errorf("the start is logged as %+v in:\n%s", line, p.log)
	}
	if _, err := time.Parse(time.RFC3339, line.Expires); err != nil {
		t.Error(err)
	}
	first := p.log.Count()
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Fatal(err)
	}
	p.log.waitAfter(t, first, "handshake done")
	if got := p.stop(); got != 0 {
		t.Errorf("exit status %d", got)
	}
}

// SIGTERM takes no new handshakes and lets the one in flight finish; the socket is gone at the end.
func TestDrain(t *testing.T) {
	p := start(t, append(single(t), "--handshake-timeout", "5m", "--drain-timeout", "5m")...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := make(chan error, 1)
	go func() {
		c, err := altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: p.socket,
			TargetMachines: []string{"a.test"}})
		if err == nil {
			err = c.Handshake()
			c.Close()
		}
		client <- err
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// The client's message 1 is there, so that a handshake is in flight: the server has not begun to answer.
	held := &heldConn{Conn: raw, began: make(chan struct{}), release: make(chan struct{})}
	server := make(chan error, 1)
	go func() {
		c := altscreds.Server(held, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: p.socket})
		server <- c.Handshake()
		c.Close()
	}()
	<-held.began
	p.signal(syscall.SIGTERM)
	p.told.waitAfter(t, 0, "STOPPING=1")
	p.log.waitAfter(t, 0, "stopping")
	// The daemon takes no new ones: wait until nobody listens any more, then let the old one go on.
	for {
		c, err := net.Dial("unix", p.socket)
		if err != nil {
			break
		}
		c.Close()
	}
	close(held.release)
	for name, ch := range map[string]chan error{"client": client, "server": server} {
		select {
		case err := <-ch:
			if err != nil {
				t.Errorf("the handshake in flight, %s: %v", name, err)
			}
		case <-time.After(testprog.Patience):
			t.Fatalf("the handshake in flight does not end, %s:\n%s", name, p.log)
		}
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, p.log)
	}
	p.log.waitAfter(t, 0, "msg=stopped")
	if _, err := os.Lstat(p.socket); err == nil {
		t.Error("the socket is still there")
	}
}

// A heldConn passes the first write on only when it is released: the answer to message 1.
type heldConn struct {
	net.Conn
	began, release chan struct{}
	passed         bool
}

func (c *heldConn) Write(b []byte) (int, error) {
	if !c.passed {
		c.passed = true
		close(c.began)
		<-c.release
	}
	return c.Conn.Write(b)
}

// A handshake that never ends delays the end only to the bound, and a second signal ends the wait.
func TestDrainBound(t *testing.T) {
	for _, second := range []bool{false, true} {
		bound := "1s"
		if second {
			bound = "5m"
		}
		p := start(t, append(single(t), "--handshake-timeout", "5m", "--drain-timeout", bound)...)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: p.socket,
			TargetMachines: []string{"a.test"}})
		raw, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Read(make([]byte, 1)); err != nil { // message 1
			t.Fatal(err)
		}
		p.signal(syscall.SIGTERM)
		p.log.waitAfter(t, 0, "stopping")
		if second {
			p.signal(syscall.SIGTERM)
		}
		if code := p.wait(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		p.log.waitAfter(t, 0, "were cut")
		raw.Close()
		l.Close()
	}
}

// systemd's socket activation: a listening socket as descriptor 3, limited by its name.
func TestSocketActivation(t *testing.T) {
	flags := single(t)
	uid := os.Geteuid()
	activate := func(t *testing.T, name, pid string, more ...string) *process {
		path := filepath.Join(testprog.Dir(t), "socket")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l.Close()
		// The shell's process becomes the daemon, so that $$ is the daemon's.
		cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=` + pid + ` exec "$0" "$@"`, program(t), "serve"},
			append(flags, more...)...)...)
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
		return launch(t, path, cmd)
	}
	t.Run("served", func(t *testing.T) {
		p := activate(t, "shared-altsd.socket", "$$")
		p.told.waitAfter(t, 0, "READY=1")
		if _, _, err := talk(t, p.socket, p.socket); err != nil {
			t.Error(err)
		}
		if err := os.Rename(p.socket, p.socket+".away"); err != nil {
			t.Fatal(err)
		}
		p.log.waitAfter(t, 0, "systemctl restart shared-altsd.socket")
		if err := os.Rename(p.socket+".away", p.socket); err != nil {
			t.Fatal(err)
		}
		p.log.waitAfter(t, 0, "can be reached again")
		if code := p.stop(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		if _, err := os.Lstat(p.socket); err != nil {
			t.Errorf("the manager's socket was removed: %v", err)
		}
	})
	t.Run("limited by name", func(t *testing.T) {
		own := filepath.Join(testprog.Dir(t), "own")
		p := activate(t, fmt.Sprintf("uids=%d", uid+1), "$$", "--socket", own)
		p.told.waitAfter(t, 0, "READY=1")
		if _, _, err := talk(t, own, own); err != nil {
			t.Errorf("--socket beside it: %v", err)
		}
		if _, _, err := talk(t, p.socket, own); err == nil || !strings.Contains(err.Error(), "uid") {
			t.Errorf("a caller of another uid: %v", err)
		}
	})
	t.Run("an account by name", func(t *testing.T) {
		p := activate(t, fmt.Sprintf("uids=%d,account=greeter+,label=blue", uid), "$$")
		p.told.waitAfter(t, 0, "READY=1")
		if code, out, errs := altsd(t, "whoami", "--socket", p.socket); code != 0 || out != "greeter+@a.test\n  socket = blue\n" {
			t.Errorf("exit status %d: %s %s", code, out, errs)
		}
	})
	t.Run("account before uids", func(t *testing.T) {
		p := activate(t, fmt.Sprintf("account=greeter+,uids=%d", uid), "$$")
		if code := p.wait(); code != 1 || !strings.Contains(p.log.String(), "the first must be uids=N-M") {
			t.Errorf("exit status %d: %s", code, p.log)
		}
	})
	t.Run("bad account", func(t *testing.T) {
		p := activate(t, fmt.Sprintf("uids=%d,account=a@b", uid), "$$")
		if code := p.wait(); code != 1 || !strings.Contains(p.log.String(), "FileDescriptorName=uids=") ||
			!strings.Contains(p.log.String(), "--allow-domain-accounts") {
			t.Errorf("exit status %d: %s", code, p.log)
		}
	})
	t.Run("bad name", func(t *testing.T) {
		p := activate(t, "uids=x", "$$")
		if code := p.wait(); code != 1 || !strings.Contains(p.log.String(), "FileDescriptorName=uids=x") {
			t.Errorf("exit status %d: %s", code, p.log)
		}
	})
	t.Run("for another process", func(t *testing.T) {
		own := filepath.Join(testprog.Dir(t), "own")
		p := activate(t, "x", "1", "--socket", own)
		p.told.waitAfter(t, 0, "READY=1")
		p.log.waitAfter(t, 0, "shared-altsd starts")
		if !strings.Contains(p.log.String(), "sockets="+own+" ") {
			t.Errorf("it serves other sockets than its own:\n%s", p.log)
		}
	})
}

// Where standard error is the journal, each line begins with its priority, also the one that says why there is no start.
func TestJournalPriorities(t *testing.T) {
	journal := `JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec "$0" "$@"`
	flags := append([]string{"-c", journal, program(t), "serve"}, single(t)...)
	for format, want := range map[string]string{"text": "<6>time=", "json": `<6>{"time":`} {
		path := filepath.Join(testprog.Dir(t), "socket")
		cmd := exec.Command("sh", append(flags, "--socket", path, "--log-format", format)...)
		p := launch(t, path, cmd)
		p.told.waitAfter(t, 0, "READY=1")
		p.log.waitAfter(t, 0, "shared-altsd starts")
		talk(t, p.socket, p.socket, "nobody@a.test") // refused
		p.log.waitAfter(t, 0, "handshake failed")
		p.stop()
		warned := false
		for _, line := range p.log.All() {
			warned = warned || strings.HasPrefix(line, "<4>") && strings.Contains(line, "handshake failed")
			if !strings.HasPrefix(line, want) && !strings.HasPrefix(line, "<4>") {
				t.Errorf("%s: %q", format, line)
			}
		}
		if !warned {
			t.Errorf("%s: no warning in:\n%s", format, p.log)
		}
	}
	p := launch(t, "", exec.Command("sh", append(flags, "--crl", "/nothing")...))
	if code := p.wait(); code != 1 || !strings.HasPrefix(p.log.String(), "<3>shared-altsd serve: --crl: ") {
		t.Errorf("exit status %d: %s", code, p.log)
	}
}

func TestWatchdog(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	cmd := exec.Command(program(t), append([]string{"serve", "--socket", path}, single(t)...)...)
	cmd.Env = append(os.Environ(), "WATCHDOG_USEC=20000")
	p := launch(t, path, cmd)
	n := p.told.waitAfter(t, 0, "READY=1")
	n = p.told.waitAfter(t, n, "WATCHDOG=1")
	p.told.waitAfter(t, n, "WATCHDOG=1")
}

// ordinaryUser returns an account without privileges: the tests' own, or one that every system has.
func ordinaryUser(t *testing.T) (*syscall.SysProcAttr, uint32) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		return nil, uint32(uid)
	}
	u, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, uint32(uid)
}

// No core dumps, and no other process of the same user may look into the daemon's memory.
func TestHardened(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	attr, uid := ordinaryUser(t)
	key := write(t, filepath.Join(dir, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	if attr != nil {
		for _, path := range []string{key, caFile, dir} {
			if err := os.Chown(path, int(uid), -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := startAs(t, attr, filepath.Join(dir, "socket"), "--credentials", key, "--ca", caFile)
	// The kernel gives the files in /proc of a process that is not dumpable to root.
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if got := safepath.Owner(info); got == uid {
		t.Errorf("the process is dumpable: /proc/PID/environ belongs to %d", got)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(limits), "\n") {
		if strings.HasPrefix(line, "Max core file size") && strings.Join(strings.Fields(line)[4:6], " ") != "0 0" {
			t.Error(line)
		}
	}
}
