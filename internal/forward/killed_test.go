package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// childVariable has a test process be a forward: role, the daemon's socket, and the application protocol.
const childVariable = "FORWARD_TEST_CHILD"

// A child has the connection to its peer as descriptor 3, and that of its program as 4, else standard input and output. Its
// exit status is that of connect.
func init() {
	what := os.Getenv(childVariable)
	if what == "" {
		return
	}
	var w world
	part := strings.Split(what, " ")
	w.sockets, w.protocol = [2]string{part[1], part[1]}, part[2]
	conn := func(fd uintptr) (net.Conn, error) {
		f := os.NewFile(fd, "")
		defer f.Close()
		return net.FileConn(f)
	}
	raw := must(conn(3))
	local, err := conn(4)
	if err != nil {
		local = must(forward.NewStdio(os.Stdin, os.Stdout))
	}
	var peer *altscreds.Conn
	if part[0] == "client" {
		peer = altscreds.Client(raw, w.client())
	} else {
		peer = altscreds.Server(raw, w.server())
	}
	if err := peer.Handshake(); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(2)
	}
	if r := forward.Carry(context.Background(), local, peer, forward.Ends{}); r.Err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// A fork is a forward in a process of its own, and its program; and the other forward, in this one.
type fork struct {
	cmd            *exec.Cmd
	program, other program
	raw            net.Conn // the other's
	others         chan forward.Result
}

func (w *world) fork(t *testing.T, role, kind string) *fork {
	t.Helper()
	file := func(c interface {
		File() (*os.File, error)
		Close() error
	}) *os.File {
		f := must(c.File())
		c.Close()
		return f
	}
	raw, theirs := testnet.Pair(t)
	f := &fork{cmd: exec.Command(os.Args[0]), raw: raw, others: make(chan forward.Result, 1)}
	socket := w.sockets[0]
	if role == "server" {
		socket = w.sockets[1]
	}
	f.cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{role, socket, w.protocol}, " "))
	f.cmd.ExtraFiles = []*os.File{file(theirs)}
	f.cmd.Stderr = os.Stderr
	var ours []io.Closer
	switch kind {
	case "tcp":
		a, b := testnet.Pair(t)
		f.program, f.cmd.ExtraFiles = a, append(f.cmd.ExtraFiles, file(b))
	case "unix":
		a, b := unixPair(t)
		f.program, f.cmd.ExtraFiles = a, append(f.cmd.ExtraFiles, file(b))
	case "stdio":
		inR, inW, err := os.Pipe()
		outR, outW, err2 := os.Pipe()
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		f.cmd.Stdin, f.cmd.Stdout, f.program = inR, outW, pipes{outR, stdioProgram{inW}}
		ours = append(ours, inR, outW)
		t.Cleanup(func() { outR.Close() })
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.cmd.Process.Kill() })
	for _, e := range f.cmd.ExtraFiles {
		ours = append(ours, e)
	}
	for _, c := range ours {
		c.Close()
	}
	var peer *altscreds.Conn
	if role == "client" {
		peer = altscreds.Server(raw, w.server())
	} else {
		peer = altscreds.Client(raw, w.client())
	}
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	var local net.Conn
	f.other, local = localTCP(t)
	go func() { f.others <- forward.Carry(t.Context(), local, peer, forward.Ends{}) }()
	return f
}

func localTCP(t *testing.T) (program, net.Conn) {
	a, b := testnet.Pair(t)
	return a, b
}

// resetBy reports whether a program learns by a reset that a connection did not end. It is told once, so what the program
// writes meanwhile may have had it.
func resetBy(p program, writing chan error) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{p})
	if writing != nil {
		err = errors.Join(err, <-writing)
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return errors.Join(errors.New("no reset"), err)
}

// TestRule53Killed: a forward that is killed in the middle, or after its program's end, or while its program has more to
// come, leaves a clean end with neither program; nor does a machine that hangs up.
func TestRule53Killed(t *testing.T) {
	w := newWorld(t)
	big := make([]byte, 8<<20)
	for _, kind := range []string{"tcp", "unix", "stdio"} {
		for _, role := range []string{"client", "server"} {
			for _, when := range []string{"idle", "after its program's end", "after the other's end", "under way", "cut", "never"} {
				t.Run(kind+"/"+role+"/"+when, func(t *testing.T) {
					w.tb = t
					f := w.fork(t, role, kind)
					b := make([]byte, 5)
					io.WriteString(f.program, "hello")
					if _, err := io.ReadFull(f.other, b); err != nil {
						t.Fatal(err)
					}
					io.WriteString(f.other, "world")
					if _, err := io.ReadFull(f.program, b); err != nil {
						t.Fatal(err)
					}
					var writing, writing2 chan error
					var ended program // its reader has seen an end, which was one
					switch when {
					case "after its program's end":
						f.program.CloseWrite()
						ended = f.other
					case "after the other's end":
						f.other.CloseWrite()
						ended = f.program
					case "under way":
						writing, writing2 = make(chan error, 1), make(chan error, 1)
						go func() { _, err := f.program.Write(big); writing <- err }()
						go func() { _, err := f.other.Write(big); writing2 <- err }()
						io.ReadFull(f.other, make([]byte, 1<<20))
					case "cut":
						f.raw.Close()
					case "never":
						f.program.CloseWrite()
						f.other.CloseWrite()
					}
					if ended != nil {
						if _, err := io.Copy(io.Discard, struct{ io.Reader }{ended}); err != nil {
							t.Errorf("the end that was one: %v", err)
						}
					}
					clean := when == "never"
					if !clean && when != "cut" {
						f.cmd.Process.Kill()
					}
					if !clean && kind == "tcp" && ended != f.program {
						if err := resetBy(f.program, writing); err != nil {
							t.Errorf("its own program: %v", err)
						}
					}
					if !clean && ended != f.other {
						if err := resetBy(f.other, writing2); err != nil {
							t.Errorf("the other program: %v", err)
						}
					}
					if ended != nil { // that program is told when it writes
						settled(t, func() bool { _, err := ended.Write(b); return err != nil })
					}
					if clean {
						for _, p := range []program{f.program, f.other} {
							if _, err := io.Copy(io.Discard, struct{ io.Reader }{p}); err != nil {
								t.Error(err)
							}
						}
					}
					r := <-f.others
					if clean != (r.Err == nil) {
						t.Errorf("the other forward: %+v", r)
					}
					f.cmd.Wait()
					if status := f.cmd.ProcessState; status.Success() != clean || when == "cut" && status.ExitCode() != 1 {
						t.Errorf("the forward's exit status: %v", status)
					}
				})
			}
		}
	}
}
