package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/race"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/service"
)

// patience bounds every wait for something that should happen at once: only a broken program uses it up.
const patience = 60 * time.Second

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	// Otherwise each process with the race detector waits a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

// program builds the program, once, with the race detector where the tests have it, and gives its path. Other
// accounts may run it.
func program(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "altsd-test-"); built.err != nil {
			return
		}
		args := []string{"build", "-o", filepath.Join(built.dir, "shared-altsd")}
		if race.Enabled {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
			return
		}
		built.err = os.Chmod(built.dir, 0o755)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "shared-altsd")
}

// altsd runs the program to its end.
func altsd(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q: %v %v", args, err, ctx.Err())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func newCA(t testing.TB, o testca.Options) *testca.CA {
	t.Helper()
	ca, err := testca.NewCA(o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *testca.CA, l testca.Leaf) *testca.Issued {
	t.Helper()
	issued, err := ca.Issue(l)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// write puts data at a path by rename, as a careful renewal does, and gives the path.
func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// A process is a running serve, whose log and words to the service manager can be waited for.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	socket string
	log    *lines
	told   *lines // what it sent to NOTIFY_SOCKET
	ended  chan struct{}
}

// lines collects lines for those who wait for one.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{} // closed and replaced at each line
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	close(l.more)
	l.more = make(chan struct{})
}

func (l *lines) get() ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all, l.more
}

// waitAfter waits for a line that holds text, from line number first on, and gives the number after it.
func (l *lines) waitAfter(t testing.TB, first int, text string) int {
	t.Helper()
	for timeout := time.After(patience); ; {
		all, more := l.get()
		for i := first; i < len(all); i++ {
			if strings.Contains(all[i], text) {
				return i + 1
			}
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("no line with %q after line %d in:\n%s", text, first, strings.Join(all, "\n"))
		}
	}
}

func (l *lines) count() int {
	all, _ := l.get()
	return len(all)
}

func (l *lines) String() string {
	all, _ := l.get()
	return strings.Join(all, "\n")
}

// start runs serve with the flags given and a socket in a directory of its own, and waits until it is ready.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	socket := filepath.Join(testprog.Dir(t), "socket")
	p := launch(t, socket, exec.Command(program(t), append([]string{"serve", "--socket", socket}, args...)...))
	p.told.waitAfter(t, 0, "READY=1")
	return p
}

func launch(t testing.TB, socket string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, socket: socket, log: &lines{more: make(chan struct{})},
		told: &lines{more: make(chan struct{})}, ended: make(chan struct{})}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(testprog.Dir(t), "notify"),
		Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(manager.LocalAddr().String()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(manager.LocalAddr().String(), 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			p.told.add(string(buf[:n]))
		}
	}()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+manager.LocalAddr().String())
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s := bufio.NewScanner(stderr)
		for s.Scan() {
			p.log.add(s.Text())
		}
		cmd.Wait()
		manager.Close()
		// Whoever waits for a line that will not come any more should see it end.
		p.told.add("(the daemon has ended)\n" + p.log.String())
		close(p.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Error(p.log)
		}
	})
	return p
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the daemon by SIGTERM and gives its exit status.
func (p *process) stop() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the daemon does not end:\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// me is the account that the tests run as, as the daemons see it.
func me(t testing.TB) string {
	t.Helper()
	a, err := service.NewAccounts(service.AccountOptions{}).Lookup(t.Context(), uint32(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	return a.Name
}

// talk connects a client by one daemon's socket to a server by another's, and gives whom each sees, or the client's
// error.
func talk(t testing.TB, client, server string, targets ...string) (serverIs, clientIs string, err error) {
	t.Helper()
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{Socket: server})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			seen <- err.Error()
			return
		}
		defer c.Close()
		alts := c.(*altscreds.Conn)
		if err := alts.Handshake(); err != nil {
			seen <- err.Error()
			return
		}
		seen <- alts.Peer().Account
	}()
	if len(targets) == 0 {
		targets = []string{me(t) + "@a.test", me(t) + "@b.test"}
	}
	c, err := altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{Socket: client, TargetAccounts: targets})
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.Handshake(); err != nil {
		return "", "", err
	}
	return c.Peer().Account, <-seen, nil
}
