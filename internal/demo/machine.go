package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A machine is a daemon, run from this very program as an administrator would run it.
type machine struct {
	socket string
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
}

// startMachine returns when the daemon says that it is ready.
func startMachine(ctx context.Context, dir, name string, cas []string) (*machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name+".ready"), Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	m := &machine{socket: filepath.Join(dir, name+".socket"), done: make(chan struct{})}
	args := []string{"serve", "--socket", m.socket, "--credentials", filepath.Join(dir, name+".pem")}
	for _, ca := range cas {
		args = append(args, "--ca", filepath.Join(dir, ca+".pem"))
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd = exec.Command(self, args...)
	m.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.LocalAddr().String(), "LISTEN_FDS=", "WATCHDOG_USEC=")
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.cmd.Wait()
		close(m.done)
		ready.Close() // ends the wait below
	}()
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	for buf := make([]byte, 4096); ; {
		n, err := ready.Read(buf)
		if err != nil {
			m.stop()
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("did not start: %s", strings.TrimSpace(string(said)))
		}
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			return m, nil
		}
	}
}

func (m *machine) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	<-m.done
}
