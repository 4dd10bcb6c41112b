package testprog

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Process is a running serve.
type Process struct {
	Cmd   *exec.Cmd
	Log   *Lines        // its standard error
	Told  *Lines        // what it sent to the service manager, one message each
	Ended chan struct{} // closed at its end
}

// Start is Launch for a process that has to get ready, and returns once it says so.
func Start(cmd *exec.Cmd) (*Process, error) {
	p, err := Launch(cmd)
	if err != nil {
		return nil, err
	}
	if _, err := p.Told.WaitText(0, "READY=1"); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%s does not get ready: %w\nIts log:\n%s", cmd, err, p.Log)
	}
	return p, nil
}

// Launch starts a command that is serve, or turns into it, under whatever account. If no environment is set it gets
// this process's, without what a service manager may have put there.
func Launch(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, Log: newLines(), Told: newLines(), Ended: make(chan struct{})}
	dir, err := os.MkdirTemp("/tmp", "altsd-notify-")
	if err != nil {
		return nil, err
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), "LISTEN_FDS=", "WATCHDOG_USEC=")
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+manager.LocalAddr().String())
	log, err := cmd.StderrPipe()
	err = errors.Join(err, os.Chmod(dir, 0o755), os.Chmod(manager.LocalAddr().String(), 0o666))
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		manager.Close()
		return nil, errors.Join(fmt.Errorf("cannot start %s: %w", cmd, err), os.RemoveAll(dir))
	}
	go func() {
		for s := bufio.NewScanner(log); s.Scan(); {
			p.Log.add(s.Text())
		}
		cmd.Wait() // its state says how it ended
		p.Log.end()
		manager.WriteTo([]byte(lastMessage), manager.LocalAddr())
	}()
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := manager.Read(buf)
			if err != nil || string(buf[:n]) == lastMessage {
				break
			}
			p.Told.add(string(buf[:n]))
		}
		manager.Close()
		os.RemoveAll(dir)
		p.Told.end()
		close(p.Ended)
	}()
	return p, nil
}

// lastMessage is ours, and comes after all that a process that has ended sent to the service manager.
const lastMessage = "(the process has ended)"

// Wait waits for the end and returns the exit status.
func (p *Process) Wait() (code int, err error) {
	select {
	case <-p.Ended:
	case <-time.After(Patience):
		return 0, fmt.Errorf("%s does not end:\n%s", p.Cmd, p.Log)
	}
	return p.Cmd.ProcessState.ExitCode(), nil
}

// Stop ends the process by SIGTERM and returns the exit status, which is an error if it is not 0. What does not end is
// killed.
func (p *Process) Stop() error {
	p.Cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which its state then shows
	code, err := p.Wait()
	if err != nil {
		p.Kill()
		return err
	}
	if code != 0 {
		return fmt.Errorf("%s ended with exit status %d:\n%s", p.Cmd, code, p.Log)
	}
	return nil
}

// Kill ends the process by SIGKILL, and returns when it has ended.
func (p *Process) Kill() {
	p.Cmd.Process.Kill()
	<-p.Ended
}

// Faults returns an error if a log holds what a fault of the program leaves there.
func Faults(log string) error {
	for _, bad := range []string{"DATA RACE", "panic", "fatal error", "goroutine "} {
		if at := strings.Index(log, bad); at >= 0 {
			return fmt.Errorf("the program logged %q:\n%s", bad, log[max(0, at-200):min(len(log), at+4000)])
		}
	}
	return nil
}
