package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
)

// A command is a backend that is started anew for each connection, as inetd did: its standard input and output are one
// end of a socket pair.
type command struct {
	args    []string
	service string
	spawner *spawner
}

func (c *command) open(ctx context.Context, peer *altscreds.Conn) (carrier, error) {
	r := &running{exited: make(chan struct{}), free: make(chan struct{}), hungUp: make(chan struct{})}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, forward.Refuse(forward.Backend, fmt.Errorf("a socket pair: %w", err))
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair")
	defer ours.Close() // FileConn makes a copy
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, forward.Refuse(forward.Backend, err)
	}
	r.conn = conn.(*net.UnixConn)
	r.cmd = exec.Command(c.args[0], c.args[1:]...)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs, theirs, os.Stderr
	r.cmd.Env = environ(os.Environ(), peer.Peer(), c.service, peer.HandshakeID())
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.spawner.start(r.cmd); err != nil {
		conn.Close()
		return nil, forward.Refuse(forward.Backend, fmt.Errorf("starting the command: %w", err))
	}
	go r.reap()
	return r, nil
}

// A spawner starts programs from one thread, which lives as long as the process: PDEATHSIG goes by the thread.
type spawner struct{ ask chan spawning }

type spawning struct {
	cmd  *exec.Cmd
	done chan error
}

func newSpawner() *spawner {
	s := &spawner{ask: make(chan spawning)}
	go func() {
		runtime.LockOSThread()
		for a := range s.ask {
			a.done <- timerslack.Inherited(a.cmd.Start)
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	a := spawning{cmd, make(chan error, 1)}
	s.ask <- a
	return <-a.done
}

// running is a program that was started for a connection.
type running struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn
	exited chan struct{}
	failed error // what its end says, once exited is closed

	hangUp sync.Once
	hungUp chan struct{} // closed when conn is closed here

	mu   sync.Mutex
	over bool          // nobody means its process group any more, whose number may be another's
	free chan struct{} // closed when it is over
}

// reap waits for the program. It stays a zombie until it is over, so that its group has its number until then.
func (r *running) reap() {
	var info unix.Siginfo
	var err error
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Waitid(unix.P_PID, r.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	r.failed = exitError(&info)
	if err != nil {
		r.failed = fmt.Errorf("waiting for it: %w", err)
	}
	close(r.exited)
	<-r.free
	r.cmd.Wait()
}

// exitError says how a program failed, by a signal's struct siginfo; nil if it did not.
func exitError(info *unix.Siginfo) error {
	const exited, word = 1, unsafe.Sizeof(uintptr(0)) // CLD_EXITED
	// si_pid, si_uid and si_status follow signo, errno and code, aligned as a pointer is.
	at := (3*4+word-1)/word*word + 2*4
	status := *(*int32)(unsafe.Add(unsafe.Pointer(info), at))
	switch {
	case info.Code != exited:
		return fmt.Errorf("it was ended by signal %d (%v)", status, syscall.Signal(status))
	case status != 0:
		return fmt.Errorf("exit status %d", status)
	}
	return nil
}

// end kills the program and all of its process group, if so asked, and lets go of it.
func (r *running) end(kill bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	if kill {
		unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL)
	}
	r.over = true
	close(r.free)
}

func (r *running) abort() {
	r.close()
	r.end(true)
}

// close closes our end, after which nobody waits to see how the program ends.
func (r *running) close() error {
	r.hangUp.Do(func() { close(r.hungUp) })
	return r.conn.Close()
}

// carry keeps the connection's place until the program has ended.
func (r *running) carry(ctx context.Context, peer *altscreds.Conn) forward.Result {
	result := forward.Carry(ctx, &programConn{r}, peer, forward.Ends{})
	if result.Err == nil {
		select {
		case <-r.exited:
		case <-ctx.Done():
		}
	}
	r.end(result.Err != nil || ctx.Err() != nil)
	<-r.exited
	return result
}

// status says why the program's output is not whole, nil if it is.
func (r *running) status() error {
	select {
	case <-r.exited:
	case <-r.hungUp:
		return net.ErrClosed
	}
	if r.failed != nil {
		return fmt.Errorf("the command failed, so that its output may not be whole: %w", r.failed)
	}
	return nil
}

// A programConn is the connection to a program. The end of what the program says is one only if it has said so, or has
// ended well: the output of one that crashed must not look whole.
type programConn struct{ r *running }

func (c *programConn) Read(b []byte) (int, error) {
	n, err := c.r.conn.Read(b)
	switch {
	case n > 0 || err == nil:
		return n, err
	case errors.Is(err, syscall.ECONNRESET): // it closed its end without reading all, as a program may that ends
	case err != io.EOF:
		return n, err
	case !c.closed():
		return 0, io.EOF // it has shut down its output alone, and goes on
	}
	if err := c.r.status(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// closed reports whether nobody has the program's end any more.
func (c *programConn) closed() bool {
	raw, err := c.r.conn.SyscallConn()
	if err != nil {
		return true
	}
	fds := []unix.PollFd{{}}
	if raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, err = unix.Poll(fds, 0)
	}) != nil || err != nil {
		return true
	}
	return fds[0].Revents&unix.POLLHUP != 0
}

func (c *programConn) Write(b []byte) (int, error)        { return c.r.conn.Write(b) }
func (c *programConn) CloseWrite() error                  { return c.r.conn.CloseWrite() }
func (c *programConn) Close() error                       { return c.r.close() }
func (c *programConn) LocalAddr() net.Addr                { return c.r.conn.LocalAddr() }
func (c *programConn) RemoteAddr() net.Addr               { return c.r.conn.RemoteAddr() }
func (c *programConn) SetDeadline(t time.Time) error      { return c.r.conn.SetDeadline(t) }
func (c *programConn) SetReadDeadline(t time.Time) error  { return c.r.conn.SetReadDeadline(t) }
func (c *programConn) SetWriteDeadline(t time.Time) error { return c.r.conn.SetWriteDeadline(t) }
