package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/service"
)

// exec, ident and DNS have ports of their own, which tests of other packages may want at the same time.
func TestMain(m *testing.M) {
	testnet.Own()
	os.Exit(testprog.Main(m))
}

// program returns the path of the program, which other accounts may run.
func program(t testing.TB) string {
	t.Helper()
	path, err := testprog.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// altsd runs the program to its end.
func altsd(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return testprog.Run(t, args...)
}

// Where the CA fails the test ends.
var newCA, issue = testca.MustCA, testca.MustIssue

var write = testprog.Write

// A process is a running serve, whatever goes wrong with which fails the test.
type process struct {
	*testprog.Process
	t         testing.TB
	socket    string
	log, told lines
}

type lines struct{ *testprog.Lines }

// waitAfter waits for a line that holds text, from line number first on, and gives the number after it.
func (l lines) waitAfter(t testing.TB, first int, text string) int {
	t.Helper()
	next, err := l.WaitText(first, text)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// start runs serve with the flags given and a socket in a directory of its own, and waits until it is ready.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	return startAs(t, nil, filepath.Join(testprog.Dir(t), "socket"), args...)
}

// startAs is start as an account, and with the socket given.
func startAs(t testing.TB, attr *syscall.SysProcAttr, socket string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"serve", "--socket", socket}, args...)...)
	cmd.SysProcAttr = attr
	p := launch(t, socket, cmd)
	p.told.waitAfter(t, 0, "READY=1")
	return p
}

func launch(t testing.TB, socket string, cmd *exec.Cmd) *process {
	t.Helper()
	p, err := testprog.Launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if err := testprog.Faults(p.Log.String()); err != nil {
			t.Error(err)
		}
	})
	return &process{p, t, socket, lines{p.Log}, lines{p.Told}}
}

// done waits for the log's line of a handshake of each role that has succeeded. It is counted just before, and only after
// the application there has its result.
func (p *process) done(roles ...string) {
	p.t.Helper()
	for _, role := range roles {
		if _, err := p.log.Wait(0, "a success of the "+role+"'s", func(line string) bool {
			return strings.Contains(line, `msg="handshake done"`) && strings.Contains(line, " role="+role+" ")
		}); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
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
	code, err := p.Wait()
	if err != nil {
		p.t.Fatal(err)
	}
	return code
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

// spoken is what the tests' connections speak.
var spoken = []string{"test"}

// talk connects a client by one daemon's socket to a server by another's, and gives whom each sees, or the client's
// error.
func talk(t testing.TB, client, server string, targets ...string) (serverIs, clientIs string, err error) {
	t.Helper()
	l, err := altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: server})
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
	c, err := altscreds.Dial("tcp", l.Addr().String(), altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: client, TargetAccounts: targets})
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.Handshake(); err != nil {
		return "", "", err
	}
	return c.Peer().Account, <-seen, nil
}
