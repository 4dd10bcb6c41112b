package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A farEnd is a server of an account's on the other machine, which serves one service.
type farEnd struct {
	t            testing.TB
	daemon       *process
	target, dial string // for connect
	service      string
	conns        chan *altscreds.Conn
}

// listenFar has the account of the tests serve a service by a daemon's socket; "" is that of the port.
func listenFar(t testing.TB, daemon *process, service string) *farEnd {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(raw.Addr().(*net.TCPAddr).Port)
	if service == "" {
		service = port
	}
	protocol := "grpc"
	if service != "grpc" {
		if protocol, err = altscreds.ServiceProtocol(service); err != nil {
			t.Fatal(err)
		}
	}
	l, err := altscreds.NewListener(raw, altscreds.ServerOptions{Socket: daemon.socket, ApplicationProtocols: []string{protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &farEnd{t: t, daemon: daemon, target: me(t) + "@a.test:" + port, dial: raw.Addr().String(), service: service,
		conns: make(chan *altscreds.Conn, 100)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if conn := c.(*altscreds.Conn); conn.Handshake() == nil {
					f.conns <- conn
				}
			}()
		}
	}()
	return f
}

// accept returns the next connection whose handshake is done.
func (f *farEnd) accept() *altscreds.Conn {
	f.t.Helper()
	select {
	case c := <-f.conns:
		f.t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(testprog.Patience):
		f.t.Fatal("no connection arrives")
		return nil
	}
}

// echo serves each connection: what comes is sent back, and so is its end.
func (f *farEnd) echo() *farEnd {
	go func() {
		for c := range f.conns {
			go func() {
				io.Copy(c, c)
				c.CloseWrite()
				c.Read(make([]byte, 1))
			}()
		}
	}()
	return f
}

// args returns the arguments of connect for this end, with flags before.
func (f *farEnd) args(flags ...string) []string {
	return append(append([]string{"connect", "--socket", f.daemon.socket, "--daemon-uid", strconv.Itoa(os.Geteuid()), "--dial", f.dial},
		flags...), f.target)
}

// handshakes returns how many the daemon has begun or refused as a client.
func (p *process) handshakes() int {
	p.t.Helper()
	code, out, errs := altsd(p.t, "status", "--json", "--socket", p.socket)
	var status struct {
		Initiator struct {
			Accepted, Refused json.Number
			InFlight          int
		}
	}
	if err := json.Unmarshal([]byte(out), &status); code != 0 || err != nil {
		p.t.Fatalf("exit status %d, %v: %s%s", code, err, out, errs)
	}
	accepted, _ := status.Initiator.Accepted.Int64()
	refused, _ := status.Initiator.Refused.Int64()
	return int(accepted+refused) + status.Initiator.InFlight
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

const megabytes = 8 << 20

// Standard input and output are joined with the peer, with half-close both ways, whatever kinds of files they are.
func TestConnectStdio(t *testing.T) {
	far := listenFar(t, start(t, single(t)...), "")
	up, down := random(megabytes), random(1<<20)
	for _, tt := range []struct {
		name  string
		files func(t *testing.T) (in, out *os.File, feed io.WriteCloser, drain io.Reader)
	}{{"pipes", pipes}, {"files", files}, {"one socket", oneSocket}, {"two sockets", twoSockets}} {
		for _, upFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, up first %v", tt.name, upFirst), func(t *testing.T) {
				first, second := up, down
				if !upFirst {
					first, second = down, up
				}
				in, out, feed, drain := tt.files(t)
				cmd := exec.Command(program(t), far.args()...)
				var errs bytes.Buffer
				cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &errs
				sent, mine := first, second
				if !upFirst {
					sent, mine = second, first
				}
				begin := func() {
					go func() {
						feed.Write(sent)
						feed.Close()
					}()
				}
				if tt.name == "files" { // is whole before it is read
					feed.Write(sent)
					feed.Close()
				} else if upFirst {
					begin()
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				in.Close()
				out.Close()
				c := far.accept()
				var wrote sync.WaitGroup
				read := func() {
					if got, err := io.ReadAll(c); err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
						t.Errorf("the peer read %d bytes, %v, want %d", len(got), err, len(sent))
					}
				}
				write := func() {
					if _, err := c.Write(mine); err != nil {
						t.Error(err)
					}
					if err := c.CloseWrite(); err != nil {
						t.Error(err)
					}
				}
				if upFirst {
					read()
					wrote.Go(write)
				} else {
					write()
				}
				if tt.name != "files" {
					if got, err := io.ReadAll(drain); err != nil || sha256.Sum256(got) != sha256.Sum256(mine) {
						t.Errorf("standard output had %d bytes, %v, want %d", len(got), err, len(mine))
					}
				}
				if !upFirst {
					if tt.name != "files" {
						begin()
					}
					read()
				}
				wrote.Wait()
				c.Close()
				if err := cmd.Wait(); err != nil || errs.Len() > 0 {
					t.Errorf("%v: %s", err, errs.String())
				}
				if tt.name == "files" {
					if got, err := io.ReadAll(drain); err != nil || sha256.Sum256(got) != sha256.Sum256(mine) {
						t.Errorf("standard output had %d bytes, %v, want %d", len(got), err, len(mine))
					}
				}
			})
		}
	}
}

