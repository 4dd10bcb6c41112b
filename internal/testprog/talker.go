package testprog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
)

// A Talker is a running program that answers each line with a line.
type Talker struct {
	Name   string
	t      testing.TB
	in     io.WriteCloser
	out    chan string // closed at its end
	stderr bytes.Buffer
}

// Talk starts a program that ends with its standard input, and with the test.
func Talk(t testing.TB, name string, cmd *exec.Cmd) *Talker {
	t.Helper()
	p := &Talker{t: t, Name: name, out: make(chan string, 16)}
	cmd.Stderr = &p.stderr
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
	p.in = in
	go func() {
		defer close(p.out)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.out <- s.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		stuck := time.AfterFunc(Patience, func() { cmd.Process.Kill() })
		defer stuck.Stop()
		p.Discard()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s on standard error: %s", p.Name, p.stderr.String())
		}
	})
	return p
}

// Line returns the next line that the program prints.
func (p *Talker) Line() string {
	p.t.Helper()
	select {
	case s, ok := <-p.out:
		if !ok {
			p.t.Fatalf("%s ended", p.Name)
		}
		return s
	case <-time.After(Patience):
		p.t.Fatalf("%s says nothing", p.Name)
	}
	return ""
}

// Ask returns the answer to a command.
func (p *Talker) Ask(command string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
	return p.Line()
}

// Discard reads what the program prints until it ends, so that it can.
func (p *Talker) Discard() {
	for range p.out {
	}
}

// Answer is the other end of Ask in a program of gRPC: each line is a command with up to two numbers, and the answer is
// "ok" with what do returns or "error" with the status.
func Answer(do func(command string, n, m int) (string, error)) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, numbers, _ := strings.Cut(lines.Text(), " ")
		n, m := 0, 0
		fmt.Sscan(numbers, &n, &m)
		answer, err := do(command, n, m)
		if err != nil {
			s := status.Convert(err)
			answer = fmt.Sprintf("error %d %s", s.Code(), s.Message())
		} else {
			answer = "ok " + answer
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", " "))
	}
}
