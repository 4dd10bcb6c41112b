package matrix

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A process is a running program that answers each line with a line.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    chan string // closed at its end
	stderr bytes.Buffer
}

// run starts a program as the account.
func run(t *testing.T, w *world, a account, d *daemon, name string, argv []string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(argv[0], argv[1:]...), out: make(chan string, 16)}
	p.cmd.Dir = "/"
	p.cmd.Env = []string{bePeer + "=1", "SHARED_ALTS_SOCKET=" + d.socket, "PATH=" + os.Getenv("PATH"),
		"PYTHONDONTWRITEBYTECODE=1", "GORACE=atexit_sleep_ms=0"}
	p.cmd.Stderr = &p.stderr
	if a.uid != os.Geteuid() {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.out)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.out <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.in.Close()
		p.cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(testprog.Patience, func() { p.cmd.Process.Kill() })
		defer stuck.Stop()
		for range p.out {
		}
		<-read
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s on standard error: %s", p.name, p.stderr.String())
		}
	})
	return p
}

// line returns the next line that the process prints.
func (p *process) line() string {
	p.t.Helper()
	select {
	case s, ok := <-p.out:
		if !ok {
			p.t.Fatalf("%s ended", p.name)
		}
		return s
	case <-time.After(testprog.Patience):
		p.t.Fatalf("%s says nothing", p.name)
	}
	return ""
}

// ask returns the answer to a command.
func (p *process) ask(command string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return p.line()
}