func pipes(t *testing.T) (in, out *os.File, feed io.WriteCloser, drain io.Reader) {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return in, out, w, r
}

func files(t *testing.T) (in, out *os.File, feed io.WriteCloser, drain io.Reader) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string, flag int) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	feed, out = open("in", os.O_CREATE|os.O_WRONLY), open("out", os.O_CREATE|os.O_WRONLY)
	return open("in", os.O_RDONLY), out, feed, open("out", os.O_RDONLY)
}

// socketPair returns both ends of a UNIX socket.
func socketPair(t *testing.T) (theirs *os.File, ours *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "ours")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return os.NewFile(uintptr(fds[0]), "theirs"), c.(*net.UnixConn)
}

// A halfCloser ends its direction alone.
type halfCloser struct{ *net.UnixConn }

func (h halfCloser) Close() error { return h.CloseWrite() }

func oneSocket(t *testing.T) (in, out *os.File, feed io.WriteCloser, drain io.Reader) {
	theirs, ours := socketPair(t)
	again, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return theirs, os.NewFile(uintptr(again), "theirs"), halfCloser{ours}, ours
}

func twoSockets(t *testing.T) (in, out *os.File, feed io.WriteCloser, drain io.Reader) {
	in, w := socketPair(t)
	out, r := socketPair(t)
	return in, out, w, r
}

// stdioUntil runs connect with an input that stays open, and returns its exit status and what it said.
func stdioUntil(t *testing.T, far *farEnd, do func(c *altscreds.Conn, cmd *exec.Cmd, out io.ReadCloser)) (code int, said string) {
	t.Helper()
	cmd := exec.Command(program(t), far.args()...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := far.accept()
	if _, err := c.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // its handshake is done as well
		t.Fatal(err)
	}
	do(c, cmd, out)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(testprog.Patience):
		cmd.Process.Kill()
		t.Fatalf("connect does not end: %s", errs.String())
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// A program that waits for the end of connect before it closes what connect reads, as rsync does, need not wait for ever.
func TestConnectStdioStaysOpen(t *testing.T) {
	t.Parallel()
	far := listenFar(t, start(t, single(t)...), "")
	var peer *altscreds.Conn
	code, said := stdioUntil(t, far, func(c *altscreds.Conn, _ *exec.Cmd, _ io.ReadCloser) {
		peer = c
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadAll(peer); code != 0 || said != "" || err == nil {
		t.Errorf("exit status %d, %q, and the peer saw %v", code, said, err)
	}
}

// The end of standard output is worth exit status 0 after the peer's clean end alone.
func TestConnectStdioUnclean(t *testing.T) {
	far := listenFar(t, start(t, single(t)...), "")
	for _, tt := range []struct {
		name, want string
		do         func(c *altscreds.Conn, cmd *exec.Cmd, out io.ReadCloser)
	}{
		{"the peer closes", "was not ended cleanly", func(c *altscreds.Conn, _ *exec.Cmd, _ io.ReadCloser) { c.Write([]byte("x")); c.Close() }},
		{"the TCP of the peer ends", "was not ended cleanly", func(c *altscreds.Conn, _ *exec.Cmd, _ io.ReadCloser) { c.NetConn().(*net.TCPConn).CloseWrite() }},
		{"a reset", "was not ended cleanly", func(c *altscreds.Conn, _ *exec.Cmd, _ io.ReadCloser) {
			c.NetConn().(*net.TCPConn).SetLinger(0)
			c.NetConn().Close()
		}},
		{"nobody reads", "nobody reads it any more", func(_ *altscreds.Conn, _ *exec.Cmd, out io.ReadCloser) { out.Close() }},
		{"SIGTERM", "signal: terminated", func(_ *altscreds.Conn, cmd *exec.Cmd, _ io.ReadCloser) { cmd.Process.Signal(syscall.SIGTERM) }},
		{"SIGINT", "signal: interrupt", func(_ *altscreds.Conn, cmd *exec.Cmd, _ io.ReadCloser) { cmd.Process.Signal(syscall.SIGINT) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var peer *altscreds.Conn
			code, said := stdioUntil(t, far, func(c *altscreds.Conn, cmd *exec.Cmd, out io.ReadCloser) { peer = c; tt.do(c, cmd, out) })
			if code != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, tt.want) {
				t.Errorf("exit status %d: %q, want %q", code, said, tt.want)
			}
			// The peer, if it is still there, sees no clean end either.
			if _, err := io.ReadAll(peer); err == nil {
				t.Error("the peer saw a clean end")
			}
		})
	}
	t.Run("not let in", func(t *testing.T) {
		cmd := exec.Command(program(t), far.args()...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c := far.accept()
		c.Close()
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "it may not let this account in") {
			t.Errorf("exit status %d: %s", code, errs.String())
		}
	})
	t.Run("SIGKILL", func(t *testing.T) {
		var peer *altscreds.Conn
		code, _ := stdioUntil(t, far, func(c *altscreds.Conn, cmd *exec.Cmd, _ io.ReadCloser) { peer = c; cmd.Process.Kill() })
		if _, err := io.ReadAll(peer); code != -1 || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("exit status %d, the peer saw %v", code, err)
		}
	})
}
